"""Candles for the page: a fixed number of each of a few widths, read once for all who look at them."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NamedTuple

import msgspec
import trio

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


class CandleCache:
    """The latest candles of each pair and width that were asked for; past ones are read each time."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._found: dict[tuple[str, str], tuple[float, Candles]] = {}
        self._locks: dict[tuple[str, str], trio.Lock] = {}

    async def candles(self, pair: str, width: Width, until: datetime | None) -> Candles:
        """The candles of a width up to a time, or to now.

        Raises:
            StorageUnavailable, UnusableDatabase: as the reader does.

        """
        if until is not None:
            return await self._read(pair, width, until)
        key = pair, width.name
        async with self._locks.setdefault(key, trio.Lock()):  # who asks for the same meanwhile waits for this answer
            read_at, found = self._found.get(key, (0.0, None))
            if found is None or trio.current_time() - read_at > width.fresh_for:
                found = await self._read(pair, width, datetime.now(UTC))
                self._found[key] = trio.current_time(), found
        return found

    async def _read(self, pair: str, width: Width, until: datetime) -> Candles:
        since = range_start(until, width)
        query = partial(
            queries.candles,
            pair=pair,
            width=width.width,
            since=since.replace(tzinfo=None),
            until=until.replace(tzinfo=None),
        )
        rows = candle_rows(await self._reader.read(query))
        return Candles(since.timestamp(), until.timestamp(), width.width.total_seconds(), width.fresh_for, rows)


def range_start(until: datetime, width: Width) -> datetime:
    """When the first of the candles begins of which the last holds `until`; as kraken_candles counts, from 1970."""
    last = until - (until - EPOCH) % width.width
    return last - (width.shown - 1) * width.width
