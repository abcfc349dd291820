"""Shipping from a spool in trouble: what cannot be stored is kept and told, and the book task begins anew."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest
import trio
from collecting import Kraken, settings_for, wait_until
from samples import batch, book_row, run, trade
from spooling import opened, seal
from stored import coverage, stored_books, stored_trades
from structlog.testing import capture_logs
from trio_util import AsyncValue

from collector.feed import Doubts
from collector.records import Record
from collector.statistics import Statistics
from collector.storage.spool import Spool
from collector.tasks import ship
from collector.tasks.ship import ship_segments

SET_BACK = """
DELETE FROM kraken_orderbook WHERE seq >= 2;
DELETE FROM kraken_trades WHERE trade_id >= 2;
UPDATE kraken_coverage SET rows = 2, updates = 1;
UPDATE collector_spools SET last_segment = 1
"""


@pytest.fixture
def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    with opened(tmp_path / "spool") as own:
        yield own


def fill(spool: Spool, *appends: list[Record]) -> None:
    """A segment for each append, sealed and synced."""
    for records in appends:
        spool.append(records)
        seal(spool)
        spool.synced_to = spool.number - 1


class Shipping:
    """A ship task's surroundings."""

    def __init__(self, url: str, spool: Spool) -> None:
        kraken = Kraken()
        kraken.address = kraken.address._replace(ws_url="ws://127.0.0.1:1/v2", rest_url="http://127.0.0.1:1")
        self.settings = settings_for(kraken, url, spool.directory)
        self.spool, self.doubts, self.statistics = spool, Doubts(), Statistics()
        self.waiting = AsyncValue(spool.shippable)

    async def ship(self, *appends: list[Record]) -> None:
        """Ship some segments, to the last one."""
        fill(self.spool, *appends)
        self.waiting.value = self.spool.shippable
        await wait_until(lambda: not self.spool.sealed)


@asynccontextmanager
async def shipping(url: str, spool: Spool) -> AsyncIterator[Shipping]:
    """A ship task, for the length of the block."""
    made = Shipping(url, spool)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ship_segments, made.settings, spool, made.waiting, made.doubts, made.statistics)
        yield made
        nursery.cancel_scope.cancel()


def kept(spool: Spool) -> int:
    """How many rows lie in the files of what was set apart."""
    return sum(len(path.read_bytes().splitlines()) for path in (spool.directory / "rejected").glob("*"))


async def test_damaged_segment_in_the_middle(migrated_url: str, spool: Spool) -> None:
    """Prevents a bad block of the disk from leaving a hole inside a run that coverage says is whole."""
    fill(spool, *(batch(2 * number, 2) for number in range(4)))
    path = spool._path(2)
    path.write_bytes(b"\0" * 4096)
    with capture_logs() as logs:
        async with shipping(migrated_url, spool) as made:
            await made.ship()
            assert made.doubts.take() == {"BTC/USD": (1, "segment_lost")}
            await made.ship([book_row(0, chain=2), run(1, chain=2)])
            assert made.doubts.take() == {}
    assert [log["event"] for log in logs if "what_to_do" in log] == ["segment_damaged", "segments_lost", "run_broken"]
    assert {(key[1], len(rows)) for key, rows in stored_books(migrated_url).items()} == {(1, 2), (2, 1)}
    assert [(of.chain, of.rows, of.end_reason) for of in coverage(migrated_url)] == [
        (1, 2, "segment_lost"),
        (2, 1, None),
    ]
    assert [row.trade_id for row in stored_trades(migrated_url)] == [0, 1, 4, 5, 6, 7]
    assert kept(spool) == 4
    assert (spool.directory / "damaged" / path.name).exists()


async def test_torn_segment_is_kept(migrated_url: str, spool: Spool) -> None:
    """Prevents what cannot be read of a segment from being deleted with what can."""
    fill(spool, batch(0, 2), batch(2, 2))
    path = spool._path(1)
    path.write_bytes(path.read_bytes()[:-5])
    damaged = path.read_bytes()
    async with shipping(migrated_url, spool) as made:
        await made.ship()
    assert [(of.rows, of.is_ended) for of in coverage(migrated_url)] == [(4, False)], "no row of it was lost"
    assert (spool.directory / "damaged" / path.name).read_bytes() == damaged
    assert not path.exists()


async def test_database_that_was_set_back(migrated_url: str, spool: Spool) -> None:
    """Prevents a failover that lost committed segments from leaving a hole that nobody is told of."""
    with capture_logs() as logs:
        async with shipping(migrated_url, spool) as made:
            await made.ship(batch(0, 2), batch(2, 2), batch(4, 2))
            with psycopg.connect(migrated_url) as connection:
                connection.execute(SET_BACK)
            await made.ship(batch(6, 2))
            assert made.doubts.take() == {"BTC/USD": (1, "segment_lost")}
    ((first, last),) = [(log["first_segment"], log["last_segment"]) for log in logs if log["event"] == "segments_lost"]
    assert (first, last) == (2, 3)
    assert [len(rows) for rows in stored_books(migrated_url).values()] == [2]
    assert [(of.rows, of.end_reason) for of in coverage(migrated_url)] == [(2, "segment_lost")]
    assert [row.trade_id for row in stored_trades(migrated_url)] == [0, 1, 6, 7]
    assert kept(spool) == 2


async def test_row_that_is_rejected(migrated_url: str, spool: Spool) -> None:
    """Prevents a row that PostgreSQL cannot take from holding up the rest, and from being lost."""
    bad = [book_row(2, bids=b"[[1e400000000,1]]"), run(3), trade(9, price=b"1e400000")]
    with capture_logs() as logs:
        async with shipping(migrated_url, spool) as made:
            await made.ship(batch(0, 2), bad, batch(3, 2))
            assert made.doubts.take() == {"BTC/USD": (1, "row_rejected")}
            assert made.statistics.stored_rows == 6
    rejected = [(log["chain"], log["error"][:20]) for log in logs if log["event"] == "row_rejected"]
    assert [chain for chain, _ in rejected] == [1, None]
    assert [(of.rows, of.end_reason) for of in coverage(migrated_url)] == [(2, "row_rejected")]
    assert [row.trade_id for row in stored_trades(migrated_url)] == [0, 1, 3, 4]
    assert kept(spool) == 4


async def test_outage_is_told_once(migrated_url: str, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a long outage from filling the log with its tries, and what waited from staying behind it."""
    monkeypatch.setattr(ship, "BACKOFF_CAP", 0.05)
    fill(spool, batch(0, 2))
    with capture_logs() as logs:
        async with shipping("postgresql://nobody@127.0.0.1:1/none", spool):
            await trio.sleep(0.5)
    assert [log["event"] for log in logs] == ["storage_unavailable"]
    async with shipping(migrated_url, spool) as made:
        await made.ship()
    assert [of.rows for of in coverage(migrated_url)] == [2]
