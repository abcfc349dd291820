"""A whole collector under load and under faults of everything around it: each row once, in order, none missing."""

import signal
from itertools import pairwise
from pathlib import Path

import pytest
import trio
from collecting import (
    BOOK_COUNT,
    TRADE_COUNT,
    collecting,
    count,
    open_kraken,
    open_market,
    own_postgres,
    settings_for,
    wait_until,
    worker,
)
from stored import (
    assert_prefixes,
    assert_same,
    coverage,
    entries,
    sent_books,
    sent_trades,
    stored_books,
    stored_trades,
    verify_checksums,
)

from collector.kraken.server.tape import TapeSource
from collector.kraken.simulator.simulation import simulated_frames
from collector.tasks import ship

MESSAGES = 100_000
# Without the collector's own checkpoints.
SENT_COUNT = f"""
SELECT ({TRADE_COUNT}) + (SELECT count(*) FROM kraken_orderbook WHERE type = 'update' OR seq = 0)
"""


@pytest.fixture(autouse=True)
def _find_database_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ship, "BACKOFF_CAP", 0.5)


@pytest.mark.parametrize("depth", [10, 1000])
async def test_hundred_thousand_messages_at_full_speed(depth: int, migrated_url: str, tmp_path: Path) -> None:
    """Prevents a burst from costing, repeating or reordering a single row."""
    frames = list(simulated_frames(["BTC/USD", "ETH/USD"], depth, seed=depth, count=MESSAGES))
    books, trades = sent_books(frames), sent_trades(frames)
    expected = sum(map(len, books.values())) + len(trades)
    async with open_kraken(TapeSource(frames)) as kraken:
        settings = settings_for(kraken, migrated_url, tmp_path, pairs="BTC/USD,ETH/USD", book_depth=depth)
        async with collecting(settings) as collector:
            await wait_until(lambda: collector.statistics.rows >= expected, 100)
            await wait_until(lambda: count(migrated_url, SENT_COUNT) == expected)
    assert collector.statistics.connections == 1, "the server had a client that keeps up"
    assert not collector.statistics.desyncs
    chains = stored_books(migrated_url)
    assert len(chains) == len(books)
    for (pair, _), rows in chains.items():
        assert_same(entries(rows), books[pair])
    assert_same(stored_trades(migrated_url), sorted(trades, key=lambda trade: (trade.pair, trade.trade_id)))
    checkpoints = sum(row.is_checkpoint for rows in chains.values() for row in rows)
    assert collector.statistics.stored_rows == expected + checkpoints
    assert collector.statistics.rows == expected + checkpoints


async def test_killed_under_load(migrated_url: str, tmp_path: Path) -> None:
    """Prevents a kill at any moment from costing an appended row, storing one twice, or leaving a run open."""
    async with open_market(rate=2000) as source, open_kraken(source) as kraken:
        settings = settings_for(kraken, migrated_url, tmp_path / "spool", flush_interval=0.01)
        for rows in (800, 10, 400, 600):
            before = count(migrated_url)
            with worker(settings, tmp_path / "log") as process:
                await wait_until(lambda more=before + rows: count(migrated_url) > more)
                process.process.kill()
                assert await process.exit_status() == -signal.SIGKILL
        before = count(migrated_url)
        with worker(settings, tmp_path / "log") as process:
            await wait_until(lambda: count(migrated_url) > before + 500)
            assert await process.stop() == 0
    chains = stored_books(migrated_url)
    assert len(chains) == 5
    assert_prefixes(chains, kraken.sent)
    assert sum(verify_checksums(rows) for rows in chains.values()) == count(migrated_url)
    runs = coverage(migrated_url)
    assert [run.end_reason for run in runs] == ["process_ended"] * 4 + ["shutdown"]
    assert {run.chain: run.rows for run in runs} == {chain: len(rows) for (_, chain), rows in chains.items()}
    assert_trades_are_prefixes(stored_trades(migrated_url), kraken.sent)
    assert all(run.is_ended for run in coverage(migrated_url, "trade"))


def assert_trades_are_prefixes(stored, sent) -> None:
    """Each stored trade was sent so, and where one of a connection is missing, so are those behind it."""
    trades = {connection: sent_trades(frames) for connection, frames in sent.items()}
    assert set(stored) <= {trade for of_connection in trades.values() for trade in of_connection}
    for connection, of_connection in trades.items():
        elsewhere = {trade for other, rest in trades.items() if other != connection for trade in rest}
        kept = [trade in set(stored) for trade in of_connection if trade not in elsewhere]
        assert kept == sorted(kept, reverse=True)


async def test_database_absent_at_start(tmp_path: Path) -> None:
    """Prevents a database that comes later than the collector from costing a row, or the collector its life."""
    with own_postgres() as database:
        database.stop()
        async with open_market() as source, open_kraken(source) as kraken:
            async with collecting(settings_for(kraken, database.url(), tmp_path)) as collector:
                await wait_until(lambda: collector.statistics.rows > 300)
                assert collector.statistics.stored_rows == 0
                database.start()
                await wait_until(lambda: collector.statistics.stored_rows > 400)
            assert_one_whole_run(database.url(), kraken)


async def test_database_stopped_under_way(tmp_path: Path) -> None:
    """Prevents an outage from costing a row, from storing one twice, or from breaking the run of the book."""
    with own_postgres() as database:
        async with open_market() as source, open_kraken(source) as kraken:
            async with collecting(settings_for(kraken, database.url(), tmp_path)) as collector:
                for how in (signal.SIGINT, signal.SIGKILL):
                    stored = collector.statistics.stored_rows
                    await wait_until(lambda stored=stored: collector.statistics.stored_rows > stored + 100)
                    await trio.to_thread.run_sync(database.stop, how)
                    rows = collector.statistics.rows
                    await wait_until(lambda rows=rows: collector.statistics.rows > rows + 200)
                    await trio.to_thread.run_sync(database.start)
                await wait_until(lambda: collector.spool.waiting_rows < 100)
            assert_one_whole_run(database.url(), kraken)


def assert_one_whole_run(url: str, kraken) -> None:
    """One connection, one chain, and all that was sent but an end of it, which was on its way when it stopped."""
    assert kraken.sent.keys() == {1}
    ((rows,), books) = stored_books(url).values(), sent_books(kraken.sent[1])
    stored = entries(rows)
    assert_same(stored, books["BTC/USD"][: len(stored)])
    (run,) = coverage(url)
    assert run.rows == len(rows) == count(url, BOOK_COUNT)
    assert run.end_reason == "shutdown"
    trades = stored_trades(url)
    assert_same(trades, sent_trades(kraken.sent[1])[: len(trades)])
    assert len(trades) == count(url, TRADE_COUNT)
    assert all(later.trade_id == earlier.trade_id + 1 for earlier, later in pairwise(trades))
