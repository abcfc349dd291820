"""A socket: one connection to Kraken after the other, each subscribed, watched and read to its end.

It forwards everything to the book task in band and in order, and waits for nobody but the book task. Every way in
which a connection can fail is a `FeedError`; anything else is a bug and leaves the task.
"""

import itertools
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import structlog
import trio
from trio_websocket import WebSocketConnection

from collector.assignment import Share
from collector.backoff import AttemptBudget, Backoff
from collector.errors import FeedError
from collector.feed import Alive, Connected, Disconnected, FeedEvent, ResyncRequests
from collector.kraken.connection import open_connection, receive_messages
from collector.kraken.messages import Decoder, Heartbeat, InstrumentMessage, Response, Status, Unknown
from collector.settings import Settings
from collector.statistics import Statistics
from collector.tasks.subscriptions import Subscriptions

# Seconds between two looks, and looks without a frame, after which a connection is taken for dead. A subscribed one
# has a heartbeat each second (the longest gap measured on a healthy one: 1.03 s), and half-open ones go unnoticed for
# minutes otherwise. Looks are counted instead of seconds, so that a process that was stopped for a while first reads
# what has arrived meanwhile.
WATCH_INTERVAL = 1.0
SILENT_LOOKS = 10

BACKOFF_BASE, BACKOFF_CAP = 0.5, 30.0  # seconds, as in Kraken's own client
STABLE_AFTER = 30.0  # seconds that a connection must last to count as a good one

log = structlog.get_logger()


class Attempts:
    """What must outlive the group of tasks: how often Kraken was tried, and the number of the next connection."""

    def __init__(self, choose: Callable[[float, float], float] = random.uniform) -> None:
        self.choose = choose
        self.budget = AttemptBudget()
        self.numbers: Iterator[int] = itertools.count(1)
        self._backoffs: dict[int, Backoff] = {}

    def backoff(self, socket: int) -> Backoff:
        """The backoff of a socket: one that fails must not slow the others down."""
        if socket not in self._backoffs:
            self._backoffs[socket] = self.new_backoff()
        return self._backoffs[socket]

    async def take_turn(self) -> float:
        """Wait until one more attempt is allowed, and spend it; return when that was (monotonic seconds)."""
        await trio.sleep(self.budget.wait(trio.current_time()))
        now = trio.current_time()
        self.budget.spend(now)
        return now

    def new_backoff(self) -> Backoff:
        """A backoff between connections."""
        return Backoff(BACKOFF_BASE, BACKOFF_CAP, STABLE_AFTER, self.choose)


async def run_socket(
    settings: Settings,
    socket: int,
    share: Share,
    events: trio.MemorySendChannel[FeedEvent],
    resyncs: ResyncRequests,
    attempts: Attempts,
    statistics: Statistics,
) -> None:
    """Hold a connection to Kraken whenever there is anything to subscribe, for ever."""
    while True:
        with share.subscriptions() as wanted:
            await wanted.wait_value(bool)
        started = await attempts.take_turn()
        number = next(attempts.numbers)
        connection = _Connection(number, settings, share, events, statistics)
        try:
            await connection.run(resyncs, attempts.choose)
        except FeedError as error:
            failure = error
        resyncs.forget(number)
        await events.send(Disconnected(number, failure.reason, connection.last_frame_at))
        delay = failure.pause + attempts.backoff(socket).delay(trio.current_time() - started)
        log.warning(
            "disconnected", connection=number, reason=failure.reason, detail=failure.detail, retry_in=round(delay, 2)
        )
        await trio.sleep(delay)


class _Connection:
    """One connection, from its opening to the `FeedError` that ends it."""

    def __init__(
        self,
        number: int,
        settings: Settings,
        share: Share,
        events: trio.MemorySendChannel[FeedEvent],
        statistics: Statistics,
    ) -> None:
        self._number = number
        self._settings = settings
        self._share = share
        self._events = events
        self._statistics = statistics
        self._receiving = False
        self._frames = 0
        self.last_frame_at = trio.current_time()

    async def run(self, resyncs: ResyncRequests, choose: Callable[[float, float], float]) -> None:
        async with open_connection(self._settings.kraken_ws_url) as websocket, trio.open_nursery() as nursery:
            self._statistics.connections += 1
            log.info("connected", connection=self._number, url=self._settings.kraken_ws_url)
            await self._events.send(Connected(self._number))
            subscriptions = Subscriptions(websocket, self._number, self._settings, self._share, choose)
            nursery.start_soon(self._receive, websocket, subscriptions)
            nursery.start_soon(self._watch)
            nursery.start_soon(subscriptions.run, resyncs)

    async def _receive(self, websocket: WebSocketConnection, subscriptions: Subscriptions) -> None:
        decoder = Decoder(lambda: datetime.now(UTC))
        under_way = self._statistics.under_way
        while True:
            self._receiving = True
            frames = await receive_messages(websocket)
            self._receiving = False
            self._frames += len(frames)
            self._statistics.frames += len(frames)
            self.last_frame_at = trio.current_time()
            if under_way.unread is None:
                under_way.unread = self.last_frame_at
            for message in itertools.chain.from_iterable(map(decoder.decode, frames)):
                match message:
                    case Response():
                        for change in subscriptions.take(message):
                            await self._forward(change)
                    case Status(system=system):
                        log.info("exchange_status", connection=self._number, system=system)
                    case Heartbeat():
                        await self._forward(Alive(self._number))
                    case Unknown(channel=channel):
                        self._note_unknown(channel)
                    case InstrumentMessage():
                        self._note_unknown("instrument")
                    case _:
                        await self._forward(message)

    async def _forward(self, event: FeedEvent) -> None:
        try:
            self._events.send_nowait(event)  # a send that need not wait costs no turn of the scheduler
        except trio.WouldBlock:
            await self._events.send(event)

    def _note_unknown(self, channel: str) -> None:
        self._statistics.unknown += 1
        if self._statistics.unknown == 1:
            log.warning("unknown_channel", channel=channel)

    async def _watch(self) -> None:
        """Give the connection up when no frame comes while we wait for one."""
        silent_looks, frames = 0, self._frames
        while silent_looks < SILENT_LOOKS:
            await trio.sleep(WATCH_INTERVAL)
            silent_looks = silent_looks + 1 if self._receiving and self._frames == frames else 0
            frames = self._frames
        raise FeedError("silent", f"no frame for {silent_looks * WATCH_INTERVAL:g} s")
