import pytest
import trio
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

from collector.kraken.server.wire import Opcode, Wire, frame_header


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65_535, 65_536, 200_000])
def test_a_client_reads_a_frame_of_any_length(length: int) -> None:
    """A depth-1000 snapshot, or a message of just the wrong length, breaks the framing of all that follows."""
    client = Connection(ConnectionType.CLIENT)
    texts = ["x" * length, "next"]
    client.receive_data(b"".join(frame_header(Opcode.TEXT, len(text)) + text.encode() for text in texts))
    read, parts = [], []
    for event in client.events():
        assert isinstance(event, TextMessage)
        parts.append(event.data)
        if event.message_finished:
            read.append("".join(parts))
            parts.clear()
    assert read == texts


async def test_what_was_read_of_the_head_is_read_again() -> None:
    """The handshake waits for bytes that were already taken from the socket."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with (
        listener,
        await trio.open_tcp_stream(*listener.socket.getsockname()) as client,
        await listener.accept() as accepted,
    ):
        wire = Wire(accepted, b"head")
        await client.send_all(b" and more")
        assert await wire.receive_some(2) == b"head"
        assert await wire.receive_some() == b" and more"
