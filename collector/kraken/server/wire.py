"""The byte stream under a server's WebSocket: bytes already read are read again, and data frames take a short way.

Invariant: bytes of two senders never mix. Data and trio-websocket's own frames (pongs, the close) share one lock.
"""

import socket
import struct
from collections.abc import Sequence

import trio

from collector.kraken.framing import Opcode, frame_header

LINGER_RESET = struct.pack("ii", 1, 0)  # socket(7): SO_LINGER on with 0 seconds makes close(2) send a reset


class Wire(trio.abc.Stream):
    """A TCP stream whose first bytes, the head of the request, are read again by the WebSocket handshake.

    Once `silent` the connection is half-open: it stays up, and what either side sends is lost. `ended` tells that the
    client has left nevertheless.
    """

    def __init__(self, stream: trio.SocketStream, head: bytes) -> None:
        self.silent = False
        self.ended = trio.Event()
        self.lock = trio.StrictFIFOLock()
        self._stream = stream
        self._head = head

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See trio.abc.ReceiveStream; all of the head comes first, whatever is asked for."""
        if self._head:
            await trio.lowlevel.checkpoint()
            head, self._head = self._head, b""
            return head
        try:
            while (data := bytes(await self._stream.receive_some(max_bytes))) and self.silent:
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.ended.set()
            raise
        if not data:
            self.ended.set()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See trio.abc.SendStream. trio-websocket sends with this."""
        async with self.lock:
            if not self.silent:
                await self._stream.send_all(data)

    async def send_frames(self, opcode: Opcode, payloads: Sequence[bytes]) -> None:
        """Send whole messages; the caller holds the lock.

        They go past trio-websocket, in one write: 0.6 µs a message against its 13 µs, which decides how fast a tape
        can be played. It keeps no state of what a server sends, so it does not notice.
        """
        await self._stream.send_all(
            b"".join([part for payload in payloads for part in (frame_header(opcode, len(payload)), payload)])
        )

    async def wait_send_all_might_not_block(self) -> None:
        """See trio.abc.SendStream."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the TCP connection."""
        await self._stream.aclose()

    def reset(self) -> None:
        """Break the TCP connection: the peer sees a reset, and no closing handshake."""
        self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        self._stream.socket.close()
