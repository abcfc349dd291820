"""Shipping: a segment is stored once, whatever becomes of the answer, of the thread and of the other threads."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from uuid import UUID

import psycopg
import pytest
from collecting import BOOK_COUNT, TRADE_COUNT, count
from samples import LATER, TIME, batch, book_row, run, trade
from stored import coverage, stored_books, stored_trades

from collector.errors import StorageUnavailable
from collector.records import Interrupted
from collector.storage import shipping
from collector.storage.database import Connection, abandon, connect, translated
from collector.storage.partitions import ensure_day
from collector.storage.segments import Header, Segment, encode_header, encode_records, read_segment
from collector.storage.shipping import prepare, ship

SPOOL, OTHER_SPOOL = UUID(int=1), UUID(int=2)
DAY = date.fromisoformat(TIME[:10])


@pytest.fixture
def connection(migrated_url: str) -> Iterator[Connection]:
    """A connection that is ready to ship, to a database with the day of the samples."""
    with connect(migrated_url, application_name="tests") as prepared:
        prepare(prepared)
        ensure_day(prepared, DAY)
        yield prepared


def segment(number: int, *appends: list, spool: UUID = SPOOL) -> Segment:
    """A segment, as it is read from its file."""
    read = read_segment(encode_header(Header(spool, number, None, 0)) + b"".join(map(encode_records, appends)))
    assert read is not None
    return read


def test_segment_is_stored_once(connection: Connection, migrated_url: str) -> None:
    """Prevents a segment whose commit's answer was lost from being stored a second time."""
    first, second = segment(1, batch(0, 2), batch(2, 3)), segment(2, batch(5, 1))
    assert ship(connection, first) == 10
    assert ship(connection, first) == 0
    assert ship(connection, second) == 2
    assert ship(connection, first) == ship(connection, second) == 0
    ((key, rows),) = stored_books(migrated_url).items()
    assert key == ("BTC/USD", 1)
    assert [row.seq for row in rows] == list(range(6))
    assert [row.trade_id for row in stored_trades(migrated_url)] == list(range(6))
    assert [(covered.rows, covered.updates) for covered in coverage(migrated_url)] == [(6, 5)]


def test_known_trades_are_stored_once(connection: Connection, migrated_url: str) -> None:
    """Prevents what every reconnect repeats from being stored twice, in one segment or in several, by any spool."""
    assert ship(connection, segment(1, [trade(1), trade(2), trade(1)], [trade(2), trade(3)])) == 3
    assert ship(connection, segment(2, [trade(3), trade(4), trade(4, pair="ETH/USD")])) == 2
    assert ship(connection, segment(1, [trade(4), trade(5)], spool=OTHER_SPOOL)) == 1
    stored = [(row.pair, row.trade_id) for row in stored_trades(migrated_url)]
    assert stored == [*[("BTC/USD", number) for number in range(1, 6)], ("ETH/USD", 4)]


def test_two_threads_ship_one_segment(connection: Connection, migrated_url: str) -> None:
    """Prevents a thread that was given up, and lives, from storing what its successor stores too."""
    barrier = threading.Barrier(2)

    def ship_when_all_are_ready(number: int) -> int:
        with connect(migrated_url, application_name="tests") as own:
            prepare(own)
            barrier.wait(10)
            return ship(own, segment(number, batch(number * 100, 100)))

    with ThreadPoolExecutor(2) as threads:
        for number in range(5):
            stored = sorted(threads.map(ship_when_all_are_ready, [number + 1] * 2))
            assert stored == [0, 200]
    assert count(migrated_url, BOOK_COUNT) == count(migrated_url, TRADE_COUNT) == 500
    assert connection.execute("SELECT spool, last_segment FROM collector_spools").fetchall() == [(SPOOL, 5)]


def test_abandoned_while_shipping(connection: Connection, migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents half a segment: cut anywhere before the commit, nothing of it is stored, not even its claim."""
    whole = segment(1, batch(0, 3))
    with connect(migrated_url, application_name="tests") as cut, monkeypatch.context() as patched:
        prepare(cut)
        patched.setattr(shipping, "_store_coverage", lambda *_: abandon(cut))
        with pytest.raises(StorageUnavailable), translated():
            ship(cut, whole)
    assert count(migrated_url, BOOK_COUNT) == count(migrated_url, TRADE_COUNT) == 0
    assert ship(connection, whole) == 6


def test_row_that_is_rejected(connection: Connection, migrated_url: str) -> None:
    """Prevents the rows beside one that PostgreSQL rejects from being stored without it, unnoticed."""
    bad = segment(1, [*batch(0, 2), trade(7, price=b"1e400000")])
    with pytest.raises(psycopg.DataError):
        ship(connection, bad)
    assert count(migrated_url, BOOK_COUNT) == count(migrated_url, TRADE_COUNT) == 0
    assert ship(connection, segment(1, batch(0, 2))) == 4


def test_day_without_a_partition(connection: Connection, migrated_url: str) -> None:
    """Prevents rows of a day that nobody made ahead, such as an old recording's, from being held up for ever."""
    rows = [
        book_row(seq, chain=chain, event_time=f"{day}T12:00:00.000000Z")
        for chain, day in enumerate(["2021-04-17", "2013-01-01", TIME[:10], "2021-04-17"])
        for seq in range(2)
    ]
    assert ship(connection, segment(1, rows[:3], rows[3:])) == len(rows)
    assert len(stored_books(migrated_url)) == 4
    assert ship(connection, segment(1, rows)) == 0


def test_last_state_of_a_run_counts(connection: Connection, migrated_url: str) -> None:
    """Prevents coverage from showing a run as it once was, or an ended one as going on."""
    ended = run(9, last_at=LATER, ended_at=LATER, end_reason="closed_1001")
    ship(connection, segment(1, [run(1)], [run(5), run(1, chain=2)]))
    assert [(of.chain, of.rows, of.is_ended) for of in coverage(migrated_url)] == [(1, 5, False), (2, 1, False)]
    ship(connection, segment(2, [run(6)], [ended], [run(1, pair="ETH/USD", chain=3)]))
    assert [(of.chain, of.rows, of.end_reason) for of in coverage(migrated_url)] == [
        (1, 9, "closed_1001"),
        (2, 1, None),
        (3, 1, None),
    ]
    row = connection.execute("SELECT last_at = ended_at FROM kraken_coverage WHERE chain = 1").fetchone()
    assert row == (True,)


def test_interruption_ends_the_open_runs_of_its_spool(connection: Connection, migrated_url: str) -> None:
    """Prevents a run from staying open when its process is gone, and one of another process from being ended."""
    ended = run(3, chain=1, ended_at=TIME, end_reason="closed_1001")
    ship(connection, segment(1, [ended, run(4, chain=2)]))
    ship(connection, segment(1, [run(1, chain=3)], spool=OTHER_SPOOL))
    ship(connection, segment(2, [run(5, chain=4)], [Interrupted("process_ended"), run(1, chain=5)]))
    assert [(of.chain, of.end_reason) for of in coverage(migrated_url)] == [
        (1, "closed_1001"),
        (2, "process_ended"),
        (3, None),
        (4, "process_ended"),
        (5, None),
    ]
    ends = connection.execute("SELECT ended_at = last_at FROM kraken_coverage WHERE ended_at IS NOT NULL").fetchall()
    assert ends == [(True,)] * 3, "a run ends where it was last known to be whole"


def test_run_that_outlives_its_spools_identity(connection: Connection, migrated_url: str) -> None:
    """Prevents a run from staying open for ever when its spool took a new identity while it went on."""
    ship(connection, segment(1, [run(1)]))
    ship(connection, segment(2, [run(2)], spool=OTHER_SPOOL))
    ship(connection, segment(3, [Interrupted("process_ended")], spool=OTHER_SPOOL))
    assert [of.end_reason for of in coverage(migrated_url)] == ["process_ended"]
