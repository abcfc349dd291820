"""The trades of a whole collector, held against what its Kraken has: real sockets, files and PostgreSQL."""

import errno
import os
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
import structlog
import trio
from collecting import TRADE_COUNT, Kraken, collecting, count, open_kraken, own_postgres, settings_for, wait_until
from stored import TRADES, TradeEntry, assert_same, stored_trades
from trio_util import AsyncValue

from collector import pair_repair
from collector.backoff import Backoff
from collector.kraken.rest import TRADES_LIMIT
from collector.kraken.server.source import PublicTrade
from collector.kraken.simulator import market as simulator_market
from collector.kraken.simulator.simulation import SimulatedSource, Simulation
from collector.records import Record, Trade
from collector.statistics import Statistics
from collector.storage.spool import Spool
from collector.tasks import paced_rest, repair
from collector.tasks.repair import settled

PAIR = "BTC/USD"
HISTORY = 6_000  # trades before the start: six pages
RATE = 300.0  # steps a second, of which 3 in 100 are orders that trade
LONG_AGO = datetime.now(UTC) - timedelta(days=30)
MISSING = """
SELECT coalesce(max(trade_id) - min(trade_id) + 1 - count(*), -1) FROM kraken_trades WHERE trade_id IS NOT NULL
"""
ABSENT = "SELECT coalesce(sum(last_id - first_id + 1), 0) FROM kraken_absent_trades"


class Market(SimulatedSource):
    """A live market whose REST can lack trades; it notes what it is asked for.

    `history` is every trade so far: the one of id n stands at place n - 1.
    """

    def __init__(self) -> None:
        super().__init__(Simulation([PAIR], seed=1, start=time.time_ns(), rate=RATE, depths=[10]))
        self.lacks: set[int] = set()
        self.asked: list[int | None] = []

    @property
    def history(self) -> list[PublicTrade]:
        return self.markets[PAIR].trades

    async def trades_page(self, symbol: str, since: int | None, count: int) -> Sequence[PublicTrade]:
        self.asked.append(since)
        page = await super().trades_page(symbol, since, count + len(self.lacks))
        return [trade for trade in page if trade.trade_id not in self.lacks][:count]


@pytest.fixture(autouse=True)
def _without_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waiting times of the repair, made short."""
    monkeypatch.setattr(repair, "INTERVAL", 0.5)
    monkeypatch.setattr(repair, "OCCASION_POLL", 0.05)
    monkeypatch.setattr(repair, "SNAPSHOT_GRACE", 0.1)
    monkeypatch.setattr(repair, "RETRY_AFTER", 0.1)
    monkeypatch.setattr(paced_rest, "REQUEST_SPACING", 0.02)
    monkeypatch.setattr(paced_rest, "BACKOFF_BASE", 0.2)
    monkeypatch.setattr(paced_rest, "BACKOFF_CAP", 0.4)
    monkeypatch.setattr(simulator_market, "HISTORY_TRADES", HISTORY)


@asynccontextmanager
async def open_market() -> AsyncIterator[tuple[Market, Kraken]]:
    market = Market()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(market.run)
        async with open_kraken(market) as kraken:
            yield market, kraken
        nursery.cancel_scope.cancel()


def expected(trades: Sequence[PublicTrade]) -> list[TradeEntry]:
    """The rows that trades make."""
    rows = []
    for trade in trades:
        seconds, fraction = divmod(trade.time, 10**9)
        at = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction // 1000:06d}Z"
        rows.append(TradeEntry(at, PAIR, trade.price, trade.qty, trade.side, trade.order_type, trade.trade_id))
    return rows


def assert_complete(url: str, market: Market, first: int = 1) -> None:
    """From its first one on, all trades are stored, digit for digit, as they are at Kraken's."""
    rows = stored_trades(url)
    assert_same(rows, expected(market.history[first - 1 : first - 1 + len(rows)]))


def is_whole(url: str, at_least: int) -> bool:
    return count(url) >= 0 and count(url, MISSING) == 0 and count(url, TRADE_COUNT) >= at_least


async def until_whole(url: str, at_least: int) -> None:
    """Wait until so many trades are stored, and none is missing between them."""
    await wait_until(lambda: is_whole(url, at_least))


async def test_thousand_deleted_trades_come_back_after_a_restart(database_url: str, tmp_path: Path) -> None:
    """Prevents a trade that is missing, for whatever reason, from staying so, or from coming back different."""
    async with open_market() as (market, kraken):
        settings = settings_for(kraken, database_url, tmp_path / "spool", backfill_since=LONG_AGO)
        async with collecting(settings):
            await until_whole(database_url, HISTORY)
        before = stored_trades(database_url)
        lost = random.Random(7).sample([row.trade_id for row in before], 1000)
        with psycopg.connect(database_url, autocommit=True) as connection:
            deleted = connection.execute("DELETE FROM kraken_trades WHERE trade_id = ANY(%s)", [lost])
            assert deleted.rowcount == 1000
        async with collecting(settings) as collector:
            await until_whole(database_url, len(before))
            await wait_until(lambda: collector.statistics.missing_trades.total() == 0)
            assert collector.statistics.repaired_trades >= 900  # those of the snapshot came by themselves
        assert stored_trades(database_url)[: len(before)] == before
        assert_complete(database_url, market)


async def test_outage_and_lost_messages_leave_no_hole(database_url: str, tmp_path: Path) -> None:
    """Prevents what was traded while nobody was connected, or what Kraken did not send, from being lost."""
    async with open_market() as (market, kraken):
        async with collecting(settings_for(kraken, database_url, tmp_path / "spool")) as collector:
            collector._attempts._backoffs[0] = Backoff(0.2, 0.2, 0.0, lambda _, high: high)  # the attempts are counted
            await wait_until(lambda: count(database_url, TRADE_COUNT) > 60)
            first = stored_trades(database_url)[0].trade_id
            kraken.faults.drop("trade", PAIR, times=3)
            await until_whole(database_url, 100)
            kraken.faults.stop_listening()
            kraken.faults.reset()
            missed = len(market.history) + 70  # more than the snapshot brings
            await wait_until(lambda: len(market.history) >= missed)
            kraken.faults.lift()
            await until_whole(database_url, missed - first)
        assert first > HISTORY - 60
        assert_complete(database_url, market, first)


async def test_rest_that_refuses_is_asked_again(database_url: str, tmp_path: Path) -> None:
    """Prevents a limit, an outage or an edge's page of HTML from ending the repair, or from holding up the feed."""
    async with open_market() as (market, kraken):
        kraken.faults.rest_error("EGeneral:Too many requests", times=2)
        kraken.faults.rest_error("EService:Throttled: 1700000000", times=1)
        kraken.faults.rest_error("EService:Unavailable", times=1)
        kraken.faults.rest_status(429, times=1)
        kraken.faults.rest_status(502, times=1)
        settings = settings_for(kraken, database_url, tmp_path / "spool", backfill_since=LONG_AGO)
        with structlog.testing.capture_logs() as logs:
            async with collecting(settings) as collector:
                kraken.faults.limit_rest(0.2)
                await wait_until(lambda: collector.statistics.repaired_trades > 2000)
                kraken.faults.rest_error("EAPI:Rate limit exceeded")
                rows = collector.statistics.stored_rows
                await wait_until(lambda: collector.statistics.stored_rows > rows + 200)
                kraken.faults.lift()
                await until_whole(database_url, HISTORY)
        assert not [entry for entry in logs if entry["event"] == "crashed"]
        assert count(database_url, ABSENT) == 0
        assert_complete(database_url, market)


async def test_ids_that_kraken_lacks_are_recorded_and_never_asked_for_again(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents requests without end for trades that are nowhere to be had."""
    monkeypatch.setattr(pair_repair, "JUDGE_AFTER", 0)
    async with open_market() as (market, kraken):
        market.lacks = {10, 11, 12, 1000, 1001, 2500}
        settings = settings_for(kraken, database_url, tmp_path / "spool", backfill_since=LONG_AGO)
        async with collecting(settings) as collector:
            await wait_until(lambda: count(database_url, ABSENT) == 6)
            await wait_until(lambda: collector.statistics.missing_trades.total() == 0)
            assert collector.statistics.absent_trades == 6
        with psycopg.connect(database_url) as connection:
            ranges = connection.execute("SELECT first_id, last_id FROM kraken_absent_trades ORDER BY 1").fetchall()
        assert ranges == [(10, 12), (1000, 1001), (2500, 2500)]
        market.asked.clear()
        async with collecting(settings) as collector:
            await wait_until(lambda: collector.statistics.stored_rows > 300)
        assert len(market.asked) <= 3, "the beginning of the history, and what was missed between the two"


async def test_young_ids_are_not_judged(database_url: str, tmp_path: Path) -> None:
    """Prevents a trade that is still on its way to REST from being given up for good."""
    async with (
        open_market() as (market, kraken),
        collecting(settings_for(kraken, database_url, tmp_path / "spool")) as collector,
    ):
        await wait_until(lambda: count(database_url, TRADE_COUNT) > 60)
        kraken.faults.drop("trade", PAIR, times=1)
        hidden = len(market.history)
        market.lacks = set(range(hidden, hidden + 20))
        await wait_until(lambda: collector.statistics.missing_trades.total() > 0)
        asked = len(market.asked)
        await wait_until(lambda: len(market.asked) > asked + 2)
        assert count(database_url, ABSENT) == 0
        market.lacks = set()
        await until_whole(database_url, 100)


async def test_history_goes_on_after_a_restart(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents a history of days from beginning anew with each deployment, and trades from before it."""
    async with open_market() as (market, kraken):
        begin = market.history[500].time // 1000 * 1000 + 1000
        since = datetime.fromtimestamp(begin // 10**9, UTC) + timedelta(microseconds=begin % 10**9 // 1000)
        first = next(trade.trade_id for trade in market.history if trade.time >= begin)
        settings = settings_for(kraken, database_url, tmp_path / "spool", backfill_since=since)
        with monkeypatch.context() as slow:
            slow.setattr(paced_rest, "REQUEST_SPACING", 0.5)
            async with collecting(settings) as collector:
                await wait_until(lambda: collector.statistics.repaired_trades >= 2000)
        assert not is_whole(database_url, 0)
        fetched = count(database_url, f"SELECT max(trade_id) FROM kraken_trades WHERE trade_id < {HISTORY - 100}")
        assert fetched >= first + 1999
        market.asked.clear()
        async with collecting(settings):
            await until_whole(database_url, HISTORY - first)
        assert stored_trades(database_url)[0].trade_id == first
        assert_complete(database_url, market, first)
        resumed = market.history[fetched - 1].time
        asked = [since or 0 for since in market.asked]
        assert resumed - 2_000 <= asked[0] <= resumed
        assert all(since >= resumed - 2_000 or since == begin - 1 for since in asked)


async def test_history_ends_at_an_earlier_collectors_rows(migrated_url: str, tmp_path: Path) -> None:
    """Prevents trades from being stored twice, once without an id and once with it."""
    async with open_market() as (market, kraken):
        adopted = expected(market.history[:3000])
        with psycopg.connect(migrated_url, autocommit=True) as connection, connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO kraken_trades VALUES (%s, %s, %s, %s, %s, %s)", [row[:-1] for row in adopted]
            )
        settings = settings_for(kraken, migrated_url, tmp_path / "spool", backfill_since=LONG_AGO)
        async with collecting(settings):
            await until_whole(migrated_url, HISTORY)
        with psycopg.connect(migrated_url) as connection:
            rows = connection.execute(f"{TRADES} WHERE trade_id IS NOT NULL ORDER BY trade_id").fetchall()
            unnumbered = connection.execute("SELECT count(*) FROM kraken_trades WHERE trade_id IS NULL").fetchone()
        same_instant = market.history[2999].time // 1000
        first = next(trade.trade_id for trade in market.history if trade.time // 1000 > same_instant)
        assert unnumbered == (3000,)
        assert_same([TradeEntry(*row) for row in rows], expected(market.history[first - 1 : first - 1 + len(rows)]))


async def test_what_waits_in_the_spool_is_not_missing(tmp_path: Path) -> None:
    """Prevents everything that was collected while the database was away from being fetched once more."""
    with own_postgres() as server:
        async with (
            open_market() as (market, kraken),
            collecting(settings_for(kraken, server.url(), tmp_path / "spool")) as collector,
        ):
            await wait_until(lambda: count(server.url(), TRADE_COUNT) > 60)
            await trio.to_thread.run_sync(server.stop)
            sent = len(market.history) + 20
            await wait_until(lambda: len(market.history) > sent and len(collector.spool.sealed) > 10)
            market.asked.clear()
            await trio.to_thread.run_sync(server.start)
            await until_whole(server.url(), 80)
            await wait_until(lambda: not collector.spool.sealed)
            assert collector.statistics.repaired_trades == 0
            assert market.asked == []


async def test_a_full_disk_only_puts_repair_off(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents a page of trades that found no room from crashing the collector, from being lost or stored twice."""
    append, refusals = Spool.append, []

    def append_without_room(spool: Spool, records: list[Record]) -> None:
        if len(refusals) < 3 and (spool.is_behind or len(records) == TRADES_LIMIT):
            spool._unwritten += records
            refusals.append(len(records))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(spool, records)

    async with open_market() as (market, kraken):
        monkeypatch.setattr(Spool, "append", append_without_room)
        settings = settings_for(kraken, database_url, tmp_path / "spool", backfill_since=LONG_AGO)
        with structlog.testing.capture_logs() as logs:
            async with collecting(settings):
                await until_whole(database_url, HISTORY)
        assert refusals[0] == TRADES_LIMIT
        assert len(refusals) == 3
        assert not [entry for entry in logs if entry["event"] == "crashed"]
        assert_complete(database_url, market)


async def test_what_did_not_fit_is_written_before_the_next_look(database_url: str, tmp_path: Path) -> None:
    """Prevents a standstill: while the spool is behind the intake is closed, and no batch of the feed writes it."""
    spool = Spool.open(tmp_path / "spool")
    spool._unwritten = [Trade("2026-08-24T12:00:00.000000Z", PAIR, b"1.0", b"1.0", "buy", "limit", 1)]
    async with open_market() as (_, kraken), trio.open_nursery() as nursery:
        settings = settings_for(kraken, database_url, tmp_path / "spool")
        nursery.start_soon(repair.repair, settings, AsyncValue(frozenset({PAIR})), spool, Statistics())
        await wait_until(lambda: spool.open_rows == 1)
        nursery.cancel_scope.cancel()
    assert not spool.is_behind
    spool.close()


async def test_settled_waits_for_all_that_was_appended(tmp_path: Path) -> None:
    """Prevents repair from asking too early, and from sending more than one page into a spool that is not shipped."""
    spool = Spool.open(tmp_path / "spool")
    trade = Trade("2026-08-24T12:00:00.000000Z", PAIR, b"1.0", b"1.0", "buy", "limit", 1)
    database = spool.identity
    done: list[int] = []

    async def wait(number: int) -> None:
        await settled(spool)
        done.append(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, 1)
        await trio.sleep(0.1)
        assert done == [], "no database was met, so that nothing can be asked"
        spool.database = database
        await wait_until(lambda: done == [1])
        spool.append([trade])
        nursery.start_soon(wait, 2)
        await trio.sleep(0.1)
        Spool.sync(spool.seal())
        spool.append([trade])
        await trio.sleep(0.1)
        assert done == [1], "the segment is sealed, and not shipped"
        spool.forget(next(iter(spool.sealed)))
        await wait_until(lambda: done == [1, 2])
    spool.close()
