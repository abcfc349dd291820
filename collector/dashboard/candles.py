"""Candles for the page: a fixed number of each of a few widths."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec

from collector.dashboard import queries
from collector.dashboard.reader import Reader
from collector.dashboard.views import candle_rows


class Width(NamedTuple):
    """A width of candles, how many of them are shown, and how old they may be, in seconds."""

    name: str
    width: timedelta
    shown: int
    fresh_for: float


# Together no more than some weeks of trades: a candle takes in every trade, half a million of which take a second.
WIDTHS = (
    Width("1m", timedelta(minutes=1), 120, 2),
    Width("5m", timedelta(minutes=5), 120, 5),
    Width("15m", timedelta(minutes=15), 96, 10),
    Width("1h", timedelta(hours=1), 96, 20),
    Width("4h", timedelta(hours=4), 84, 60),
    Width("1d", timedelta(days=1), 30, 60),
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Candles(msgspec.Struct, frozen=True):
    """Candles as rows, and the range that they cover, in seconds since 1970.

    `width` and `fresh_for`, which is how old they may get, are in seconds.
    """

    since: float
    until: float
    width: float
    fresh_for: float
    candles: list[tuple[str, str, str, str, str, str, int]]


async def read_candles(reader: Reader, pair: str, width: Width, until: datetime) -> Candles:
    """The candles of a width up to a time.

    Raises:
        StorageUnavailable, UnusableDatabase: as the reader does.

    """
    since = range_start(until, width)
    bounds = since.replace(tzinfo=None), until.replace(tzinfo=None)
    found = await reader.read(lambda connection: queries.candles(connection, pair, width.width, *bounds))
    return Candles(
        since.timestamp(), until.timestamp(), width.width.total_seconds(), width.fresh_for, candle_rows(found)
    )


def range_start(until: datetime, width: Width) -> datetime:
    """When the first of the candles begins of which the last holds `until`; as kraken_candles counts, from 1970."""
    last = until - (until - EPOCH) % width.width
    return last - (width.shown - 1) * width.width
