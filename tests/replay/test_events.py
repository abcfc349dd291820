"""History read page by page: in the order of its chain, whatever its times do."""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from collector.replay.events import BookReader, Event, TradeReader
from collector.replay.moments import nanoseconds
from collector.replay.stretches import Stretch
from collector.storage.database import Connection, connect
from collector.storage.partitions import ensure_day

BEGIN = datetime(2026, 8, 24, 12)  # noqa: DTZ001 - UTC without zone, like the columns
STRETCH = Stretch(nanoseconds(BEGIN), nanoseconds(BEGIN + timedelta(minutes=1)), 1, nanoseconds(BEGIN), None)


@pytest.fixture
def connection(migrated_url: str) -> Iterator[Connection]:
    with connect(migrated_url, application_name="tests") as connection:
        ensure_day(connection, BEGIN.date())
        yield connection


def put_book(connection: Connection, *seconds: float) -> None:
    """A chain whose rows have these times; row n is known by its checksum n."""
    for seq, second in enumerate(seconds):
        connection.execute(
            "INSERT INTO kraken_orderbook VALUES (%s, 'BTC/USD', '[[9.0, 1.50]]', '[]', %s, %s, 1, %s)",
            [BEGIN + timedelta(seconds=second), "update" if seq else "snapshot", seq, seq],
        )


def events_of(connection: Connection, reader: BookReader | TradeReader) -> list[Event]:
    """All pages."""
    events: list[Event] = []
    while (page := reader.next_page(connection)) is not None:
        events += page
    return events


def found(events: list[Event]) -> list[tuple[float, int | None]]:
    """When each is due, in seconds, and of which row it is."""
    return [
        ((event.time - STRETCH.start) / 1e9, event.frame and int(re.search(rb'"checksum":(\d+)', event.frame)[1]))
        for event in events
    ]


def test_rows_whose_times_step_back_stay_in_their_order(connection: Connection) -> None:
    """Prevents a row that is read on a later page than the next one from being taken for missing."""
    put_book(connection, 0, 12, 9, 13)
    events = events_of(connection, BookReader("BTC/USD", 10, STRETCH, STRETCH.start, snapshot=True))
    assert found(events) == [(0, 0), (12, 1), (12, 2), (13, 3)]


def test_a_start_between_rows_is_shown_at_once(connection: Connection) -> None:
    """Prevents a client of a quiet pair from waiting for its snapshot until something happens."""
    put_book(connection, 0, 1, 50)
    place = STRETCH.start + 2_000_000_000
    reader = BookReader("BTC/USD", 10, STRETCH, place, snapshot=True)
    first = reader.next_page(connection)
    assert first is not None
    assert found(list(first)) == [(2, 1)]
    assert found(events_of(connection, reader)) == [(50, 2)]


def test_without_a_snapshot_the_updates_come_alone(connection: Connection) -> None:
    """Prevents a snapshot that was not asked for."""
    put_book(connection, 0, 1, 50)
    reader = BookReader("BTC/USD", 10, STRETCH, STRETCH.start + 500_000_000, snapshot=False)
    assert found(events_of(connection, reader)) == [(1, 1), (50, 2)]


def test_trades_of_one_time_are_one_message_behind_the_last_fifty(connection: Connection) -> None:
    """Prevents a market order from coming apart, and a client from not being told of what was traded before."""
    for trade_id, second in enumerate([-1] * 60 + [3, 3, 4, 70]):
        connection.execute(
            "INSERT INTO kraken_trades VALUES (%s, 'BTC/USD', 9.0, 1.50, 'buy', 'limit', %s)",
            [BEGIN + timedelta(seconds=second), trade_id + 1],
        )
    events = events_of(connection, TradeReader("BTC/USD", STRETCH, STRETCH.start, snapshot=True))
    ids = [[int(number) for number in re.findall(rb'"trade_id":(\d+)', event.frame or b"")] for event in events]
    assert ids == [list(range(11, 61)), [61, 62], [63]]
    assert [(event.time - STRETCH.start) / 1e9 for event in events] == [0, 3, 4]
    assert b'"price":9.0,"qty":1.50,' in (events[0].frame or b"")
