"""Serving over real sockets: streams that begin, go on and end."""

import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import urlsplit

import pytest
import trio
from collecting import DEADLINE
from conftest import new_database
from embedded import EmbeddedPostgres
from simulated_store import simulate, store

from collector.dashboard import app
from collector.dashboard import stream as stream_module
from collector.dashboard.serving import serve

PAIR = "BTC/USD"
# HTTP/1.0 has no chunks: what comes are the events as they are.
REQUEST = f"GET /api/stream?pair={PAIR} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode()


@pytest.fixture(scope="module")
def stored_url(postgres_server: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    """A database with a pair's market."""
    with new_database(postgres_server, "dashboard_serving", migrated_template) as url:
        store(url, simulate((PAIR,), count=300))
        yield url


class Stream:
    """The stream of the pair, as a client receives it."""

    def __init__(self, connection: trio.SocketStream) -> None:
        self._connection = connection
        self._received = b""

    async def part(self) -> bytes:
        """What comes up to the next empty line; empty at the end."""
        while b"\n\n" not in self._received:
            data = await self._connection.receive_some()
            if not data:
                return b""
            self._received += data.replace(b"\r\n", b"\n")
        part, _, self._received = self._received.partition(b"\n\n")
        return part

    async def update(self) -> dict[str, object]:
        """The next event."""
        while not (part := await self.part()).startswith(b"data: "):
            assert part, "the stream ended"
        return json.loads(part.removeprefix(b"data: "))


@asynccontextmanager
async def open_server(url: str) -> AsyncIterator[tuple[int, trio.Event]]:
    """The port of a dashboard, and what stops it; at the end of the block it has stopped."""
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        address = await nursery.start(partial(serve, socket.create_server(("127.0.0.1", 0)), url, None, stop=stop))
        yield urlsplit(address).port or 0, stop
        stop.set()
        nursery.cancel_scope.deadline = trio.current_time() + DEADLINE
    assert not nursery.cancel_scope.cancelled_caught, "the server did not stop"


@asynccontextmanager
async def open_stream(port: int) -> AsyncIterator[Stream]:
    async with await trio.open_tcp_stream("127.0.0.1", port) as connection:
        await connection.send_all(REQUEST)
        with trio.fail_after(DEADLINE):
            yield Stream(connection)


async def test_stream_tells_all_and_then_what_is_new(stored_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a page that begins with nothing, that hears nothing, or that gets the same again and again."""
    monkeypatch.setattr(stream_module, "HEARTBEAT", 0.5)
    async with open_server(stored_url) as (port, _), open_stream(port) as stream:
        head = (await stream.part()).lower()
        assert b"200" in head.splitlines()[0]
        assert b"content-type: text/event-stream" in head
        first = await stream.update()
        assert first["is_first"]
        assert first["book"]["levels"] == [10, 10]
        assert len(first["trades"]) > 10
        second = await stream.update()
        assert second.keys() == {"health"}, "a sign of life"


async def test_streams_are_bounded(stored_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents many open pages from taking all of the machine, and a closed one from being counted for ever."""
    monkeypatch.setattr(app, "MAX_STREAMS", 1)
    async with open_server(stored_url) as (port, _):
        async with open_stream(port) as stream:
            await stream.update()
            async with open_stream(port) as refused:
                assert b"503" in (await refused.part()).splitlines()[0]
        with trio.fail_after(DEADLINE):
            while True:
                async with open_stream(port) as stream:
                    if b"200" in (await stream.part()).splitlines()[0]:
                        assert (await stream.update())["is_first"]
                        break
                await trio.sleep(0.02)


async def test_open_stream_does_not_hold_up_the_end(stored_url: str) -> None:
    """Prevents a dashboard that a host has to kill at each deploy, since somebody looks at it."""
    async with open_server(stored_url) as (port, stop), open_stream(port) as stream:
        await stream.update()
        stop.set()
        while await stream.part():
            pass
