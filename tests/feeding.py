"""A feed without a database: the socket task and the book task, and what each of them gives."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import pytest
import trio
from collecting import at_once, wait_until

from collector.assignment import Assignment
from collector.books import Books
from collector.feed import Doubts, FeedEvent, ResyncRequests
from collector.kraken.server import connection as server_connection
from collector.pipeline import utc_now
from collector.records import BookRow, Coverage, Record
from collector.rows import ChainNumbers
from collector.settings import Settings
from collector.statistics import Statistics
from collector.tasks.book import keep_books
from collector.tasks.socket import Attempts
from collector.tasks.sockets import run_sockets

Kind = TypeVar("Kind")


@dataclass
class Feed:
    """What has come of it so far."""

    statistics: Statistics = field(default_factory=Statistics)
    events: list[FeedEvent] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)

    def of_kind(self, kind: type[Kind]) -> list[Kind]:
        """The events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def rows(self, pair: str = "BTC/USD") -> list[BookRow]:
        """The book rows of a pair."""
        return [record for record in self.records if isinstance(record, BookRow) and record.pair == pair]

    def ended(self, channel: str = "book") -> list[Coverage]:
        """The runs that have ended."""
        return [
            record
            for record in self.records
            if isinstance(record, Coverage) and record.channel == channel and record.end_reason is not None
        ]

    async def wait_for(self, kind: type[object], count: int = 1) -> None:
        """Wait for some events of a kind."""
        await wait_until(lambda: len(self.of_kind(kind)) >= count)


@asynccontextmanager
async def feeding(settings: Settings, attempts: Attempts | None = None) -> AsyncIterator[Feed]:
    """A feed that is read as fast as it comes, and that reconnects without delay."""
    feed = Feed()
    resyncs = ResyncRequests()
    books = Books(settings, resyncs, Doubts(), ChainNumbers(utc_now, 0), feed.statistics, utc_now)
    to_tee, tee = trio.open_memory_channel[FeedEvent](100)
    to_book, book = trio.open_memory_channel[FeedEvent](100)
    to_list, batches = trio.open_memory_channel[list[Record]](100)

    async def split() -> None:
        async for event in tee:
            feed.events.append(event)
            await to_book.send(event)

    async def gather() -> None:
        async for batch in batches:
            feed.records += batch

    async with trio.open_nursery() as nursery:
        assignment = Assignment(settings.pairs, settings.pairs)
        attempts = attempts or Attempts(at_once)
        nursery.start_soon(run_sockets, settings, assignment, to_tee, resyncs, attempts, feed.statistics)
        nursery.start_soon(split)
        nursery.start_soon(keep_books, books, book, to_list, lambda _records: None, "process_ended")
        nursery.start_soon(gather)
        yield feed
        nursery.cancel_scope.cancel()


def record_requests(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, list[str]]]:
    """What servers are asked from now on: method, channel and pairs."""
    asked = []
    parse = server_connection.parse_request

    def parse_and_note(message: str | bytes) -> server_connection.Request:
        params = json.loads(message)["params"]
        asked.append((json.loads(message)["method"], params["channel"], params["symbol"]))
        return parse(message)

    monkeypatch.setattr(server_connection, "parse_request", parse_and_note)
    return asked
