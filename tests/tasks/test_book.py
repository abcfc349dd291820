"""The book task: a batch of events in, a batch of records out, in order and without waiting for anybody else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
import trio
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from collector.books import Books
from collector.feed import Alive, Connected, Disconnected, Doubts, FeedEvent, ResyncRequests, Subscribed
from collector.kraken.messages import BookMessage, Decoder
from collector.kraken.simulator.simulation import simulated_frames
from collector.records import BookRow, Coverage, Interrupted, Record
from collector.rows import ChainNumbers
from collector.settings import Settings
from collector.statistics import Statistics
from collector.tasks import book
from collector.tasks.book import keep_books

START = datetime(2026, 1, 1, tzinfo=UTC)
BEGINNING: list[FeedEvent] = [
    Connected(1),
    Subscribed(1, "trade", "BTC/USD", "2023-11-14T22:13:20.000000Z"),
    Subscribed(1, "book", "BTC/USD", None),
]


def market_events(count: int) -> list[FeedEvent]:
    """A connection's events: a snapshot, updates and trades."""
    decoder = Decoder(lambda: START)
    frames = simulated_frames(["BTC/USD"], 10, seed=3, count=count)
    return BEGINNING + [event for frame in frames for event in decoder.decode(frame.decode())]


class Task:
    """A book task with its channels, and what it has given."""

    def __init__(self) -> None:
        self.resyncs = ResyncRequests()
        self.published: list[Record] = []
        self.events, self.feed = trio.open_memory_channel[FeedEvent](10_000)
        self.to_flush, self.batches = trio.open_memory_channel[list[Record]](1000)
        settings = Settings(_env_file=None, database_url="postgresql://x@127.0.0.1/x", book_depth=10)
        self.books = Books(
            settings, self.resyncs, Doubts(), ChainNumbers(lambda: START, 0), Statistics(), lambda: START
        )

    async def run(self, interruption: str = "process_ended") -> None:
        await keep_books(self.books, self.feed, self.to_flush, self.published.extend, interruption)
        await self.to_flush.aclose()

    def send(self, events: list[FeedEvent]) -> None:
        for event in events:
            self.events.send_nowait(event)

    def given(self) -> list[list[Record]]:
        """The batches that are there now."""
        return [self.batches.receive_nowait() for _ in range(self.batches.statistics().current_buffer_used)]


@asynccontextmanager
async def running() -> AsyncIterator[Task]:
    """A book task while the block is open, and until it has drained."""
    task = Task()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(task.run)
        yield task
        await task.events.aclose()


@pytest.mark.parametrize("interruption", ["process_ended", "crash"])
async def test_interruption_comes_first(interruption: str) -> None:
    """Prevents a run that the spool left open from being ended after the next one began, or not at all."""
    task = Task()
    task.send(market_events(10))
    await task.events.aclose()
    await task.run(interruption)
    first, *rest = task.given()
    assert first == [Interrupted(interruption)]
    assert any(isinstance(record, BookRow) for batch in rest for record in batch)


async def test_what_came_together_is_one_batch(autojump_clock: trio.testing.MockClock) -> None:
    """Prevents a burst from costing a hop from task to task for each message, and a single event from waiting."""
    events = market_events(400)
    async with running() as task:
        await trio.testing.wait_all_tasks_blocked()
        task.given()
        started = trio.current_time()
        task.send(events[:100])
        await trio.testing.wait_all_tasks_blocked()
        (batch,) = task.given()
        assert sum(not isinstance(record, Coverage) for record in batch) > 90
        assert [isinstance(record, Coverage) for record in batch] == sorted(
            isinstance(record, Coverage) for record in batch
        ), "rows first, then the coverage that they prove"
        task.send(events[100:101])
        await trio.testing.wait_all_tasks_blocked()
        assert len(task.given()) == 1
        assert trio.current_time() == started


async def test_batches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a backlog from becoming one batch of any size."""
    monkeypatch.setattr(book, "BATCH_LIMIT", 10)
    task = Task()
    task.send(market_events(200))
    await task.events.aclose()
    await task.run()
    assert max(len(batch) for batch in task.given()) <= 2 * (1 + 10)


@hypothesis_settings(max_examples=25)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=20))
async def test_rows_do_not_depend_on_the_batches(sizes: list[int]) -> None:
    """Prevents the way in which events happen to gather from changing, repeating or reordering a row."""
    events = market_events(300)
    async with running() as task:
        position = 0
        for size in sizes:
            task.send(events[position : position + size])
            position += size
            await trio.lowlevel.checkpoint()
    rows = [record for batch in task.given() for record in batch if isinstance(record, BookRow)]
    expected = [event for event in events[:position] if isinstance(event, BookMessage)]
    assert [(row.seq, row.checksum, row.event_time) for row in rows] == [
        (seq, event.checksum, event.timestamp) for seq, event in enumerate(expected)
    ]
    published = [record for record in task.published if isinstance(record, BookRow)]
    assert published == rows


async def test_nothing_waits_for_resyncs_or_redis() -> None:
    """Prevents a book that goes wrong from holding up the others, whoever takes the resync, or nobody."""
    events = market_events(50)
    bad = next(event for event in reversed(events) if isinstance(event, BookMessage))
    task = Task()
    task.send([*events, BookMessage("BTC/USD", "update", bad.bids, bad.asks, bad.checksum ^ 1, bad.timestamp)] * 3)
    await task.events.aclose()
    with trio.fail_after(5):
        await task.run()
    ends = [record.end_reason for batch in task.given() for record in batch if isinstance(record, Coverage)]
    assert ends.count("checksum") >= 1
    with trio.fail_after(5):
        assert await task.resyncs.next_pair(1) == "BTC/USD"


async def test_run_ends_where_the_connection_was_last_heard(autojump_clock: trio.testing.MockClock) -> None:
    """Prevents coverage from claiming, at a stop, the seconds of a connection that may have been dead already."""
    async with running() as task:
        task.send(market_events(50))
        for _ in range(4):
            await trio.sleep(1)
            task.send([Alive(1)])
        await trio.sleep(7)
        await task.events.aclose()
    (end,) = [
        record
        for batch in task.given()
        for record in batch
        if isinstance(record, Coverage) and record.channel == "book" and record.end_reason == "shutdown"
    ]
    last = max(record.event_time for record in task.published if isinstance(record, BookRow))
    silence = datetime.fromisoformat(end.last_at) - datetime.fromisoformat(last)
    assert silence.total_seconds() == pytest.approx(4, abs=0.1)
    assert end.ended_at == end.last_at


async def test_shutdown_ends_no_run_twice() -> None:
    """Prevents a stop while there is no connection from inventing runs, or reasons for those that ended."""
    task = Task()
    task.send([*market_events(50), Disconnected(1, "closed_1001", trio.current_time())])
    await task.events.aclose()
    await task.run()
    *_, last = task.given()
    assert last == []
