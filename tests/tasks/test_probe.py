"""The probe of books that have gone quiet: a dead subscription is found, a market that only sleeps is left alone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from collecting import Kraken, collecting, open_kraken, open_market, settings_for, wait_until
from stored import coverage

from collector.errors import RestError
from collector.kraken.rest import fetch_depth
from collector.pipeline import Collector
from collector.tasks import probe

PAIR = "BTC/USD"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pairs that REST was asked about; the probe looks often, and takes a short silence for a long one."""
    pairs: list[str] = []

    async def fetch_and_note(client: object, pair: str, levels: int) -> tuple[list[int], list[int]]:
        pairs.append(pair)
        return await fetch_depth(client, pair, levels)

    for name, value in (("INTERVAL", 0.05), ("QUIET_AFTER", 0.3), ("AGAIN_AFTER", 0.1), ("REQUEST_SPACING", 0.0)):
        monkeypatch.setattr(probe, name, value)
    monkeypatch.setattr(probe, "fetch_depth", fetch_and_note)
    return pairs


@asynccontextmanager
async def holding_a_book(url: str, spool: Path, rate: float) -> AsyncIterator[tuple[Collector, Kraken]]:
    """A collector that holds a book of a market."""
    async with (
        open_market(rate=rate) as market,
        open_kraken(market) as kraken,
        collecting(settings_for(kraken, url, spool)) as collector,
    ):
        await wait_until(lambda: collector._books is not None and bool(collector._books.held()))
        yield collector, kraken


async def test_subscription_that_died(migrated_url: str, tmp_path: Path, asked: list[str]) -> None:
    """Prevents a book of which nothing comes any more, on a living connection, from passing for a quiet market."""
    async with holding_a_book(migrated_url, tmp_path, rate=500) as (collector, kraken):
        kraken.faults.hold("book", PAIR)
        await wait_until(lambda: collector.statistics.desyncs["silent_subscription"] == 1)
        kraken.faults.release("book", PAIR)
        await wait_until(lambda: bool(collector._books.held()))
        assert collector.statistics.connections == 1
    assert len(asked) >= 2, "one answer proves nothing"
    assert coverage(migrated_url)[0].end_reason == "silent_subscription"


async def test_market_that_sleeps(migrated_url: str, tmp_path: Path, asked: list[str]) -> None:
    """Prevents a healthy book of a thin market from being ended again and again."""
    async with holding_a_book(migrated_url, tmp_path, rate=0.01) as (collector, _):
        await wait_until(lambda: len(asked) >= 3)
        assert not collector.statistics.desyncs
    assert [of.end_reason for of in coverage(migrated_url)] == ["shutdown"]


async def test_rest_that_is_away(
    migrated_url: str, tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents an error of REST from proving anything about a book, or from ending the task."""

    async def fail(_client: object, pair: str, _levels: int) -> None:
        asked.append(pair)
        raise RestError("away")

    monkeypatch.setattr(probe, "fetch_depth", fail)
    async with holding_a_book(migrated_url, tmp_path, rate=500) as (collector, kraken):
        kraken.faults.hold("book", PAIR)
        await wait_until(lambda: len(asked) >= 3)
        assert not collector.statistics.desyncs
