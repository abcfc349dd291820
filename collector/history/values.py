"""What the results of `collector.history` consist of in Python; each field is a column of the table of that kind."""

from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from collector.history.columns import Evicted
from collector.storage.history import PriceLevel


class MissingRows(UserWarning):
    """Rows of an order book are missing from the database: it is damaged; `verify` tells more."""


class DoesNotFit(ValueError):  # noqa: N818 - named by what happened, as the field does
    """A number has more digits than Arrow and Parquet take here, which do not round it."""


class Trade(NamedTuple):
    """A trade; `side` and `order_type` are those of the order that took. An earlier collector's has no id."""

    event_time: datetime
    price: Decimal
    volume: Decimal
    side: str
    order_type: str
    trade_id: int | None


class BookUpdate(NamedTuple):
    """A row of an order book: all levels of a snapshot, the changed ones of an update, where size 0 removes a level.

    `checksum` is Kraken's CRC32 of the book after the row; `evicted` are the prices that fell out of the collected
    depth by it. `chain` and `seq` say where it belongs: within a chain, seq counts without holes.
    """

    event_time: datetime
    bids: list[PriceLevel]
    asks: list[PriceLevel]
    type: str
    checksum: int
    chain: int
    seq: int
    evicted: Evicted | None


class LevelChange(NamedTuple):
    """What is on offer at a price from now on; `side` is `bid` or `ask`, and a size of 0 is nothing any more."""

    event_time: datetime
    chain: int
    seq: int
    side: str
    price: Decimal
    size: Decimal


class TopOfBook(NamedTuple):
    """The best levels of each side at a time, best first."""

    event_time: datetime
    chain: int
    bids: list[PriceLevel]
    asks: list[PriceLevel]


class Candle(NamedTuple):
    """Trades of the time from `bucket` on; `trades` is how many they are."""

    bucket: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    trades: int


class Run(NamedTuple):
    """An unbroken run of verified data of a channel, `book` or `trade`: a row of kraken_coverage."""

    started_at: datetime
    last_at: datetime
    pair: str
    channel: str
    chain: int
    updates: int
    rows: int
    ended_at: datetime | None
    end_reason: str | None
    dropped_before: datetime | None
    suspect_since: datetime | None


def top_of_book(event_time: datetime, chain: int, *numbers: Decimal | None) -> TopOfBook:
    """A sample from its columns, which go from the best level down: bid price, bid size, ask price, ask size."""
    bids, asks = (
        [
            PriceLevel(price, size)
            for price, size in zip(numbers[place::4], numbers[place + 1 :: 4], strict=True)
            if price is not None and size is not None
        ]
        for place in (0, 2)
    )
    return TopOfBook(event_time, chain, bids, asks)
