"""One connection, against servers of our own that behave well, badly, or not at all."""

import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trustme
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from collector.errors import FeedError
from collector.kraken import connection
from collector.kraken.connection import BUSY_PAUSE, POLICY_PAUSE, open_connection, receive_messages

Serve = Callable[[trio.SocketStream], Awaitable[None]]
HURRIED = 0.3  # seconds, in place of timeouts that a test waits for
PATIENT = 20  # seconds after which a test fails, whatever else the machine does


@asynccontextmanager
async def listening(serve: Serve, ssl_context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """The port of a loopback server that handles each connection by `serve`."""
    serve_stream = partial(trio.serve_ssl_over_tcp, ssl_context=ssl_context) if ssl_context else trio.serve_tcp

    async def serve_all(stream: trio.SocketStream) -> None:
        try:
            await serve(stream)
        except* (trio.BrokenResourceError, ConnectionClosed):
            pass  # the client's side of it is what is tested
        finally:
            await trio.aclose_forcefully(stream)

    with trio.fail_after(PATIENT):
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(partial(serve_stream, serve_all, 0, host="127.0.0.1"))
            yield getattr(listener, "transport_listener", listener).socket.getsockname()[1]
            nursery.cancel_scope.cancel()


def upgraded(talk: Callable[[WebSocketConnection], Awaitable[None]]) -> Serve:
    """Accept the upgrade, then talk; the close is answered as the protocol asks."""

    async def serve(stream: trio.SocketStream) -> None:
        async with trio.open_nursery() as nursery:
            request = await wrap_server_stream(nursery, stream)
            await talk(await request.accept())
            nursery.cancel_scope.cancel()

    return serve


async def echo(websocket: WebSocketConnection) -> None:
    while True:
        await websocket.send_message(await websocket.get_message())


async def say_nothing(_stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


async def serve_deaf(stream: trio.SocketStream) -> None:
    """Accept the upgrade and never read again: no close is answered."""
    async with trio.open_nursery() as nursery:
        request = await wrap_server_stream(nursery, stream)
        await request.accept()
        nursery.cancel_scope.cancel()
    await trio.sleep_forever()


def answering(response: bytes) -> Serve:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(response)
        await stream.receive_some()  # the client hangs up first

    return serve


async def failure_of(url: str, ssl_context: ssl.SSLContext | None = None) -> FeedError:
    """How a connection ends that waits for a message."""
    with pytest.raises(FeedError) as failure:
        async with open_connection(url, ssl_context) as websocket:
            await websocket.get_message()
    return failure.value


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_trusted_server_is_told_whom_we_want(authority: trustme.CA) -> None:
    """Prevents a TLS hello without SNI, which Kraken's edge refuses, and a wrong path in the upgrade."""
    asked: list[object] = []
    context = server_context(authority, "localhost")
    context.sni_callback = lambda _socket, name, _context: asked.append(name)

    async def serve(stream: trio.SocketStream) -> None:
        async with trio.open_nursery() as nursery:
            request = await wrap_server_stream(nursery, stream)
            asked.append(request.path)
            await echo(await request.accept())

    async with listening(serve, context) as port:
        async with open_connection(f"wss://localhost:{port}/v2", trusting(authority)) as websocket:
            await websocket.send_message("hello")
            assert await websocket.get_message() == "hello"
        assert asked == ["localhost", "/v2"]


@pytest.mark.parametrize(("name", "trusted"), [("localhost", False), ("ws.other.example", True)])
async def test_server_that_is_not_whom_we_want_is_refused(authority: trustme.CA, name: str, trusted: bool) -> None:
    """Prevents market data from anybody in the middle, and a refusal that does not say that it is the certificate."""
    async with listening(upgraded(echo), server_context(authority, name)) as port:
        failure = await failure_of(f"wss://localhost:{port}/v2", trusting(authority) if trusted else None)
    assert failure.reason == "connection_lost"
    assert "certificate verify failed" in failure.detail


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_server_that_never_answers(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    """Prevents a wait without end for the upgrade, or for TLS."""
    monkeypatch.setattr(connection, "CONNECT_TIMEOUT", HURRIED)
    async with listening(say_nothing) as port:
        assert (await failure_of(f"{scheme}://127.0.0.1:{port}/v2")).reason == "connect_timeout"


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_server_that_hangs_up_at_once(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    """Prevents a handshake that failed from being anything else than a feed error."""
    monkeypatch.setattr(connection, "CONNECT_TIMEOUT", HURRIED)
    async with listening(lambda stream: stream.aclose()) as port:
        assert (await failure_of(f"{scheme}://127.0.0.1:{port}/v2")).reason in ("connect_timeout", "connection_lost")


async def test_server_that_is_not_there_or_no_server() -> None:
    """Prevents a refused connection from crashing the group, and a detail that says nothing."""
    failure = await failure_of("ws://127.0.0.1:1/v2")
    assert failure.reason == "connection_lost"
    assert failure.detail
    assert failure.pause == 0


async def test_answer_that_is_no_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents another service at the address from crashing the group."""
    monkeypatch.setattr(connection, "CONNECT_TIMEOUT", HURRIED)
    async with listening(answering(b"220 mail ready\r\n")) as port:
        assert (await failure_of(f"ws://127.0.0.1:{port}/v2")).reason in ("connect_timeout", "connection_lost")


@pytest.mark.parametrize(("status", "pause"), [(429, BUSY_PAUSE), (503, BUSY_PAUSE), (403, POLICY_PAUSE)])
async def test_upgrade_that_is_refused(status: int, pause: float) -> None:
    """Prevents a storm of attempts at a server that asked for less, which ends in a ban."""
    async with listening(answering(f"HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n".encode())) as port:
        failure = await failure_of(f"ws://127.0.0.1:{port}/v2")
    assert (failure.reason, failure.pause) == (f"rejected_{status}", pause)


@pytest.mark.parametrize(("code", "pause"), [(1001, 0.0), (1008, POLICY_PAUSE), (1012, 0.0), (1013, BUSY_PAUSE)])
async def test_close_tells_its_code(code: int, pause: float) -> None:
    """Prevents coverage that does not say why a run ended, and a return too soon where the server asked for a pause."""
    async with listening(upgraded(lambda websocket: websocket.aclose(code, "Market data unavailable"))) as port:
        failure = await failure_of(f"ws://127.0.0.1:{port}/v2")
    assert (failure.reason, failure.detail, failure.pause) == (f"closed_{code}", "Market data unavailable", pause)


@pytest.mark.parametrize("linger", [struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)], ids=["reset", "end"])
async def test_transport_that_ends_without_a_close(linger: bytes) -> None:
    """Prevents a TCP reset, or an end without a close frame, from passing for anything but a lost connection."""

    async def serve(stream: trio.SocketStream) -> None:
        async with trio.open_nursery() as nursery:
            request = await wrap_server_stream(nursery, stream)
            await request.accept()
            nursery.cancel_scope.cancel()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    async with listening(serve) as port:
        assert (await failure_of(f"ws://127.0.0.1:{port}/v2")).reason == "closed_1006"


async def test_everything_before_a_close_arrives_in_order() -> None:
    """Prevents messages of a burst from being lost, or changing places, when the server closes right behind them."""
    sent = [f'{{"number":{number}}}' for number in range(1000)]

    async def talk(websocket: WebSocketConnection) -> None:
        for message in sent:
            await websocket.send_message(message)
        await websocket.aclose(1001)

    received: list[str | bytes] = []

    async def receive_all(port: int) -> None:
        async with open_connection(f"ws://127.0.0.1:{port}/v2") as websocket:
            await trio.sleep(HURRIED)  # until some have gathered
            while True:
                received.extend(await receive_messages(websocket))

    async with listening(upgraded(talk)) as port:
        with pytest.raises(FeedError, match="closed_1001"):
            await receive_all(port)
    assert received == sent


async def test_large_message_arrives_and_a_larger_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a snapshot of all instruments from ending the connection, and a message from taking all memory."""
    async with listening(upgraded(lambda websocket: websocket.send_message("x" * 2**21))) as port:
        async with open_connection(f"ws://127.0.0.1:{port}/v2") as websocket:
            assert len(await websocket.get_message()) == 2**21
        monkeypatch.setattr(connection, "MAX_MESSAGE_SIZE", 2**20)
        assert (await failure_of(f"ws://127.0.0.1:{port}/v2")).reason in ("closed_1009", "closed_1006")


@pytest.mark.parametrize("cancelled", [True, False])
async def test_exit_from_a_server_that_does_not_answer_the_close(
    monkeypatch: pytest.MonkeyPatch, cancelled: bool
) -> None:
    """Prevents a hanging exit: a second when cancelled, the close timeout else, and no task is left over."""
    monkeypatch.setattr(connection, "CLOSE_TIMEOUT", PATIENT if cancelled else HURRIED)
    async with listening(serve_deaf) as port:
        living = trio.lowlevel.current_statistics().tasks_living
        with trio.CancelScope() as scope:
            async with open_connection(f"ws://127.0.0.1:{port}/v2"):
                started = trio.current_time()
                if cancelled:
                    scope.cancel()
                    await trio.sleep_forever()
        assert scope.cancelled_caught is cancelled
        assert trio.current_time() - started < 1 + HURRIED
        assert trio.lowlevel.current_statistics().tasks_living == living + 1  # the server's


async def test_ping_that_arrives_after_our_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents the library's crash on it from stopping the whole collector in silence."""
    monkeypatch.setattr(connection, "CLOSE_TIMEOUT", HURRIED)

    async def serve(stream: trio.SocketStream) -> None:
        async with trio.open_nursery() as nursery:
            request = await wrap_server_stream(nursery, stream)
            await request.accept()
            nursery.cancel_scope.cancel()
        await stream.receive_some()  # the close frame
        await stream.send_all(b"\x89\x00")  # a ping
        await trio.sleep_forever()

    reached = trio.Event()
    async with listening(serve) as port:
        with pytest.raises(FeedError):
            async with open_connection(f"ws://127.0.0.1:{port}/v2"):
                pass
        await trio.lowlevel.checkpoint()
        reached.set()
    assert reached.is_set()


async def test_feed_error_of_the_block_keeps_its_meaning() -> None:
    """Prevents a reason for coverage, or a pause, from being lost among nested nurseries."""
    async with listening(upgraded(echo)) as port:
        with pytest.raises(FeedError) as failure:
            async with open_connection(f"ws://127.0.0.1:{port}/v2"), trio.open_nursery():
                raise FeedError("unanswered", "subscribe", pause=7.0)
    assert (failure.value.reason, failure.value.detail, failure.value.pause) == ("unanswered", "subscribe", 7.0)


@pytest.mark.parametrize("beside", [None, trio.BrokenResourceError(), FeedError("silent")])
async def test_bug_in_the_block_stays_a_bug(beside: Exception | None) -> None:
    """Prevents a bug from passing for a lost connection, after which the collector would go on with it for ever."""
    errors = [ValueError("bug"), *([beside] if beside else [])]
    matching = pytest.RaisesGroup(*map(type, errors), allow_unwrapped=False, flatten_subgroups=True)
    async with listening(upgraded(echo)) as port:
        with matching:
            async with open_connection(f"ws://127.0.0.1:{port}/v2"):
                raise ExceptionGroup("several", errors)


async def fail_while_cancelled(port: int, scope: trio.CancelScope, error: Exception) -> None:
    async with open_connection(f"ws://127.0.0.1:{port}/v2"), trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        scope.cancel()
        raise error


async def test_transport_error_at_the_moment_of_a_cancellation_is_a_feed_error() -> None:
    """Prevents a stop that meets a lost connection from looking like a crash; the cancellation is not lost either."""
    raised = trio.Event()
    async with listening(upgraded(echo)) as port:
        with trio.CancelScope() as scope:
            with pytest.raises(FeedError):
                await fail_while_cancelled(port, scope, trio.BrokenResourceError())
            raised.set()
            await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
    assert raised.is_set()


async def test_bug_at_the_moment_of_a_cancellation_is_not_lost() -> None:
    """Prevents a crash from being swallowed because the group is being stopped."""
    async with listening(upgraded(echo)) as port:
        with pytest.RaisesGroup(ValueError, flatten_subgroups=True), trio.CancelScope() as scope:
            await fail_while_cancelled(port, scope, ValueError("bug"))
