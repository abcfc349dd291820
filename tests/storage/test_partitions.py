"""The days of the order book: made and removed without ever standing in the way of a reader or the writer."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta

import psycopg
import pytest
from psycopg import sql

from collector.errors import StorageUnavailable, UnusableDatabase
from collector.storage import partitions, schema
from collector.storage.database import Connection, connect
from collector.storage.partitions import (
    FIRST_DAY,
    RETENTION_LOCK,
    RETIRED,
    DayPartition,
    day_partitions,
    detach_and_drop,
    ensure_ahead,
    ensure_day,
)

DAY = date(2026, 8, 24)
ROW = """
INSERT INTO kraken_orderbook (event_time, pair, bids, asks, type, checksum, chain, seq)
VALUES (%s, 'BTC/USD', '[[1.10, 2]]', '[]', 'update', 1, 1, 0)
"""


@pytest.fixture
def connection(migrated_url: str) -> Iterator[Connection]:
    with connect(migrated_url, application_name="tests") as opened:
        yield opened


@contextmanager
def long_reader(url: str) -> Iterator[None]:
    """A session that has read the book and keeps its transaction open."""
    with connect(url, application_name="reader") as reader:
        reader.execute("SET idle_in_transaction_session_timeout = 0")
        with reader.transaction():
            reader.execute("SELECT count(*) FROM kraken_orderbook")
            yield


def count(connection: Connection) -> int:
    (rows,) = connection.execute("SELECT count(*) FROM kraken_orderbook").fetchone() or (-1,)
    assert isinstance(rows, int)
    return rows


def test_day_takes_exactly_its_rows(connection: Connection) -> None:
    """Prevents a row at midnight from finding no partition, or one that retention drops a day too early."""
    assert ensure_day(connection, DAY)
    midnight = datetime.combine(DAY, time.min)
    for inside in (midnight, midnight + timedelta(days=1, microseconds=-1)):
        connection.execute(ROW, [inside])
    for outside in (midnight - timedelta(microseconds=1), midnight + timedelta(days=1)):
        with pytest.raises(psycopg.errors.CheckViolation):
            connection.execute(ROW, [outside])
    assert connection.execute("SELECT count(*) FROM kraken_orderbook_20260824").fetchone() == (2,)


def test_day_has_the_indexes_of_the_parent(connection: Connection) -> None:
    """Prevents a day that can only be read as a whole."""
    ensure_day(connection, DAY)
    attached = connection.execute("""
        SELECT parent.indrelid = 'kraken_orderbook'::regclass FROM pg_index AS child
        JOIN pg_inherits ON inhrelid = child.indexrelid JOIN pg_index AS parent ON parent.indexrelid = inhparent
        WHERE child.indrelid = 'kraken_orderbook_20260824'::regclass
    """)
    wanted = [index for index, table in schema.INDEXES.items() if table == "kraken_orderbook"]
    assert attached.fetchall() == [(True,)] * len(wanted)


@pytest.mark.parametrize("column", ["pair", "bids", "asks", "type", "checksum", "chain", "seq"])
def test_day_refuses_rows_that_have_no_place_in_a_chain(connection: Connection, column: str) -> None:
    """Prevents a row from which no book can be rebuilt from being stored as if it could."""
    ensure_day(connection, DAY)
    connection.execute(ROW, [DAY])
    with pytest.raises(psycopg.errors.NotNullViolation):
        connection.execute(sql.SQL("UPDATE kraken_orderbook SET {} = NULL").format(sql.Identifier(column)))


def test_days_are_made_once(connection: Connection) -> None:
    """Prevents every flush from trying to make today again."""
    days = [DAY + timedelta(days=offset) for offset in range(3)]
    assert ensure_ahead(connection, DAY, 2) == days
    assert ensure_ahead(connection, DAY, 2) == []
    assert not ensure_day(connection, DAY)
    assert day_partitions(connection) == [
        DayPartition(day, f"kraken_orderbook_{day:%Y%m%d}", "attached") for day in days
    ]


def test_first_day_is_the_first_possible(connection: Connection) -> None:
    """Prevents a wrong time from filling the database with partitions."""
    assert ensure_day(connection, FIRST_DAY)
    with pytest.raises(ValueError, match="before 2013-01-01"):
        ensure_day(connection, FIRST_DAY - timedelta(days=1))


def test_any_number_of_workers_make_days_at_once(migrated_url: str) -> None:
    """Prevents the workers of a takeover from failing on each other's partitions."""
    start = threading.Barrier(4)
    made: list[list[date]] = []

    def work() -> None:
        with connect(migrated_url, application_name="tests") as connection:
            start.wait(10)
            made.append(ensure_ahead(connection, DAY, 3))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(day for days in made for day in days) == [DAY + timedelta(days=offset) for offset in range(4)]


def test_day_is_made_beside_a_long_reader_and_a_writer(migrated_url: str, connection: Connection) -> None:
    """Prevents a report that runs for an hour, or a segment in flight, from keeping tomorrow from being made."""
    ensure_day(connection, DAY)
    with long_reader(migrated_url), connect(migrated_url, application_name="writer") as writer, writer.transaction():
        writer.execute(ROW, [DAY])
        assert ensure_day(connection, DAY + timedelta(days=1))
        writer.execute(ROW, [DAY + timedelta(days=1)])
    assert count(connection) == 2


def test_day_that_a_wider_partition_holds_is_there(connection: Connection) -> None:
    """Prevents the day of an adoption from being made again, over the adopted table."""
    connection.execute("CREATE TABLE wide (LIKE kraken_orderbook)")
    connection.execute(
        "ALTER TABLE kraken_orderbook ATTACH PARTITION wide FOR VALUES FROM (MINVALUE) TO ('2026-08-25')"
    )
    assert not ensure_day(connection, DAY)
    assert not ensure_day(connection, FIRST_DAY)
    assert ensure_day(connection, DAY + timedelta(days=1))
    assert [partition.day for partition in day_partitions(connection)] == [DAY + timedelta(days=1)]
    assert not detach_and_drop(connection, DAY)


def test_day_whose_name_is_taken_is_made_all_the_same(connection: Connection) -> None:
    """Prevents a table that somebody detached to keep it from being attached again, dropped, or in the way."""
    ensure_day(connection, DAY)
    connection.execute(ROW, [DAY])
    connection.execute("ALTER TABLE kraken_orderbook DETACH PARTITION kraken_orderbook_20260824")
    assert ensure_day(connection, DAY)
    assert count(connection) == 0
    assert [partition.name for partition in day_partitions(connection)] == ["kraken_orderbook_20260824_2"]
    assert detach_and_drop(connection, DAY)
    assert not detach_and_drop(connection, DAY)
    assert connection.execute("SELECT count(*) FROM kraken_orderbook_20260824").fetchone() == (1,)


def test_only_the_day_that_was_named_is_dropped(connection: Connection) -> None:
    """Prevents retention from dropping a day that is still wanted."""
    for day in ensure_ahead(connection, DAY, 2):
        connection.execute(ROW, [day])
    assert detach_and_drop(connection, DAY + timedelta(days=1))
    assert [partition.day for partition in day_partitions(connection)] == [DAY, DAY + timedelta(days=2)]
    assert count(connection) == 2
    assert connection.execute("SELECT to_regclass('kraken_orderbook_20260825')").fetchone() == (None,)


def test_long_reader_delays_the_removal_but_never_the_writer(migrated_url: str, connection: Connection) -> None:
    """Prevents retention from stopping the flush as long as somebody reads, and from being lost when it gave up."""
    ensure_ahead(connection, DAY, 2)
    connection.execute(ROW, [DAY])
    connection.execute("SET lock_timeout = '1s'")
    given_up = threading.Event()

    def write() -> None:
        with connect(migrated_url, application_name="writer") as writer:
            writer.execute("SET lock_timeout = '500ms'")
            while not given_up.wait(0.05):
                writer.execute(ROW, [DAY + timedelta(days=1)])
                written.append(1)

    written: list[int] = []
    writer = threading.Thread(target=write)
    with long_reader(migrated_url):
        writer.start()
        try:
            with pytest.raises(StorageUnavailable):
                detach_and_drop(connection, DAY)
        finally:
            given_up.set()
            writer.join(30)
        assert [partition.state for partition in day_partitions(connection)] == ["detaching", "attached", "attached"]
        assert ensure_day(connection, DAY + timedelta(days=3))
        with pytest.raises(StorageUnavailable, match="being removed"):
            ensure_day(connection, DAY)
        with pytest.raises(StorageUnavailable):
            detach_and_drop(connection, DAY + timedelta(days=1))
    assert written
    assert count(connection) == len(written)
    assert detach_and_drop(connection, DAY)
    assert [partition.day for partition in day_partitions(connection)] == [DAY + timedelta(days=n) for n in (1, 2, 3)]


def test_server_without_concurrent_detach(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents retention from failing on PostgreSQL 13, which knows no other way to detach than under a lock."""
    monkeypatch.setattr(partitions, "CONCURRENT_DETACH", connection.info.server_version + 1)
    ensure_ahead(connection, DAY, 1)
    assert detach_and_drop(connection, DAY)
    assert [partition.day for partition in day_partitions(connection)] == [DAY + timedelta(days=1)]


def test_removal_interrupted_before_the_drop_is_finished(connection: Connection) -> None:
    """Prevents the disk from filling with days that a killed worker had already detached."""
    ensure_day(connection, DAY)
    connection.execute(sql.SQL("COMMENT ON TABLE kraken_orderbook_20260824 IS {}").format(sql.Literal(RETIRED)))
    connection.execute("ALTER TABLE kraken_orderbook DETACH PARTITION kraken_orderbook_20260824 CONCURRENTLY")
    assert day_partitions(connection) == [DayPartition(DAY, "kraken_orderbook_20260824", "detached")]
    assert detach_and_drop(connection, DAY)
    assert day_partitions(connection) == []


def test_sessions_do_not_remove_days_at_once(migrated_url: str, connection: Connection) -> None:
    """Prevents two workers from failing on each other's removals, or from waiting for each other for ever."""
    ensure_day(connection, DAY)
    with connect(migrated_url, application_name="tests") as other:
        other.execute("SELECT pg_advisory_lock(%s)", [RETENTION_LOCK])
        with pytest.raises(StorageUnavailable, match="another session"):
            detach_and_drop(connection, DAY)
        other.execute("SELECT pg_advisory_unlock(%s)", [RETENTION_LOCK])
    assert detach_and_drop(connection, DAY)
    assert connection.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone() == (0,)


def test_database_without_the_book_is_told(database_url: str) -> None:
    """Prevents a missing schema from being told as a fault of SQL."""
    with (
        connect(database_url, application_name="tests") as connection,
        pytest.raises(UnusableDatabase, match="migrate"),
    ):
        ensure_day(connection, DAY)
