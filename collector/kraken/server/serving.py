"""Kraken on loopback: a v2 WebSocket at `/v2` and the public REST API beside it, over any source of market data.

It takes the place of Kraken in tests, in development and in replays. What it sends is what Kraken sends; what goes
wrong is chosen through `Faults`.
"""

import itertools
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple, NoReturn
from urllib.parse import parse_qsl, urlsplit

import h11
import msgspec
import trio

from collector.kraken.server.connection import OnSent, Service, run_connection
from collector.kraken.server.faults import Faults
from collector.kraken.server.http import HttpClient, Reply
from collector.kraken.server.rest import RATE_LIMITED, RestError, call
from collector.kraken.server.source import Source

HOST = "127.0.0.1"  # loopback only: anyone who reaches it is served
WEBSOCKET_PATH = "/v2"
NOT_FOUND = Reply(404, b"", "text/plain")


class Address(NamedTuple):
    """Where a server is: the port, and the two settings of a client."""

    port: int
    ws_url: str
    rest_url: str


async def serve(
    source: Source,
    *,
    port: int = 0,
    faults: Faults | None = None,
    on_sent: OnSent | None = None,
    task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
) -> NoReturn:
    """Serve until cancelled; started with the address once the port (0: a free one) accepts connections.

    `on_sent(connection, frame)` is told of every message of a data channel that is handed to a socket, in order;
    connections are counted from 1.

    Raises:
        OSError: the port cannot be had.

    """
    faults = faults or Faults()
    server = _Server(Service(source, faults, on_sent))
    listeners = await trio.open_tcp_listeners(port, host=HOST)
    port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as connections:
        task_status.started(Address(port, f"ws://{HOST}:{port}{WEBSOCKET_PATH}", f"http://{HOST}:{port}"))
        while True:
            async with trio.open_nursery() as accepting:
                accept = partial(trio.serve_listeners, server.handle, listeners, handler_nursery=connections)
                accepting.start_soon(accept)
                await faults.listening.wait_value(value_or_predicate=False)
                accepting.cancel_scope.cancel()  # which closes the listeners
            await faults.listening.wait_value(value_or_predicate=True)
            listeners = await trio.open_tcp_listeners(port, host=HOST)


class _Server:
    """What all connections of a server share."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._faults = service.faults
        self._numbers = itertools.count(1)
        self._last_calls: dict[tuple[str, str], float] = {}

    async def handle(self, stream: trio.SocketStream) -> None:
        """Serve one TCP connection: HTTP, until it asks for the WebSocket."""
        async with stream:
            if not self._faults.accepting:
                return
            client = HttpClient(stream)
            while (request := await client.next_request()) is not None:
                if not client.asks_for_upgrade(request):
                    await client.reply(await self._answer(request))
                elif (status := self._faults.upgrade_status()) is not None:
                    await client.reply(Reply(status, b"", "text/plain"))
                elif urlsplit(request.target).path != WEBSOCKET_PATH.encode():
                    await client.reply(NOT_FOUND)
                else:
                    number = next(self._numbers)
                    await run_connection(number, stream, client.received, self._service)
                    return

    async def _answer(self, request: h11.Request) -> Reply:
        target = urlsplit(request.target.decode("ascii"))
        if not target.path.startswith("/0/public/"):
            return NOT_FOUND
        await trio.sleep(self._faults.rest_delay)
        failure = self._faults.rest_failure()
        if isinstance(failure, int):
            return Reply(failure, b"<html><body>error</body></html>", "text/html")
        query = dict(parse_qsl(target.query))
        try:
            if failure is not None:
                raise RestError(failure)  # noqa: TRY301 - answered as every refusal is
            self._limit(target.path, query)
            result = await call(self._service.source, self._faults.system, target.path, query)
        except RestError as error:
            return Reply(200, msgspec.json.encode({"error": [str(error)]}), "application/json")
        return Reply(200, f'{{"error":[],"result":{result}}}'.encode(), "application/json")

    def _limit(self, path: str, query: Mapping[str, str]) -> None:
        caller = path, query.get("pair", "")
        now = trio.current_time()
        if now - self._last_calls.get(caller, float("-inf")) < self._faults.rest_interval:
            raise RestError(RATE_LIMITED)
        self._last_calls[caller] = now
