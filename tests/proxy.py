"""What stands between a collector and PostgreSQL, and lets happen what a network does."""

import psycopg
import trio


class Proxy:
    """Stands between the collector and PostgreSQL: it loses the answer to a commit, or stops answering at all."""

    def __init__(self, url: str) -> None:
        self._port = int(psycopg.conninfo.conninfo_to_dict(url)["port"])
        self._url = url
        self.url = ""
        self.answers_to_lose = 0
        self.is_silent = False
        self.connections = 0

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        self.url = self._url.replace(f":{self._port}/", f":{port}/") + "?sslmode=disable&gssencmode=disable"
        task_status.started()
        await trio.serve_listeners(self._pass_on, [listener])

    async def _pass_on(self, client: trio.SocketStream) -> None:
        self.connections += 1
        async with (
            client,
            await trio.open_tcp_stream("127.0.0.1", self._port) as server,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(self._copy, client, server)
            async for data in server:
                # CommandComplete of a commit; what comes before it in the stream was sent already.
                if self.answers_to_lose and b"C\0\0\0\x0bCOMMIT\0" in data:
                    self.answers_to_lose -= 1
                    break
                if self.is_silent:
                    await trio.sleep_forever()
                await client.send_all(data)
            nursery.cancel_scope.cancel()

    async def _copy(self, client: trio.SocketStream, server: trio.SocketStream) -> None:
        try:
            async for data in client:
                await server.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # cut off by the other side: so is this
        await server.aclose()
