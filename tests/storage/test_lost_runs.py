"""Runs of lost spools: ended where nothing is heard any more, and opened again by whoever turns out to be alive."""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from samples import LATER, TIME, run
from stored import coverage
from structlog.testing import capture_logs

from collector.errors import StorageUnavailable
from collector.records import Interrupted, Record
from collector.storage.database import Connection, abandon, connect, translated
from collector.storage.lost_runs import LostRun, end_lost_runs
from collector.storage.segments import Header, encode_header, encode_records, read_segment
from collector.storage.shipping import prepare, ship

OWN, OTHER = UUID(int=1), UUID(int=2)
MINUTE = timedelta(minutes=1)
SILENT = "UPDATE collector_spools SET shipped_at = shipped_at - interval '2 minutes' WHERE spool = %s"
GAPS = "SELECT started_at::text, ended_at::text, reason FROM kraken_gaps WHERE channel = 'book'"
SEEN = """SELECT share FROM kraken_completeness('BTC/USD', '2026-08-24 22:21:58', '2026-08-24 22:22:58')
WHERE channel = 'book'"""


@pytest.fixture
def connection(migrated_url: str) -> Iterator[Connection]:
    """A connection that is ready to ship."""
    with connect(migrated_url, application_name="tests") as prepared:
        prepare(prepared)
        yield prepared


def store(connection: Connection, spool: UUID, number: int, *records: Record) -> None:
    """Ship a segment of a spool."""
    read = read_segment(encode_header(Header(spool, number, None, 0)) + encode_records(records))
    assert read is not None
    ship(connection, read)


def test_silent_spool(connection: Connection, migrated_url: str) -> None:
    """Prevents runs that nobody will end from looking open for ever, and any other run from being ended."""
    store(connection, OTHER, 1, run(1), run(1, channel="trade", chain=2), run(1, pair="ETH/USD", chain=3))
    store(connection, OTHER, 2, run(5, chain=4, ended_at=TIME, end_reason="closed"))
    store(connection, OWN, 1, run(1, chain=5, started_at=LATER, last_at=LATER))
    connection.execute(SILENT, [OWN])
    assert end_lost_runs(connection, ["BTC/USD"], OWN, MINUTE) == [], "it was heard of just now"
    connection.execute(SILENT, [OTHER])
    assert set(end_lost_runs(connection, ["BTC/USD"], OWN, MINUTE)) == {
        LostRun("BTC/USD", "book", 1, OTHER),
        LostRun("BTC/USD", "trade", 2, OTHER),
    }
    assert end_lost_runs(connection, ["BTC/USD"], OWN, MINUTE) == []
    assert [(of.chain, of.end_reason) for of in coverage(migrated_url)] == [
        (1, "spool_lost"),
        (3, None),
        (4, "closed"),
        (5, None),
    ]
    ended = "SELECT ended_at = last_at FROM kraken_coverage WHERE end_reason = 'spool_lost'"
    assert connection.execute(ended).fetchall() == [(True,), (True,)]


def test_spool_that_comes_back(connection: Connection, migrated_url: str) -> None:
    """Prevents a collector that was only cut off from finding its run ended, or ended where it did not end."""
    store(connection, OTHER, 1, run(1), run(1, chain=2))
    connection.execute(SILENT, [OTHER])
    assert len(end_lost_runs(connection, ["BTC/USD"], OWN, MINUTE)) == 2
    store(connection, OTHER, 2, run(7, last_at=LATER))
    assert [(of.chain, of.rows, of.end_reason) for of in coverage(migrated_url)] == [(1, 7, None), (2, 1, "spool_lost")]
    store(connection, OTHER, 3, Interrupted("process_ended"))
    assert [of.end_reason for of in coverage(migrated_url)] == ["process_ended"] * 2, "the spool itself knows better"


def test_readers_follow(connection: Connection) -> None:
    """Prevents a stretch from looking watched while its spool is lost, and unwatched once it is back."""
    store(connection, OTHER, 1, run(1, started_at="2026-08-24T22:21:58Z", last_at="2026-08-24T22:22:03Z"))
    store(connection, OWN, 1, run(1, chain=2, started_at="2026-08-24T22:22:18Z", last_at="2026-08-24T22:22:28Z"))
    connection.execute(SILENT, [OTHER])
    assert connection.execute(GAPS).fetchall() == [("2026-08-24 22:22:03", "2026-08-24 22:22:18", None)]
    end_lost_runs(connection, ["BTC/USD"], OWN, MINUTE)
    assert connection.execute(GAPS).fetchall() == [("2026-08-24 22:22:03", "2026-08-24 22:22:18", "spool_lost")]
    assert connection.execute(SEEN).fetchone() == (Decimal("0.25"),)
    store(connection, OTHER, 2, run(7, started_at="2026-08-24T22:21:58Z", last_at="2026-08-24T22:22:23Z"))
    assert connection.execute(GAPS).fetchall() == []
    assert connection.execute(SEEN).fetchone() == (Decimal("0.5"),)


def test_spool_that_the_database_does_not_know(connection: Connection, migrated_url: str) -> None:
    """Prevents a run from staying open since the table of spools was lost."""
    store(connection, OTHER, 1, run(1))
    connection.execute("DELETE FROM collector_spools")
    assert end_lost_runs(connection, ["BTC/USD"], OWN, MINUTE) == [LostRun("BTC/USD", "book", 1, OTHER)]


def test_run_that_is_being_written(connection: Connection, migrated_url: str) -> None:
    """Prevents the session that holds the locks from waiting for a writer, and a living run from being ended."""
    store(connection, OTHER, 1, run(1))
    connection.execute(SILENT, [OTHER])
    with connect(migrated_url, application_name="tests") as writer, writer.transaction(), capture_logs() as logs:
        writer.execute("UPDATE kraken_coverage SET rows = 2")
        assert end_lost_runs(connection, ["BTC/USD"], OWN, MINUTE) == []
    assert logs == [], "it did not wait until the lock timed out"
    assert [of.end_reason for of in coverage(migrated_url)] == [None]


@pytest.mark.parametrize("trouble", ["SET default_transaction_read_only = on", "DROP TABLE kraken_coverage CASCADE"])
def test_what_costs_no_lock(trouble: str, connection: Connection) -> None:
    """Prevents a database that takes no writes just now from costing the session that holds the locks."""
    store(connection, OTHER, 1, run(1))
    connection.execute(SILENT, [OTHER])
    connection.execute(trouble)
    with capture_logs() as logs:
        assert end_lost_runs(connection, ["BTC/USD"], OWN, MINUTE) == []
    assert [log["event"] for log in logs] == ["lost_runs_later"]
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_connection_that_is_lost(connection: Connection) -> None:
    """Prevents the loss of the session from passing for something that can wait."""
    abandon(connection)
    with pytest.raises(StorageUnavailable), translated():
        end_lost_runs(connection, ["BTC/USD"], OWN, MINUTE)
