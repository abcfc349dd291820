"""Framing, against the WebSocket implementation that reads it."""

import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

from collector.kraken.framing import Opcode, frame_header


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
