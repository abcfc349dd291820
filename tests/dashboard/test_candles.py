"""Candles: which range they are read for, and that they are those of the database."""

from datetime import UTC, datetime, timedelta

import psycopg
from hypothesis import given
from hypothesis import strategies as st
from simulated_store import simulate, store

from collector.dashboard.candles import EPOCH, WIDTHS, Width, range_start, read_candles
from collector.dashboard.reader import Reader


@given(st.datetimes(datetime(2013, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)), st.sampled_from(WIDTHS))  # noqa: DTZ001 - hypothesis adds the zone
def test_range_holds_whole_candles_and_the_time(until: datetime, width: Width) -> None:
    """Prevents a first candle that is cut, and a last one that is not there."""
    since = range_start(until, width)
    assert (since - EPOCH) % width.width == 0 * width.width
    assert (width.shown - 1) * width.width <= until - since < width.shown * width.width


async def test_candles_are_those_of_the_database(migrated_url: str) -> None:
    """Prevents candles of another range, or with other digits than are stored."""
    store(migrated_url, simulate(("BTC/USD",), count=300))
    with psycopg.connect(migrated_url) as connection:
        last, count = connection.execute("SELECT max(event_time), count(*) FROM kraken_trades").fetchone()
        trades = connection.execute("SELECT price::text FROM kraken_trades ORDER BY trade_id DESC LIMIT 1").fetchone()
    reader = Reader(migrated_url)
    until = last.replace(tzinfo=UTC) + timedelta(seconds=1)
    found = await read_candles(reader, "BTC/USD", WIDTHS[0], until)
    reader.close()
    assert (found.until, found.width) == (until.timestamp(), 60)
    assert found.candles[-1][4] == trades[0]
    assert sum(candle[6] for candle in found.candles) == count
