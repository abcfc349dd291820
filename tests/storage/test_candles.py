"""Candles from SQL: equal to what plain Python makes of the same trades."""

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import NamedTuple

import psycopg
import pytest

from collector.storage.database import Connection, connect

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - UTC without zone, like the column
START = datetime(2026, 8, 24, 23, 59, 58)  # noqa: DTZ001 - likewise
PAIR = "BTC/USD"


class Row(NamedTuple):
    time: datetime
    pair: str
    price: Decimal
    volume: Decimal
    trade_id: int


@pytest.fixture
def connection(migrated_url: str) -> Iterator[Connection]:
    with connect(migrated_url, application_name="tests") as opened:
        yield opened


@pytest.fixture
def trades(connection: Connection) -> list[Row]:
    """Two hours of two pairs' trades, many at one time, stored in no order."""
    chance = random.Random(7)
    rows = []
    for trade_id in range(1, 3001):
        # Ids rise with time, and bursts share one; some are on the very edge of a bucket.
        time = START + timedelta(seconds=trade_id // 4 * 10, microseconds=chance.choice([0, 0, 0, 1, 999_999]))
        price = Decimal(chance.randint(1, 10**6)).scaleb(-chance.randint(0, 8))
        rows.append(
            Row(time, chance.choice([PAIR, "ETH/USD"]), price, Decimal(chance.randint(1, 10**9)) / 10**8, trade_id)
        )
    chance.shuffle(rows)
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO kraken_trades VALUES (%s, %s, %s, %s, 'buy', 'limit', %s)", rows)
    return rows


def candles(connection: Connection, width: str, since: datetime, until: datetime) -> list[tuple[str, ...]]:
    rows = connection.execute("SELECT * FROM kraken_candles(%s, %s::interval, %s, %s)", [PAIR, width, since, until])
    return [tuple(str(value) for value in row) for row in rows]


def expected(rows: list[Row], width: timedelta, since: datetime, until: datetime) -> list[tuple[str, ...]]:
    own = sorted(
        (row for row in rows if row.pair == PAIR and since <= row.time < until),
        key=lambda row: (row.time, row.trade_id),
    )
    made = []
    for bucket, group in groupby(own, key=lambda row: EPOCH + (row.time - EPOCH) // width * width):
        members = list(group)
        prices = [row.price for row in members]
        volume = sum((row.volume for row in members), Decimal(0))
        values = (bucket, prices[0], max(prices), min(prices), prices[-1], volume, len(members))
        made.append(tuple(str(value) for value in values))
    return made


@pytest.mark.parametrize(
    "width",
    [
        timedelta(microseconds=7),
        timedelta(seconds=1),
        timedelta(seconds=10),
        timedelta(minutes=1),
        timedelta(minutes=7, microseconds=1),
        timedelta(hours=1),
        timedelta(days=1),
        timedelta(days=7),
        timedelta(days=1000, seconds=1),
    ],
)
def test_candles_are_those_of_the_trades(connection: Connection, trades: list[Row], width: timedelta) -> None:
    """Prevents a trade on the edge of a bucket, or one of several at the same time, from being counted wrong."""
    since, until = START + timedelta(seconds=33), START + timedelta(hours=1, microseconds=1)
    seconds = f"{width // timedelta(microseconds=1)} microseconds"
    assert candles(connection, seconds, since, until) == expected(trades, width, since, until)


def test_months_and_years_go_by_the_calendar(connection: Connection) -> None:
    """Prevents a monthly candle from drifting through the months, and one of February from being empty."""
    times = ["1969-12-31 23:59", "1970-01-01", "2024-01-31", "2024-02-29 23:59:59.999999", "2024-03-01", "2024-12-31"]
    for trade_id, time in enumerate(times):
        connection.execute(
            "INSERT INTO kraken_trades VALUES (%s, %s, 1, 1, 'buy', 'limit', %s)", [time, PAIR, trade_id]
        )
    since, until = datetime(1900, 1, 1), datetime(2030, 1, 1)  # noqa: DTZ001 - UTC without zone
    found = {
        width: [(row[0][:10], row[-1]) for row in candles(connection, width, since, until)]
        for width in ("1 month", "3 months", "1 year")
    }
    months = ["1969-12-01", "1970-01-01", "2024-01-01", "2024-02-01", "2024-03-01", "2024-12-01"]
    assert found["1 month"] == [(month, "1") for month in months]
    assert found["3 months"] == [("1969-10-01", "1"), ("1970-01-01", "1"), ("2024-01-01", "3"), ("2024-10-01", "1")]
    assert found["1 year"] == [("1969-01-01", "1"), ("1970-01-01", "1"), ("2024-01-01", "4")]


def test_trades_of_an_earlier_collector_count(connection: Connection) -> None:
    """Prevents rows without a trade id from being left out of the candles."""
    for price in (1, 2):
        connection.execute("INSERT INTO kraken_trades VALUES ('2024-01-01', %s, %s, 1, 'buy', 'limit')", [PAIR, price])
    ((_, _, high, low, _, volume, count),) = candles(connection, "1 day", EPOCH, START)
    assert (high, low, volume, count) == ("2", "1", "2", "2")


@pytest.mark.parametrize("width", ["0 seconds", "-1 minute", "-1 month", "1 month 1 day", "1 month -30 days"])
def test_width_that_is_none_is_refused(connection: Connection, width: str) -> None:
    """Prevents a width that no bucket can have from reading like a market without trades."""
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="width of a candle"):
        candles(connection, width, EPOCH, START)
