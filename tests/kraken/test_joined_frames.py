"""Joined frames, against the WebSocket implementation that reads them, with and without."""

from collections.abc import Iterable
from itertools import pairwise

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Event, Message

from collector.kraken.framing import Opcode, frame_header
from collector.kraken.joined_frames import SEPARATOR, JoinedFrames

HEAD = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
CLOSE = b"\x88\x02\x03\xe8"
BROKEN = [
    b"\x81\x85\x00\x00\x00\x00hello",  # masked
    b"\xc1\x05hello",  # a reserved bit
    b"\x83\x05hello",  # an opcode that there is not
    b"\x81\x7e\x00\x05hello",  # a length in more bytes than it needs
    b"\x81\x7f\x00\x00\x00\x00\x00\x00\x00\x05hello",  # likewise
    b"\x01\x05hello\x81\x05world",  # a message within another
    b"\x81\x02\xc3\x28",  # no UTF-8
]


class Chunks(trio.abc.ReceiveStream):
    """A stream that gives what it was given, as it was cut."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:  # noqa: ARG002 - the interface's
        return next(self._chunks, b"")

    async def aclose(self) -> None:
        pass


async def taken(chunks: Iterable[bytes]) -> list[bytes]:
    """What comes out of joined frames, by the read."""
    stream = JoinedFrames(Chunks(chunks))
    reads = []
    while data := await stream.receive_some():
        reads.append(data)
    return reads


def events(chunks: Iterable[bytes]) -> list[object]:
    """What a client sees: messages in whole, each text as the texts that were joined in it, and other events."""
    client = Connection(ConnectionType.CLIENT)
    seen: list[object] = []
    parts: list[str | bytes] = []
    for chunk in chunks:
        client.receive_data(chunk)
        for event in client.events():
            seen += _seen(event, parts)
            if isinstance(event, CloseConnection):
                return seen
    return seen


def _seen(event: Event, parts: list[str | bytes]) -> list[object]:
    if not isinstance(event, Message):
        return [event]
    parts.append(event.data)
    if not event.message_finished:
        return []
    whole = event.data[:0].join(parts)
    parts.clear()
    return list(whole.split(SEPARATOR)) if isinstance(whole, str) else [whole]


def frame(opcode: Opcode, payload: bytes) -> bytes:
    return frame_header(opcode, len(payload)) + payload


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(data) + 1) for place in places} - {0, len(data)}), len(data)]
    return [data[start:stop] for start, stop in pairwise(edges)]


texts = st.one_of(
    st.text(st.characters(exclude_characters=SEPARATOR, codec="utf-8"), max_size=20),
    st.integers(120, 130).map("x".__mul__),
    st.sampled_from([65_535, 65_536, 70_000]).map("x".__mul__),
)
frames = st.one_of(
    texts.map(lambda text: frame(Opcode.TEXT, text.encode())),
    texts.map(lambda text: frame(Opcode.TEXT, text.encode())),
    st.binary(max_size=200).map(lambda payload: frame(Opcode.BINARY, payload)),
    st.binary(max_size=125).map(lambda payload: b"\x89" + bytes([len(payload)]) + payload),  # a ping
    st.just(b"\x01\x03one\x89\x00\x00\x03two\x80\x05three"),  # a fragmented message with a ping within
    st.sampled_from([CLOSE, *BROKEN]),
)
places = st.lists(st.integers(0, 2**20), max_size=12)


@given(st.lists(frames, max_size=12), places)
async def test_a_client_sees_what_was_sent(sent: list[bytes], places: list[int]) -> None:
    """Prevents a message from being lost, changed or reordered, and a broken one from passing, however it is cut."""
    data = b"".join(sent)
    head, *reads = await taken([HEAD, *cut(data, places)])
    assert head == HEAD
    assert events(reads) == events([data])


@pytest.mark.parametrize("broken", BROKEN)
async def test_what_breaks_the_protocol_spoils_nothing_before_it(broken: bytes) -> None:
    """Prevents messages that arrived in order from being lost because of what followed them in the same read."""
    data = frame(Opcode.TEXT, b"good") * 2 + broken
    _, *reads = await taken([HEAD, data])
    *messages, close = events(reads)
    assert messages == ["good", "good"]
    assert isinstance(close, CloseConnection)


async def test_what_came_together_is_one_message() -> None:
    """Prevents a burst from costing the library's 12 µs for each message, and a single one from being rewritten."""
    one, two, three = (frame(Opcode.TEXT, text) for text in (b'{"a":1}', b'{"b":2}', b'{"c":3}'))
    (_, first, second) = await taken([HEAD, one, one + two + three])
    assert first == one
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(second)
    assert [event.data for event in client.events()] == [SEPARATOR.join(['{"a":1}', '{"b":2}', '{"c":3}'])]


@given(places)
async def test_frames_behind_the_head_in_one_read(places: list[int]) -> None:
    """Prevents what follows the handshake at once, or a body that is no frames, from being taken for the other."""
    frames = frame(Opcode.TEXT, b"first") * 3
    data = b"".join(await taken(cut(HEAD + frames, places)))
    assert data.startswith(HEAD)
    assert events([data[len(HEAD) :]]) == ["first"] * 3


async def test_nothing_whole_is_held_back() -> None:
    """Prevents a ping from waiting for its answer, or a large message from gathering here, until more arrives."""
    ping, snapshot = b"\x89\x00", frame(Opcode.TEXT, b"x" * 100_000)
    reads = await taken([HEAD, ping, snapshot[:50_000], snapshot[50_000:99_999], snapshot[99_999:], ping[:1], ping[1:]])
    assert reads == [HEAD, ping, snapshot[:50_000], snapshot[50_000:99_999], snapshot[99_999:], ping]


@pytest.mark.parametrize("answer", [b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nnope", b"\x00\x81" * 100])
async def test_what_is_no_handshake_passes(answer: bytes) -> None:
    """Prevents the reason of a refusal from being lost."""
    assert b"".join(await taken([answer])) == answer
