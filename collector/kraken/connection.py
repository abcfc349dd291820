"""One WebSocket connection to Kraken, over a stream and a nursery of our own.

trio-websocket's own context manager can hang on exit, wait a minute for a handshake that failed at once, and stop a
whole nursery in silence when a Ping arrives during the close. Owning stream and nursery bounds all of these. Whatever
goes wrong on the transport leaves this module as a `FeedError`, and as nothing else.
"""

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, HandshakeError, WebSocketConnection, wrap_client_stream
from wsproto.utilities import LocalProtocolError

from collector.errors import FeedError, first_of
from collector.kraken.joined_frames import SEPARATOR, JoinedFrames

CONNECT_TIMEOUT = 10.0  # seconds for TCP, TLS and upgrade together, as in Kraken's own client
CLOSE_TIMEOUT = 2.0  # seconds for the closing handshake, likewise
GOODBYE_TIMEOUT = 0.1  # seconds for a close frame to be sent where no answer is awaited
MAX_MESSAGE_SIZE = 8 * 2**20  # bytes; an instrument snapshot is about 0.6 MB, and larger with every listing
RECEIVE_BUFFER_SIZE = 65_536  # bytes: some 300 messages of a burst in one read
MESSAGE_QUEUE_SIZE = 16  # reads decoded ahead, so that pings are answered while we work through a burst

HTTP_PORTS = {"wss": 443, "ws": 80}
POLICY_PAUSE = 300.0  # seconds; close code 1008 and refusals at the upgrade are about us, and do not pass quickly
BUSY_PAUSE = 5.0  # seconds; the spacing that Kraken asks for during maintenance and overload

_CLOSE_PAUSES = {1008: POLICY_PAUSE, 1013: BUSY_PAUSE}
_RETRYABLE_STATUSES = (429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 525)  # overload here, or at the edge

_TRANSPORT_ERRORS = (
    HandshakeError,
    ConnectionClosed,
    LocalProtocolError,
    OSError,  # ssl.SSLError too
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.TooSlowError,
)


@asynccontextmanager
async def open_connection(url: str, ssl_context: ssl.SSLContext | None = None) -> AsyncIterator[WebSocketConnection]:
    """Connect to a `wss://` or `ws://` address; TLS is checked against the system's certificates, with SNI.

    Raises:
        FeedError: from the connect, from the close, or for any transport error inside the block.

    """
    try:
        async with _open_websocket(url, ssl_context) as websocket:
            yield websocket
    except (*_TRANSPORT_ERRORS, BaseExceptionGroup) as error:
        failure = _as_feed_error(error)
        if failure is None:
            raise
        raise failure from error


async def receive_messages(websocket: WebSocketConnection) -> Sequence[str | bytes]:
    """Wait for messages; all those that arrived together, in order.

    Raises:
        trio_websocket.ConnectionClosed: none comes any more; `open_connection` makes a `FeedError` of it.

    """
    message = await websocket.get_message()
    return message.split(SEPARATOR) if isinstance(message, str) else [message]


@asynccontextmanager
async def _open_websocket(url: str, ssl_context: ssl.SSLContext | None) -> AsyncIterator[WebSocketConnection]:
    with trio.fail_after(CONNECT_TIMEOUT):
        stream = await _open_stream(url, ssl_context)
    try:
        async with trio.open_nursery() as nursery:
            parts = urlsplit(url)
            with trio.fail_after(CONNECT_TIMEOUT):
                websocket = await wrap_client_stream(
                    nursery,
                    JoinedFrames(stream),  # type: ignore[arg-type]  # it is documented to take any stream
                    parts.netloc,
                    parts.path or "/",
                    message_queue_size=MESSAGE_QUEUE_SIZE,
                    max_message_size=MAX_MESSAGE_SIZE,
                    receive_buffer_size=RECEIVE_BUFFER_SIZE,
                )
            try:
                yield websocket
            finally:
                # A cancellation has stopped the library's reader too, so that no answer would be seen: say it and go.
                cancelled = trio.current_effective_deadline() < trio.current_time()
                with trio.move_on_after(GOODBYE_TIMEOUT if cancelled else CLOSE_TIMEOUT, shield=True):
                    await websocket.aclose()
                nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):  # else a cancellation at this moment would hide the error of the block
            await trio.aclose_forcefully(stream)


async def _open_stream(
    url: str, ssl_context: ssl.SSLContext | None
) -> trio.SocketStream | trio.SSLStream[trio.SocketStream]:
    parts = urlsplit(url)
    host = parts.hostname or ""
    stream = await trio.open_tcp_stream(host, parts.port or HTTP_PORTS[parts.scheme])
    if parts.scheme == "ws":
        return stream
    secure = trio.SSLStream(
        stream, ssl_context or ssl.create_default_context(), server_hostname=host, https_compatible=True
    )
    try:
        await secure.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(secure)
        raise
    return secure


def _as_feed_error(error: BaseException) -> FeedError | None:
    """What a transport error means for the feed; None for an exception group with anything else in it."""
    if isinstance(error, BaseExceptionGroup):
        matched, rest = error.split((FeedError, *_TRANSPORT_ERRORS))
        if rest is not None:  # a cancellation at the same moment: it is raised again wherever the caller waits next
            _, rest = rest.split(trio.Cancelled)
        if matched is None or rest is not None:
            return None
        error = first_of(matched)
    match error:
        case FeedError():
            return FeedError(error.reason, error.detail, pause=error.pause)
        case ConnectionRejected(status_code=status):
            pause = BUSY_PAUSE if status in _RETRYABLE_STATUSES else POLICY_PAUSE
            return FeedError(f"rejected_{status}", "the server refused the upgrade", pause=pause)
        case ConnectionClosed(reason=reason) if reason is not None:
            return FeedError(f"closed_{reason.code}", reason.reason or "", pause=_CLOSE_PAUSES.get(reason.code, 0.0))
        case trio.TooSlowError():
            return FeedError("connect_timeout", f"no connection within {CONNECT_TIMEOUT:g} s")
        case _:
            return FeedError("connection_lost", str(error) or str(error.__cause__ or type(error).__name__))
