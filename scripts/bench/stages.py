"""What each stage costs, alone: the same frames go through one stage after the other in this process.

CPU time of all threads of this process, so that PostgreSQL's and Redis' own work is not in it. What is left of a whole
collector's CPU is what links the stages: tasks, channels, threads and timers.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import trio
from trio_websocket import WebSocketConnection

from bench.contestants import collector, prepare_collector
from bench.processes import FrameServer, open_frame_server
from bench.tape import Tape
from bench.throughput import check_stored
from collector.books import Books
from collector.feed import Connected, Doubts, FeedEvent, ResyncRequests, Subscribed
from collector.kraken.connection import open_connection, receive_messages
from collector.kraken.messages import BookMessage, Decoder
from collector.kraken.orderbook import OrderBook
from collector.kraken.requests import Channel, Request
from collector.pipeline import utc_now
from collector.records import Record
from collector.rows import ChainNumbers
from collector.settings import Settings
from collector.statistics import Statistics
from collector.storage import shipping
from collector.storage.database import Connection, connect
from collector.storage.identity import claim_database
from collector.storage.spool import Spool
from collector.tasks.publish import PublishQueue, publish

CHANNELS: tuple[Channel, ...] = ("trade", "book")
BATCH = 64  # messages that go through a stage together: what gathers between two turns of the book task
PUBLISH_POLL = 0.001  # seconds between two looks whether a batch is published
MICROSECONDS = 1e6


class Stopwatch:
    """Adds up the CPU seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Count what the block takes."""
        began = time.process_time()
        yield
        self.seconds[stage] += time.process_time() - began


def measure_stages(tape: Tape, database_url: str, redis_url: str, folder: Path) -> dict[str, float]:
    """CPU microseconds a message of each stage, in the order in which a message passes them.

    Raises:
        BenchError: not every row came out at the end.

    """
    prepare_collector(database_url)
    settings = Settings.model_validate(
        {"database_url": database_url, "redis_url": redis_url, "pairs": ",".join(tape.pairs), "book_depth": tape.depth}
    )
    watch = Stopwatch()
    with open_frame_server(tape) as frames:
        trio.run(_receive, tape, frames, watch)
    _keep_book(tape, watch)
    spool = Spool.open(folder)
    try:
        with connect(database_url, application_name="bench") as connection:
            trio.run(_pass_through, tape, settings, spool, connection, watch)
            check_stored(connection, collector(), tape)
    finally:
        spool.close()
    watch.seconds["rows"] -= watch.seconds["book and checksum"]  # a row is made by the step that changes the book
    stages = ("transport", "decode", "book and checksum", "rows", "spool", "COPY", "Redis")
    return {stage: watch.seconds[stage] * MICROSECONDS / tape.timed_messages for stage in stages}


async def _receive(tape: Tape, frames: FrameServer, watch: Stopwatch) -> None:
    """The WebSocket library alone, with the same connection as in a collector."""
    async with open_connection(f"ws://127.0.0.1:{frames.port}/v2") as websocket:
        for number, channel in enumerate(CHANNELS):
            request = Request(number, "subscribe", channel, tape.pairs, tape.depth)
            await websocket.send_message(request.encode())
        await _receive_messages(websocket, (len(CHANNELS) + 1) * len(tape.pairs))  # answers, and the snapshots
        await trio.to_thread.run_sync(frames.wait_subscribed)
        async with trio.open_nursery() as nursery:
            with watch.measure("transport"):
                nursery.start_soon(trio.to_thread.run_sync, frames.go)
                await _receive_messages(websocket, tape.timed_messages)


async def _receive_messages(websocket: WebSocketConnection, count: int) -> None:
    received = 0
    while received < count:
        received += sum("heartbeat" not in message for message in await receive_messages(websocket))


def _keep_book(tape: Tape, watch: Stopwatch) -> None:
    """The book alone, every checksum verified."""
    decoder, books = Decoder(utc_now), {pair: OrderBook(tape.depth) for pair in tape.pairs}
    for batch, timed_by in _batches(tape, watch):
        messages = [message for frame in batch for message in decoder.decode(frame) if isinstance(message, BookMessage)]
        with timed_by.measure("book and checksum"):
            for message in messages:
                book = books[message.pair]
                take = book.replace if message.type == "snapshot" else book.apply
                take(message.bids, message.asks)
                assert book.checksum() == message.checksum  # noqa: S101 - a book that is wrong costs something else
                book.is_crossed()


async def _pass_through(tape: Tape, settings: Settings, spool: Spool, connection: Connection, watch: Stopwatch) -> None:
    """Everything behind the socket, batch by batch."""
    spool.belongs_to(claim_database(connection, settings.origin))
    shipping.prepare(connection)
    statistics, decoder = Statistics(), Decoder(utc_now)
    books = Books(settings, ResyncRequests(), Doubts(), ChainNumbers(utc_now, 0), statistics, utc_now)
    queue = PublishQueue(statistics)
    books.take([Connected(1), *_subscriptions(tape)], 0.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publish, settings, queue, statistics)
        for batch, timed_by in _batches(tape, watch):
            with timed_by.measure("decode"):
                events: list[FeedEvent] = [message for frame in batch for message in decoder.decode(frame)]  # type: ignore[misc]
            with timed_by.measure("rows"):
                records = books.take(events, time.monotonic())
            with timed_by.measure("spool"):
                spool.append(records)
            if spool.open_rows >= settings.flush_rows:
                _ship(spool, connection, timed_by)
            await _publish(queue, records, statistics, timed_by)
        _ship(spool, connection, watch)
        nursery.cancel_scope.cancel()


def _subscriptions(tape: Tape) -> list[FeedEvent]:
    return [Subscribed(1, channel, pair, None) for channel in CHANNELS for pair in tape.pairs]


def _ship(spool: Spool, connection: Connection, watch: Stopwatch) -> None:
    """Seal what is in the spool, and store it."""
    number = spool.number
    with watch.measure("spool"):
        file = spool.seal()
        assert file is not None  # noqa: S101 - there are rows in it
        spool.sync(file)
        segment = spool.read(number)
    assert segment is not None  # noqa: S101 - it was sealed just now
    with watch.measure("COPY"):
        shipping.ship(connection, segment)
    spool.delete(number)
    spool.forget(number)


async def _publish(queue: PublishQueue, records: list[Record], statistics: Statistics, watch: Stopwatch) -> None:
    """Give records to the publisher, and wait until Redis has them."""
    expected = statistics.published + len(PublishQueue(statistics).messages(records))
    with watch.measure("Redis"):
        queue.offer(records)
        while statistics.published < expected:  # noqa: ASYNC110 - it is a counter
            await trio.sleep(PUBLISH_POLL)


def _batches(tape: Tape, watch: Stopwatch) -> Iterator[tuple[list[str], Stopwatch]]:
    """The frames by the batch, each with what it is timed by: the time of the snapshots is nobody's."""
    frames = tape.frames()
    for part, timed_by in ((islice(frames, len(tape.pairs)), Stopwatch()), (frames, watch)):
        while batch := list(islice(part, BATCH)):
            yield batch, timed_by
