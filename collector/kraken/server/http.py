"""Just enough of an HTTP server to answer GET requests and to hand an upgrade over to the WebSocket."""

from typing import NamedTuple

import h11
import trio

RECEIVE_SIZE = 65_536
IDLE_TIMEOUT = 60.0  # seconds until a connection that asks nothing is closed


class Reply(NamedTuple):
    """An answer."""

    status: int
    body: bytes
    content_type: str


class HttpClient:
    """A client's TCP connection while it speaks HTTP/1.1, one request after the other.

    `received` holds the bytes of the latest request, so that another protocol can read them again.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self.received = b""
        self._stream = stream
        self._http = h11.Connection(h11.SERVER)

    async def next_request(self) -> h11.Request | None:
        """The next request, its body read and ignored; None when the client has gone, or does not speak HTTP."""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self.received = self._http.trailing_data[0]
            self._http.start_next_cycle()
        request = None
        while self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                await self.reply(Reply(error.error_status_hint, b"", "text/plain"))
                return None
            if event is h11.NEED_DATA:
                if not await self._receive():
                    return None
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.EndOfMessage):
                return request
            elif isinstance(event, h11.ConnectionClosed):
                return None
        return None

    async def _receive(self) -> bool:
        data = b""
        with trio.move_on_after(IDLE_TIMEOUT):
            try:
                data = bytes(await self._stream.receive_some(RECEIVE_SIZE))
            except trio.BrokenResourceError:
                return False
        self.received += data
        self._http.receive_data(data)
        return bool(data)

    def asks_for_upgrade(self, request: h11.Request) -> bool:
        """Whether a request wants the WebSocket."""
        return any(name == b"upgrade" and value.lower() == b"websocket" for name, value in request.headers)

    async def reply(self, reply: Reply) -> None:
        """Answer the request."""
        headers = [("content-type", reply.content_type), ("content-length", str(len(reply.body)))]
        data = self._http.send(h11.Response(status_code=reply.status, headers=headers))
        data += self._http.send(h11.Data(data=reply.body)) + self._http.send(h11.EndOfMessage())
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError:
            self._http.send_failed()
