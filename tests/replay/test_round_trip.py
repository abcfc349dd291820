"""What was collected, replayed and collected again is what was collected."""

from pathlib import Path

import pytest
from collecting import DEADLINE, collecting, count, open_kraken, open_market, settings_for, wait_until
from conftest import new_database
from embedded import EmbeddedPostgres
from replaying import open_replay
from stored import assert_same, coverage, entries, stored_books, stored_trades, verify_checksums

from collector.backoff import Backoff
from collector.kraken.server.source import format_nanoseconds
from collector.replay.moments import moment
from collector.tasks import repair

PAIRS = ("BTC/USD", "ETH/USD", "XRP/USD")
FROM_KRAKEN = "SELECT count(*) FROM kraken_orderbook WHERE type = 'update' OR seq = 0"
TRADES = "SELECT count(*) FROM kraken_trades WHERE event_time >= '{}'"
HOLE = 2.0  # seconds, in which more is traded than the 50 that a new subscription is shown


async def test_collecting_from_a_replay_stores_the_same_rows(
    postgres_server: EmbeddedPostgres, migrated_template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents a replay that leaves out, repeats, reorders or rewrites anything, also around a hole.

    Chains have other numbers, since those are given by the clock of whoever collects. The collector's own checkpoints
    are others, since it makes them by its own count. Of the trades from before the first subscription it gets the last
    50, as from Kraken, which may be some less than the first collector got.
    """
    monkeypatch.setattr(repair, "SNAPSHOT_GRACE", 1.5)
    with (
        new_database(postgres_server, "first", migrated_template) as first,
        new_database(postgres_server, "second", migrated_template) as second,
    ):
        async with open_market(PAIRS, rate=1500) as source, open_kraken(source) as kraken:
            settings = settings_for(kraken, first, tmp_path / "first", pairs=PAIRS)
            async with collecting(settings) as collector:
                await wait_until(lambda: collector.statistics.rows > 1000)
                collector._attempts._backoffs[0] = Backoff(1, 1, 1, lambda _low, _high: HOLE)
                kraken.faults.close()
                await wait_until(lambda: collector.statistics.connections == 2)
                rows = collector.statistics.rows
                await wait_until(lambda: collector.statistics.rows > rows + 1000)
                await wait_until(lambda: collector.statistics.repaired_trades > 0)
                await wait_until(lambda: not collector.statistics.missing_trades.total())
        rows = count(first, FROM_KRAKEN)
        async with open_replay(first) as replay, open_kraken(replay) as kraken:
            starts = {pair: replay.market.stretches("trade", pair, 0)[0].start for pair in PAIRS}
            watched = TRADES.format(moment(max(starts.values())))
            trades = count(first, watched)
            settings = settings_for(kraken, second, tmp_path / "second", pairs=PAIRS)
            async with collecting(settings) as collector:
                await wait_until(lambda: count(second, FROM_KRAKEN) >= rows, 4 * DEADLINE)
                await wait_until(lambda: count(second, watched) >= trades, 4 * DEADLINE)
        assert collector.statistics.connections == 2
        assert not collector.statistics.desyncs
        lowest = {trade.pair: trade.trade_id for trade in reversed(stored_trades(second))}
        missing = [trade for trade in stored_trades(first) if trade.trade_id < lowest[trade.pair]]
        assert all(trade.event_time < format_nanoseconds(starts[trade.pair]) for trade in missing)
        assert_same(stored_trades(second), [trade for trade in stored_trades(first) if trade not in missing])
        chains, again = stored_books(first), stored_books(second)
        assert len(chains) == len(again) == 2 * len(PAIRS)
        for (key, rows_before), (key_again, rows_after) in zip(
            sorted(chains.items()), sorted(again.items()), strict=True
        ):
            assert key[0] == key_again[0]
            assert_same(entries(rows_after), entries(rows_before))
            verify_checksums(rows_after)
        ended = [(run.pair, run.end_reason) for run in coverage(second) if run.end_reason != "shutdown"]
        assert sorted(ended) == [(pair, "closed_1001") for pair in PAIRS]
