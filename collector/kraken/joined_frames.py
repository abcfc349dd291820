"""The byte stream under a client's WebSocket: messages that arrived together are joined into one.

trio-websocket takes 12 µs for a message, however short, since it wakes two tasks for each. So of what one read brought,
text messages that follow each other go up as one, with a character between them that no JSON text can hold (the one of
RFC 7464). That takes 0.6 µs a message, and makes a batch of a burst without anybody waiting for more.

Whatever else there is passes byte for byte, in its place: the handshake, control frames, fragments, text that is not
all ASCII (so that one that is no UTF-8 spoils no other), what breaks the protocol. Nothing is judged here, and nothing
held back but the beginning of a frame's header.
"""

import re
from functools import lru_cache

import trio

from collector.kraken.framing import LONG_LENGTH, SHORT_LENGTH, Opcode, frame_header

SEPARATOR = "\x1e"

_SEPARATOR = SEPARATOR.encode()
_END_OF_HEAD = re.compile(rb"\n\r?\n")  # of the handshake's response: what h11 takes for it
_SHORTEST_HEADER = 2  # bytes
_LENGTH = 0x7F  # these bits of the second byte
_LONGER_BY = {SHORT_LENGTH: 2, LONG_LENGTH: 8}  # bytes of the header that follow the second


class JoinedFrames(trio.abc.Stream):
    """A client's stream to a WebSocket server, from before the handshake on."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._head: bytes | None = b""  # the response to the handshake so far, None once it is complete
        self._kept = b""  # the beginning of a header
        self._missing = 0  # bytes of a frame whose beginning went up already

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See trio.abc.ReceiveStream; a few bytes more than asked for may come."""
        while data := bytes(await self._stream.receive_some(max_bytes)):
            if taken := self._take(data):
                return taken
        return b""

    def _take(self, data: bytes) -> bytes:
        if self._head is None:
            return self._join(data)
        seen = len(self._head)
        self._head += data
        end = _END_OF_HEAD.search(self._head)
        if end is None:
            return data
        self._head = None
        frames = end.end() - seen
        return data[:frames] + self._join(data[frames:])

    def _join(self, data: bytes) -> bytes:
        data = self._kept + data
        end = len(data)
        begin = position = min(self._missing, end)
        self._missing -= position
        parts = [data[:position]]
        texts: list[bytes] = []  # of the frames from `begin` to `position`
        while end - position >= _SHORTEST_HEADER:
            length = data[position + 1] & _LENGTH
            payload = position + _SHORTEST_HEADER + _LONGER_BY.get(length, 0)
            if payload > end:
                break
            if length >= SHORT_LENGTH:
                length = int.from_bytes(data[position + _SHORTEST_HEADER : payload])
            stop = payload + length
            text = data[payload:stop]
            if stop <= end and data[position:payload] == _text_header(length) and text.isascii():
                texts.append(text)
            else:
                parts += (_joined(texts, data[begin:position]), data[position:stop])
                self._missing = max(stop - end, 0)
                texts, begin = [], min(stop, end)
            position = min(stop, end)
        parts.append(_joined(texts, data[begin:position]))
        self._kept = data[position:]
        return b"".join(parts)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See trio.abc.SendStream."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """See trio.abc.SendStream."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the stream below."""
        await self._stream.aclose()


def _joined(texts: list[bytes], frames: bytes) -> bytes:
    """These texts as one message; `frames` are what they came in."""
    if len(texts) <= 1:
        return frames
    text = _SEPARATOR.join(texts)
    return _text_header(len(text)) + text


@lru_cache(maxsize=2**12)  # of most messages: 0.1 µs instead of 0.3
def _text_header(length: int) -> bytes:
    return frame_header(Opcode.TEXT, length)
