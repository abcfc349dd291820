"""Retention: old days go, and everything that reads the book says so; nothing else is touched."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta

import pytest

from collector.errors import StorageUnavailable
from collector.storage import retention
from collector.storage.database import Connection, connect
from collector.storage.history import NoBook, book_at
from collector.storage.partitions import RETENTION_LOCK, day_partitions, ensure_ahead, ensure_day
from collector.storage.retention import drop_day, old_days

DAY = date(2026, 8, 24)
PAIR = "BTC/USD"
SNAPSHOT = """
INSERT INTO kraken_orderbook VALUES (%s, 'BTC/USD', '[[99, 1]]', '[[100, 1]]', 'snapshot', 0, %s, %s)
"""
UPDATE = "INSERT INTO kraken_orderbook VALUES (%s, 'BTC/USD', '[[98, 2]]', '[]', 'update', 0, %s, %s)"
RUN = """
INSERT INTO kraken_coverage (pair, channel, chain, started_at, last_at, updates, rows, end_reason, spool)
VALUES ('BTC/USD', %s, %s, %s, %s, 0, 0, %s, gen_random_uuid())
"""


def at(day: int, hour: float = 0) -> datetime:
    """A time in the days from the first on, as the columns have it."""
    return datetime.combine(DAY, time.min) + timedelta(days=day, hours=hour)


@pytest.fixture
def connection(migrated_url: str) -> Iterator[Connection]:
    """A book over four days: a run that breaks off on the first, another over midnight to the last."""
    with connect(migrated_url, application_name="tests") as opened:
        ensure_ahead(opened, DAY, 3)
        opened.execute(SNAPSHOT, [at(0, 1), 1, 0])
        opened.execute(RUN, ["book", 1, at(0, 1), at(0, 10), "closed_1012"])
        # On each day a checkpoint goes before the first update.
        for seq, moment in enumerate((at(0, 12), at(1), at(1, 6), at(1, 12), at(2), at(3))):
            opened.execute(UPDATE if moment == at(1, 6) else SNAPSHOT, [moment, 2, seq])
        opened.execute(RUN, ["book", 2, at(0, 12), at(3, 10), None])
        opened.execute(RUN, ["trade", 3, at(0, 1), at(3, 10), None])
        opened.execute("INSERT INTO kraken_trades VALUES (%s, 'BTC/USD', 1, 1, 'buy', 'limit', 1)", [at(0, 2)])
        yield opened


def best_bid(connection: Connection, moment: datetime) -> int:
    return int(book_at(connection, PAIR, moment.replace(tzinfo=UTC)).bids[0].price)


def count(connection: Connection, table: str) -> int:
    (rows,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone() or (-1,)
    return int(rows)


def test_days_are_old_after_the_days_that_are_kept(connection: Connection) -> None:
    """Prevents the oldest of the days that should be kept from being dropped."""
    assert old_days(connection, DAY + timedelta(days=3), 1) == [DAY, DAY + timedelta(days=1)]
    assert old_days(connection, DAY + timedelta(days=3), 3) == []


def test_clock_that_is_ahead_drops_nothing(connection: Connection) -> None:
    """Prevents one wrong clock from costing the whole history."""
    (today,) = connection.execute(retention.TODAY).fetchone() or (DAY,)
    ensure_day(connection, today)
    assert today not in old_days(connection, today + timedelta(days=10_000), 1)


def test_dropped_day_is_told_by_everything(connection: Connection) -> None:
    """Prevents coverage from claiming what retention has dropped, and trades from going with the book."""
    assert best_bid(connection, at(0, 13)) == 99
    assert drop_day(connection, DAY)
    assert drop_day(connection, DAY + timedelta(days=1))
    assert not drop_day(connection, DAY)
    for moment, reason in (
        (at(0, 0.5), "nobody was watching before"),
        (at(0, 2), "from 2026-08-24 01:00:00 to 2026-08-24 10:00:00 was dropped by retention"),
        (at(0, 11), r"nobody was watching from 2026-08-24 10:00:00 to 2026-08-24 12:00:00 \(closed_1012\)"),
        (at(1, 23), "from 2026-08-24 12:00:00 to 2026-08-26 00:00:00 was dropped by retention"),
    ):
        with pytest.raises(NoBook, match=reason):
            best_bid(connection, moment)
    assert best_bid(connection, at(2)) == 99
    told = connection.execute("SELECT channel, started_at, ended_at, reason FROM kraken_gaps ORDER BY 2")
    assert told.fetchall() == [
        ("book", at(0, 1), at(0, 10), "dropped_by_retention"),
        ("book", at(0, 10), at(0, 12), "closed_1012"),
        ("book", at(0, 12), at(2), "dropped_by_retention"),
    ]
    shares = connection.execute("SELECT * FROM kraken_completeness(%s, %s, %s)", [PAIR, at(0, 4), at(3, 4)]).fetchall()
    assert [(channel, round(float(share), 6)) for channel, share in shares] == [("book", 0.388889), ("trade", 1)]
    assert count(connection, "kraken_trades") == 1


def test_run_without_a_checkpoint_since_is_told(connection: Connection) -> None:
    """Prevents a quiet book, whose last rows were dropped, from being given without them."""
    drop_day(connection, DAY)
    connection.execute("DELETE FROM kraken_orderbook WHERE event_time < %s", [at(1, 12)])
    with pytest.raises(NoBook, match="the rows before 2026-08-25 00:00:00 that it builds on were dropped by retention"):
        best_bid(connection, at(1, 1))
    assert best_bid(connection, at(1, 13)) == 99


def test_marks_of_what_is_gone_are_not_written_again(connection: Connection) -> None:
    """Prevents each day's retention from rewriting the coverage of all the years before it."""
    drop_day(connection, DAY)
    drop_day(connection, DAY + timedelta(days=1))
    marks = connection.execute("SELECT chain, dropped_before FROM kraken_coverage ORDER BY chain")
    assert marks.fetchall() == [(1, at(1)), (2, at(2)), (3, None)]


def test_removal_that_has_to_wait_claims_nothing(migrated_url: str, connection: Connection) -> None:
    """Prevents a day that is half removed from being claimed, and from staying so for good."""
    with connect(migrated_url, application_name="other") as other:
        other.execute("SELECT pg_advisory_lock(%s)", [RETENTION_LOCK])
        with pytest.raises(StorageUnavailable, match="another session"):
            drop_day(connection, DAY)
    with pytest.raises(NoBook, match="dropped by retention"):
        best_bid(connection, at(0, 2))
    assert drop_day(connection, DAY)


def test_adopted_table_is_kept(connection: Connection) -> None:
    """Prevents the history of an earlier collector, which nobody can collect again, from being dropped."""
    connection.execute("CREATE TABLE adopted (LIKE kraken_orderbook)")
    connection.execute("INSERT INTO adopted (event_time, pair) VALUES ('2020-01-01', 'BTC/USD')")
    connection.execute(
        "ALTER TABLE kraken_orderbook ATTACH PARTITION adopted FOR VALUES FROM (MINVALUE) TO ('2026-08-24')"
    )
    for day in old_days(connection, DAY + timedelta(days=3), 1):
        drop_day(connection, day)
    assert [partition.day for partition in day_partitions(connection)] == [DAY + timedelta(days=n) for n in (2, 3)]
    assert count(connection, "adopted") == 1


def test_year_of_days_is_not_looked_at(connection: Connection) -> None:
    """Prevents each stored day from making inserts and look-ups slower: only the days concerned are locked."""
    connection.execute("""
        DO $$ BEGIN FOR day IN 4..399 LOOP EXECUTE format(
            'CREATE TABLE later_%s PARTITION OF kraken_orderbook FOR VALUES FROM (%L) TO (%L)',
            day, date '2026-08-24' + day, date '2026-08-24' + day + 1
        ); END LOOP; END $$
    """)
    with connection.transaction():
        assert best_bid(connection, at(3, 5)) == 99
        connection.execute(UPDATE, [at(399, 1), 4, 0])
        locked = connection.execute(
            "SELECT DISTINCT relation::regclass::text FROM pg_locks JOIN pg_class ON pg_class.oid = relation"
            " WHERE pid = pg_backend_pid() AND relispartition AND relkind = 'r'"
        )
        days = {name for (name,) in locked.fetchall()}
    assert days <= {*(f"kraken_orderbook_{DAY + timedelta(days=day):%Y%m%d}" for day in range(4)), "later_399"}
