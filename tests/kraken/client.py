"""A client of the v2 server that knows the wire and nothing of the collector, and a server to talk to."""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from collector.kraken.server.faults import Faults
from collector.kraken.server.serving import Address, serve
from collector.kraken.server.source import Source

DEADLINE = 30  # seconds for whatever a test waits for; all of it takes well below one
CLOSE_TIMEOUT = 5  # seconds for the closing handshake, which a server made silent does not answer
HEARTBEAT = '{"channel":"heartbeat"}'

UPGRADE = (
    b"GET /v2 HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@asynccontextmanager
async def serving(source: Source, faults: Faults | None = None, on_sent=None) -> AsyncGenerator[Address, None]:
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            yield await nursery.start(partial(serve, source, faults=faults, on_sent=on_sent))
            nursery.cancel_scope.cancel()


class Client:
    """One connection. Everything that came, in order, is in `received`."""

    def __init__(self, websocket: WebSocketConnection) -> None:
        self.websocket = websocket
        self.received: list[str | bytes] = []

    async def frame(self) -> str | bytes:
        """The next message that is no heartbeat."""
        while (message := await self.websocket.get_message()) == HEARTBEAT:
            self.received.append(message)
        self.received.append(message)
        return message

    async def message(self) -> dict:
        return json.loads(await self.frame())

    async def until(self, wanted: Callable[[dict], bool]) -> dict:
        while not wanted(message := await self.message()):
            pass
        return message

    async def send(self, request: dict | str) -> None:
        await self.websocket.send_message(request if isinstance(request, str) else json.dumps(request))

    async def ask(self, request: dict | str) -> dict:
        """The first answer to a request; data that comes before is kept in `received`."""
        await self.send(request)
        return await self.until(lambda message: "channel" not in message)

    async def subscribe(self, channel: str, *symbols: str, req_id: int = 1, **params) -> dict:
        """Subscribe and return the first answer."""
        params = {"channel": channel, "symbol": list(symbols), **params}
        return await self.ask({"method": "subscribe", "params": params, "req_id": req_id})

    async def unsubscribe(self, channel: str, *symbols: str, req_id: int = 2, **params) -> dict:
        params = {"channel": channel, "symbol": list(symbols), **params}
        return await self.ask({"method": "unsubscribe", "params": params, "req_id": req_id})

    def data(self) -> list[str]:
        """What came of books and trades so far."""
        starts = ('{"channel":"book"', '{"channel":"trade"')
        return [frame for frame in self.received if isinstance(frame, str) and frame.startswith(starts)]

    async def closed(self) -> tuple[int, str | None]:
        """Read until the connection ends; the code and reason of its end."""
        try:
            while True:
                self.received.append(await self.websocket.get_message())
        except ConnectionClosed as end:
            return end.reason.code, end.reason.reason


async def upgrade_status(address: Address, path: str = "/v2") -> int:
    """The HTTP status that a request for the WebSocket gets."""
    async with await trio.open_tcp_stream("127.0.0.1", address.port) as stream:
        await stream.send_all(UPGRADE.replace(b"/v2", path.encode()))
        answer = b""
        while b"\r\n" not in answer:
            answer += await stream.receive_some()
        return int(answer.split()[1])


@asynccontextmanager
async def connected(address: Address) -> AsyncGenerator[Client, None]:
    """A client that has read its greeting. Its stream is its own: trio-websocket leaves one open that broke."""
    async with await trio.open_tcp_stream("127.0.0.1", address.port) as stream, trio.open_nursery() as nursery:
        websocket = await wrap_client_stream(
            nursery, stream, f"127.0.0.1:{address.port}", "/v2", message_queue_size=64, max_message_size=2**24
        )
        client = Client(websocket)
        greeting = await client.message()
        assert greeting["channel"] == "status"
        yield client
        with trio.move_on_after(CLOSE_TIMEOUT):
            await websocket.aclose()
        nursery.cancel_scope.cancel()


async def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what nobody tells of; the test's deadline bounds it."""
    while not condition():  # noqa: ASYNC110 - there is no event for it
        await trio.sleep(0.01)


async def is_listening(address: Address) -> bool:
    try:
        await (await trio.open_tcp_stream("127.0.0.1", address.port)).aclose()
    except OSError:
        return False
    return True


def is_book(message: dict) -> bool:
    return message.get("channel") == "book"
