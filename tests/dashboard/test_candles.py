"""Which range candles are read for, and that many who ask cost one query."""

from datetime import UTC, datetime

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from simulated_store import simulate, store

from collector.dashboard.candles import EPOCH, WIDTHS, CandleCache, Width, range_start
from collector.dashboard.queries import Candle
from collector.dashboard.reader import Reader


@given(st.datetimes(datetime(2013, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)), st.sampled_from(WIDTHS))  # noqa: DTZ001 - hypothesis adds the zone
def test_range_holds_whole_candles_and_the_time(until: datetime, width: Width) -> None:
    """Prevents a first candle that is cut, and a last one that is not there."""
    since = range_start(until, width)
    assert (since - EPOCH) % width.width == 0 * width.width
    assert (width.shown - 1) * width.width <= until - since < width.shown * width.width


async def test_many_who_ask_cost_one_query(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a database that is asked for the same chart by every open page."""
    store(migrated_url, simulate(("BTC/USD",), count=300))
    reader = Reader(migrated_url)
    reads = 0
    read = reader.read

    async def counted(query: object) -> object:
        nonlocal reads
        reads += 1
        return await read(query)

    monkeypatch.setattr(reader, "read", counted)
    cache = CandleCache(reader)
    width = WIDTHS[-1]._replace(shown=10_000)  # the simulated trades are of a day long ago
    answers: list[object] = []

    async def ask() -> None:
        answers.append(await cache.candles("BTC/USD", width, None))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(ask)
    assert (reads, len(answers)) == (1, 20)
    assert len(answers[0].candles) >= 1
    assert all(len(row) == len(Candle._fields) for row in answers[0].candles)
    reader.close()
