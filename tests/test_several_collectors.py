"""Several collectors of the same pairs and one database: each pair is collected by one of them, and moves unharmed."""

from pathlib import Path

import psycopg
import pytest
import trio
from collecting import collecting, count, open_kraken, open_market, settings_for, wait_until

from collector import spread
from collector.pipeline import Collector

PAIRS = ("BTC/USD", "ETH/USD", "SOL/USD", "ADA/USD", "XRP/USD", "DOGE/USD", "LTC/USD", "DOT/USD")
GAPS = "SELECT count(*) FROM kraken_gaps"
LIVING = "SELECT count(*) FROM collector_members"


def pairs_of(collector: Collector) -> frozenset[str]:
    return collector._assignment.pairs.value


def collected_by(collector: Collector) -> frozenset[str]:
    return frozenset() if collector._books is None else collector._books.collected()


async def test_pairs_move_without_a_hole(migrated_url: str, tmp_path: Path) -> None:
    """Prevents a second worker, at its start or at its orderly stop, from costing any pair a moment of its data."""
    async with open_market(PAIRS, rate=200.0) as market, open_kraken(market) as kraken:
        settings = settings_for(kraken, migrated_url, tmp_path / "first", pairs=PAIRS)
        async with collecting(settings) as first:
            await wait_until(lambda: collected_by(first) == set(PAIRS))
            async with collecting(settings.model_copy(update={"spool_dir": tmp_path / "second"})) as second:
                await wait_until(lambda: bool(collected_by(second)) and not collected_by(first) & collected_by(second))
                await wait_until(lambda: collected_by(first) | collected_by(second) == set(PAIRS))
                assert pairs_of(first) | pairs_of(second) == set(PAIRS)
                moved = pairs_of(second)
                assert 0 < len(moved) < len(PAIRS)
                await trio.sleep(0.5)
            await wait_until(lambda: collected_by(first) == set(PAIRS))
            await wait_until(lambda: count(migrated_url, LIVING) == 1)
            assert count(migrated_url, GAPS) == 0
    ended = """
        SELECT pair, array_agg(DISTINCT end_reason) FROM kraken_coverage
        WHERE channel = 'book' AND spool = %s GROUP BY pair
    """
    with psycopg.connect(migrated_url) as connection:
        reasons = dict(connection.execute(ended, [first.spool.identity]).fetchall())
    assert {pair for pair, of_pair in reasons.items() if "yielded" in of_pair} == moved


async def test_sockets_are_independent(migrated_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents the loss of one connection from costing the pairs of another."""
    monkeypatch.setattr(spread, "PAIRS_A_SOCKET", len(PAIRS) // 2)
    async with (
        open_market(PAIRS, rate=200.0) as market,
        open_kraken(market) as kraken,
        collecting(settings_for(kraken, migrated_url, tmp_path, pairs=PAIRS)) as collector,
    ):
        await wait_until(lambda: collected_by(collector) == set(PAIRS))
        assert collector.statistics.connections == 2
        kraken.faults.connections[1].close(1012)
        await wait_until(lambda: collector.statistics.connections == 3)
        await wait_until(lambda: collected_by(collector) == set(PAIRS))
    ended = "SELECT DISTINCT pair FROM kraken_coverage WHERE end_reason = 'closed_1012'"
    with psycopg.connect(migrated_url) as connection:
        assert len(connection.execute(ended).fetchall()) == len(PAIRS) // 2
