"""One client of the v2 server: its requests, its subscriptions, and the one queue by which everything is sent.

Invariant: the queue's order is the order on the wire. So nothing of a subscription comes before its ack or after the
answer that ends it.
"""

import math
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import NamedTuple

import trio
from trio_util import periodic
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream
from wsproto.utilities import LocalProtocolError

from collector.kraken.framing import Opcode
from collector.kraken.server.faults import Faults
from collector.kraken.server.messages import HEARTBEAT, instrument_stream, status_message
from collector.kraken.server.requests import (
    ALREADY_SUBSCRIBED,
    METHOD_UNKNOWN,
    NOT_SUBSCRIBED,
    Refused,
    Request,
    Topic,
    granted,
    parse_request,
    pong,
    read_topics,
    refused,
    wants_snapshot,
)
from collector.kraken.server.source import ConnectionEnds, Session, Source, format_nanoseconds
from collector.kraken.server.wire import Wire

HEARTBEAT_PERIOD = 1.0  # seconds; measured as steady, whether data flows or not
IDLE_TIMEOUT = 60.0  # seconds; Kraken closes a connection that neither asks nor is subscribed for about a minute
HANDSHAKE_TIMEOUT = 10.0  # seconds for the upgrade, once its head has been read
CLOSE_TIMEOUT = 2.0  # seconds for the closing handshake
QUEUED_BATCHES = 8  # batches that wait for the writer: enough to keep it busy, few enough to end a stream at once
NORMAL = 1000

OnSent = Callable[[int, bytes], None]


class Service(NamedTuple):
    """What all connections of a server share: `on_sent` is told of each message of a data channel."""

    source: Source
    faults: Faults
    on_sent: OnSent | None


class _Outgoing(NamedTuple):
    payloads: Sequence[bytes]
    is_data: bool = False
    opcode: Opcode = Opcode.TEXT


class _Subscription:
    """A stream under way."""

    def __init__(self, *, snapshot: bool) -> None:
        self.snapshot = snapshot
        self.scope = trio.CancelScope()
        self.finished = trio.Event()

    async def stop(self) -> None:
        """End it; when this returns, nothing of it is under way any more."""
        self.scope.cancel()
        await self.finished.wait()


async def run_connection(number: int, stream: trio.SocketStream, head: bytes, service: Service) -> None:
    """Serve a client that asked for the upgrade with `head`, until either side closes."""
    wire = Wire(stream, head)
    try:
        async with trio.open_nursery() as transport:
            with trio.move_on_after(HANDSHAKE_TIMEOUT) as handshake:
                websocket = await (await wrap_server_stream(transport, wire)).accept()
            if not handshake.cancelled_caught:
                async with service.source.open_session() as session, trio.open_nursery() as tasks:
                    connection = Connection(number, websocket, wire, session, service, tasks=tasks)
                    with service.faults.attach(connection):
                        await connection.run()
                    tasks.cancel_scope.cancel()
            transport.cancel_scope.cancel()
    except* (ConnectionClosed, LocalProtocolError):
        # The client left during the upgrade, or spoke to trio-websocket during the close (a ping there raises).
        pass
    finally:
        await trio.aclose_forcefully(wire)


class Connection:
    """A client that has finished its handshake. `number` counts the server's connections from 1.

    Its tasks run in `tasks`, which its maker cancels when `run` returns.
    """

    def __init__(
        self,
        number: int,
        websocket: WebSocketConnection,
        wire: Wire,
        session: Session,
        service: Service,
        *,
        tasks: trio.Nursery,
    ) -> None:
        self.number = number
        self._websocket = websocket
        self._wire = wire
        self._session = session
        self._source, self._faults, self._on_sent = service
        # Kraken's ids take all 64 bits, more than a signed integer or a float holds: a client should be shown that.
        self._id = secrets.randbits(63) | 2**63
        self._queue, self._queued = trio.open_memory_channel[_Outgoing | ConnectionEnds](QUEUED_BATCHES)
        self._push, self._pushed = trio.open_memory_channel[_Outgoing](math.inf)  # as few as a test injects
        self._subscriptions: dict[Topic, _Subscription] = {}
        self._tasks = tasks
        self._closing: trio.Event | None = None

    async def run(self) -> None:
        """Greet the client and serve it until the connection closes."""
        self._tasks.start_soon(self._write)
        self._tasks.start_soon(self._forward_pushed)
        await self._answer([status_message(self._faults.system, self._id)])
        self._tasks.start_soon(self._beat)
        await self._read()
        if self._closing is not None:
            await self._closing.wait()

    # What a fault does to a connection. None of these waits.

    def push(self, payload: bytes, *, is_binary: bool = False) -> None:
        """Send any message, in its turn."""
        self._push.send_nowait(_Outgoing([payload], opcode=Opcode.BINARY if is_binary else Opcode.TEXT))

    def push_status(self, system: str) -> None:
        """Tell a change of the engine's state."""
        self.push(status_message(system, self._id))

    def close(self, code: int, reason: str | None = None) -> None:
        """Begin the closing handshake."""
        if self._closing is None:
            self._closing = trio.Event()
            self._tasks.start_soon(self._close, code, reason, self._closing)

    def reset(self) -> None:
        """Break the TCP connection."""
        self._wire.reset()

    def silence(self) -> None:
        """Leave the connection half-open, for the rest of its life."""
        self._wire.silent = True

    # The tasks of a connection.

    async def _write(self) -> None:
        """Send what is queued. What cannot be sent any more is dropped, so that nobody waits for the queue."""
        async for outgoing in self._queued:
            if isinstance(outgoing, ConnectionEnds):
                self.close(outgoing.code, str(outgoing))
                continue
            if self._closing is not None:
                continue
            if self._wire.silent:
                # Streams wait too, so that a tape is not lost on a connection that is.
                await self._wire.ended.wait()
                continue
            async with self._wire.lock:
                if self._websocket.closed:
                    continue
                if outgoing.is_data and self._on_sent is not None:
                    # Before the write: a client may have all of it before the write returns, or when it fails.
                    for payload in outgoing.payloads:
                        self._on_sent(self.number, payload)
                try:
                    await self._wire.send_frames(outgoing.opcode, outgoing.payloads)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    continue  # trio-websocket sees it too, and ends the connection

    async def _forward_pushed(self) -> None:
        async for outgoing in self._pushed:
            await self._queue.send(outgoing)

    async def _beat(self) -> None:
        # Closed here, since a cancelled send would leave it to the garbage collector, with a warning.
        async with aclosing(periodic(HEARTBEAT_PERIOD)) as beats:
            async for _ in beats:
                if self._subscriptions:
                    await self._queue.send(_Outgoing([HEARTBEAT]))

    async def _close(self, code: int, reason: str | None, closed: trio.Event) -> None:
        with trio.move_on_after(CLOSE_TIMEOUT):
            await self._websocket.aclose(code, reason)
        closed.set()

    async def _read(self) -> None:
        while True:
            try:
                with trio.fail_after(math.inf if self._subscriptions else IDLE_TIMEOUT):
                    message = await self._websocket.get_message()
            except ConnectionClosed:
                return
            except trio.TooSlowError:
                self.close(NORMAL)
                return
            await self._handle(message)

    # Requests.

    async def _handle(self, message: str | bytes) -> None:
        time_in = self._time()
        try:
            request = parse_request(message)
        except Refused as refusal:
            await self._answer([refused(None, refusal, time_in, self._time())])
            return
        if self._faults.ignores_request():
            return
        if (replacement := self._faults.replacement_answer()) is not None:
            await self._answer([replacement])
            return
        await trio.sleep(self._faults.answer_delay)
        try:
            if request.method == "ping":
                await self._answer([pong(request, time_in, self._time())])
            elif request.method == "subscribe":
                await self._subscribe(request, time_in)
            elif request.method == "unsubscribe":
                await self._unsubscribe(request, time_in)
            else:
                raise Refused(METHOD_UNKNOWN)  # noqa: TRY301 - answered as every refusal is
        except Refused as refusal:
            await self._answer([refused(request, refusal, time_in, self._time())])

    async def _subscribe(self, request: Request, time_in: str) -> None:
        topics = read_topics(request, self._source.instruments, self._source.depths)
        snapshot = wants_snapshot(request)
        time_out = self._time()
        answers, begun = [], []
        for topic in topics:
            refusal = self._refusal(topic)
            if refusal is not None:
                answers.append(refused(request, refusal, time_in, time_out))
            elif isinstance(topic, Topic):
                answers.append(granted(request, topic, time_in, time_out, snapshot=snapshot))
                self._subscriptions[topic] = _Subscription(snapshot=snapshot)
                begun.append(topic)
        await self._answer(answers)
        for topic in begun:
            self._tasks.start_soon(self._stream, topic, self._subscriptions[topic])

    def _refusal(self, topic: Topic | Refused) -> Refused | None:
        if isinstance(topic, Refused):
            return topic
        if (error := self._faults.refusal(topic.channel, topic.symbol)) is not None:
            return Refused(error, topic.symbol or None)
        if topic in self._subscriptions:
            return Refused(ALREADY_SUBSCRIBED, topic.symbol or None)
        return None

    async def _unsubscribe(self, request: Request, time_in: str) -> None:
        answers = []
        for topic in read_topics(request, self._source.instruments, self._source.depths):
            if isinstance(topic, Refused):
                answers.append(refused(request, topic, time_in, self._time()))
            elif (subscription := self._subscriptions.pop(topic, None)) is None:
                refusal = Refused(NOT_SUBSCRIBED, topic.symbol or None)
                answers.append(refused(request, refusal, time_in, self._time()))
            else:
                await subscription.stop()
                answers.append(granted(request, topic, time_in, self._time(), snapshot=subscription.snapshot))
        await self._answer(answers)

    async def _answer(self, answers: list[bytes]) -> None:
        await self._queue.send(_Outgoing(answers))

    def _time(self) -> str:
        return format_nanoseconds(self._session.now())

    # Streams.

    async def _stream(self, topic: Topic, subscription: _Subscription) -> None:
        try:
            with subscription.scope:
                async with aclosing(self._open_stream(topic, snapshot=subscription.snapshot)) as stream:
                    async for batch in stream:
                        await self._faults.wait_flowing(topic.channel, topic.symbol)
                        if payloads := self._faults.alter(topic.channel, topic.symbol, batch):
                            await self._queue.send(_Outgoing(payloads, is_data=True))
        except ConnectionEnds as end:
            await self._queue.send(end)
        finally:
            subscription.finished.set()

    def _open_stream(self, topic: Topic, *, snapshot: bool) -> AsyncGenerator[Sequence[bytes], None]:
        if topic.channel == "book":
            return self._session.book(topic.symbol, topic.depth, snapshot=snapshot)
        if topic.channel == "trade":
            return self._session.trades(topic.symbol, snapshot=snapshot)
        return instrument_stream(self._source.instruments, snapshot=snapshot)
