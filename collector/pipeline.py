"""The group: a nursery supervises a socket task, a book task and a flush task, linked by memory channels.

When one of them crashes, the nursery cancels the others and the whole group is started again. The channel of events
dies with the group, and so do the books; the channel of records and the spool outlive it, so that nothing that was
received is lost.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import ParamSpec

import trio
from trio_util import move_on_when

from collector.assignment import Assignment
from collector.books import Books
from collector.feed import Doubts, FeedEvent, ResyncRequests
from collector.health import STABLE_AFTER, Running
from collector.records import Record
from collector.rows import ChainNumbers
from collector.settings import Settings
from collector.statistics import Statistics
from collector.storage.spool import Spool
from collector.supervisor import restarting, stop_on_signal
from collector.tasks.audit import audit_books
from collector.tasks.book import keep_books
from collector.tasks.flush import flush
from collector.tasks.instruments import follow_instruments
from collector.tasks.lock import share_pairs
from collector.tasks.metrics import serve_metrics
from collector.tasks.partitions import keep_partitions_ahead
from collector.tasks.probe import probe_quiet_books
from collector.tasks.publish import PublishQueue, publish
from collector.tasks.repair import repair
from collector.tasks.retention import drop_old_days
from collector.tasks.socket import Attempts
from collector.tasks.sockets import run_sockets

# Events between socket and book: what arrives while the book task works through a batch. Kraken's own client queues
# 8,192 messages here; bursts of 5,000 are to be expected.
EVENTS = 8192
# Batches between book and flush: the flush task only ever appends to a file, so that a few are enough.
RECORD_BATCHES = 64
# Seconds from the signal to stop for which a process goes on collecting until others have its pairs: they notice within
# one beat (1 s), subscribe, and are seen to have done so; what the exit may take beyond it is for the drain.
HANDOVER_TIMEOUT = 4.0

Arguments = ParamSpec("Arguments")


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


@dataclass
class Collector:
    """What the group works with, and what of it outlives a crash."""

    settings: Settings
    spool: Spool
    statistics: Statistics = field(default_factory=Statistics)
    stop: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        self._attempts = Attempts()
        self._numbers = ChainNumbers(utc_now, self.spool.last_chain)
        self._publishing = PublishQueue(self.statistics)
        self._records, self._stored = trio.open_memory_channel[list[Record]](RECORD_BATCHES)
        self._interruption = "process_ended"
        self._assignment = Assignment(wanted=self.settings.selection.named)
        self._handed_over = trio.Event()
        self._doubts = Doubts()
        self._books: Books | None = None

    async def run(self) -> None:
        """Collect until `stop`, then drain; side tasks restart alone, since none of them may cost coverage."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop_on_signal, self.stop, nursery.cancel_scope)
            for name, task in self._side_tasks().items():
                nursery.start_soon(restarting, name, task)
            await restarting("group", self._run_group, self.stop)
            nursery.cancel_scope.cancel()

    async def _run_group(self) -> None:
        """Socket, book and flush, linked by channels; a crash in one ends all three."""
        if self.stop.is_set():  # it crashed while it drained: what it had is in the channel and in the spool
            await self._records.aclose()
            await self._flush()
            return
        self.statistics.group.note(trio.current_time(), STABLE_AFTER)
        events, feed = trio.open_memory_channel[FeedEvent](EVENTS)
        resyncs = ResyncRequests()
        self._books = books = Books(self.settings, resyncs, self._doubts, self._numbers, self.statistics, utc_now)
        interruption, self._interruption = self._interruption, "crash"
        try:
            async with trio.open_nursery() as group:
                group.start_soon(_then_close, events, self._run_sockets, events, resyncs)
                group.start_soon(
                    _then_close, self._records, keep_books, books, feed, self._records, self._offer, interruption
                )
                group.start_soon(self._flush)
        finally:
            self._books = None  # nobody is to take for watched what is not any more

    async def _run_sockets(self, events: trio.MemorySendChannel[FeedEvent], resyncs: ResyncRequests) -> None:
        async with move_on_when(self._wait_until_handed_over):
            await run_sockets(self.settings, self._assignment, events, resyncs, self._attempts, self.statistics)

    async def _flush(self) -> None:
        await flush(self.settings, self._assignment, self._stored, self.spool, self._doubts, self.statistics)

    def _side_tasks(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """What runs beside the group, by name."""
        settings = self.settings
        tasks: dict[str, Callable[[], Awaitable[None]]] = {
            "lock": self._share_pairs,
            "partitions": lambda: keep_partitions_ahead(settings),
            "probe": lambda: probe_quiet_books(settings, lambda: self._books, self._doubts),
            "repair": self._repair,
            "audit": self._audit,
        }
        if settings.book_retention_days is not None:
            url, keep_days = settings.database_url.get_secret_value(), settings.book_retention_days
            tasks["retention"] = lambda: drop_old_days(url, keep_days)
        if settings.selection.needs_listing:
            tasks["instruments"] = self._follow_instruments
        if settings.use_redis:
            tasks["publish"] = lambda: publish(settings, self._publishing, self.statistics)
        if settings.metrics_port is not None:
            port = settings.metrics_port
            running = Running(settings, self.statistics, self.spool, self._assignment, lambda: self._books)
            tasks["metrics"] = lambda: serve_metrics(running, port)
        return tasks

    async def _wait_until_handed_over(self) -> None:
        """Wait for `stop`, and then until other processes collect the pairs, where there are any."""
        await self.stop.wait()
        with trio.move_on_after(HANDOVER_TIMEOUT):
            await self._handed_over.wait()

    async def _share_pairs(self) -> None:
        await share_pairs(
            self.settings,
            self._assignment,
            lambda: frozenset() if self._books is None else self._books.collected(),
            self.spool,
            self.statistics,
            self.stop,
        )
        self._handed_over.set()

    async def _follow_instruments(self) -> None:
        async with move_on_when(self.stop.wait):
            await follow_instruments(
                self.settings, self._assignment.wanted, lambda: self._books, self._doubts, self._attempts
            )

    async def _repair(self) -> None:
        async with move_on_when(self.stop.wait):  # what it would add now could keep the drain from ending
            await repair(self.settings, self._assignment.pairs, self.spool, self.statistics)

    async def _audit(self) -> None:
        async with move_on_when(self.stop.wait):
            await audit_books(self.settings, lambda: self._books, self._doubts, self._records, self._attempts)

    def _offer(self, records: list[Record]) -> None:
        if self.settings.use_redis:
            self._publishing.offer(records)


async def _then_close(
    channel: trio.abc.SendChannel[FeedEvent] | trio.abc.SendChannel[list[Record]],
    task: Callable[Arguments, Awaitable[None]],
    *arguments: Arguments.args,
    **keywords: Arguments.kwargs,
) -> None:
    """Close a task's channel when it ended well. After a crash it stays open: that is not the end of the data."""
    await task(*arguments, **keywords)
    await channel.aclose()
