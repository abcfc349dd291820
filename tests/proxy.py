"""A TCP proxy on loopback, in front of a server, that lets happen what a network does."""

from typing import NoReturn, Self

import trio
from psycopg.conninfo import conninfo_to_dict
from trio_util import AsyncBool

HOST = "127.0.0.1"
CHUNK = 65_536  # bytes
COMMITTED = b"C\0\0\0\x0bCOMMIT\0"  # PostgreSQL's CommandComplete of a commit


class Proxy:
    """Forwards to `target` (a port on loopback) while `flowing`; each chunk waits for `delay` seconds.

    While it does not flow, connections stay up and new ones are accepted: nothing is refused, nothing is answered.
    `answers_to_lose` counts the commits that are still to happen without anybody hearing of it: in the place of the
    answer the connection is cut. `connections` is how many there were.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self.flowing = AsyncBool(value=True)
        self.delay = 0.0
        self.answers_to_lose = 0
        self.connections = 0
        self._target = target
        self._open: set[trio.CancelScope] = set()

    @classmethod
    def in_front_of(cls, url: str) -> Self:
        """A proxy in front of the PostgreSQL of a database."""
        return cls(int(conninfo_to_dict(url)["port"] or 0))

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> NoReturn:
        """Forward until cancelled; started once the port is known."""
        listeners = await trio.open_tcp_listeners(0, host=HOST)
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._handle, listeners)

    def leading_to(self, url: str) -> str:
        """The address of a database behind this proxy, as it is before it; nothing is encrypted on the way."""
        parameters = conninfo_to_dict(url)
        place = f"{parameters['user']}@{HOST}:{self.port}/{parameters['dbname']}"
        return f"postgresql://{place}?sslmode=disable&gssencmode=disable"

    def cut(self) -> None:
        """Close every connection, on both sides."""
        for connection in self._open:
            connection.cancel()

    async def _handle(self, client: trio.SocketStream) -> None:
        self.connections += 1
        with trio.CancelScope() as scope:
            self._open.add(scope)
            try:
                await self._forward(client, scope)
            finally:
                self._open.remove(scope)
                await trio.aclose_forcefully(client)

    async def _forward(self, client: trio.SocketStream, connection: trio.CancelScope) -> None:
        await self.flowing.wait_value(value_or_predicate=True)
        try:
            server = await trio.open_tcp_stream(HOST, self._target)
        except OSError:  # it is down: the client sees a connection that closes
            return
        async with server, trio.open_nursery() as nursery:
            nursery.start_soon(self._pump, client, server, connection)
            nursery.start_soon(self._pump, server, client, connection)

    async def _pump(self, source: trio.SocketStream, sink: trio.SocketStream, connection: trio.CancelScope) -> None:
        try:
            while data := await source.receive_some(CHUNK):
                await self.flowing.wait_value(value_or_predicate=True)
                await trio.sleep(self.delay)
                if self.answers_to_lose and COMMITTED in data:
                    self.answers_to_lose -= 1
                    break
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):  # either side is gone: so is the other
            pass
        connection.cancel()
