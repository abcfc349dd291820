"""What the page is told, made from what is stored. Pure.

Prices and sizes are texts with the digits that Kraken sent; floats are for pictures only. Times are RFC 3339 in UTC.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal

import msgspec

from collector.dashboard.live_book import Sample
from collector.dashboard.queries import SILENT_AFTER, Candle, Channel, Gap, Run, StoredTrade
from collector.dashboard.reasons import NO_NEWS, explain
from collector.kraken.times import format_time
from collector.storage.members import CollectorState

LADDER_LEVELS = 20  # of each side: what fits on a screen
DEPTH_POINTS = 120  # of each side: more are not told apart in a picture

PriceSize = tuple[str, str]


class BookView(msgspec.Struct, frozen=True):
    """A book: the best levels of each side, and the sum of sizes at a price and better as [price, sum].

    `levels` counts all levels, bids then asks; `spread` and `middle` are None while a side is empty.
    """

    time: str
    bids: Sequence[PriceSize]
    asks: Sequence[PriceSize]
    bid_depth: Sequence[tuple[float, float]]
    ask_depth: Sequence[tuple[float, float]]
    levels: tuple[int, int]
    spread: str | None
    middle: str | None


class Health(msgspec.Struct, frozen=True):
    """How the collection of a pair does: one word, a sentence, and until when its book is known."""

    state: Literal["live", "silent", "ended", "never", "broken", "outage"]
    text: str
    covered_until: str | None = None


class CollectorView(msgspec.Struct, frozen=True):
    """A process that collects, its load (rows a second), and how many rows wait in its spool."""

    name: str
    is_available: bool
    pairs: Sequence[str]
    rows_per_second: int
    waiting_rows: int
    since: str


class GapView(msgspec.Struct, frozen=True):
    """A gap, and why it is one, in words; `until` is None while it goes on."""

    since: str
    until: str | None
    reason: str


class CoverageView(msgspec.Struct, frozen=True):
    """The coverage of a pair's channels in a range of time."""

    since: str
    until: str
    channels: Sequence["ChannelView"]


class ChannelView(msgspec.Struct, frozen=True):
    """The coverage of a channel; `share` is how much was seen from its beginning on, from 0 to 1, None of no time."""

    channel: str
    since: str
    until: str
    share: float | None
    gaps: Sequence[GapView]


def utc_text(moment: datetime) -> str:
    """A time of the tables, which is UTC without a zone."""
    return format_time(moment.replace(tzinfo=UTC))


def clock(moment: datetime) -> str:
    """A time of the tables, for a person."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def digits(number: Decimal) -> str:
    """All digits in plain notation: `str` would write a small size as 1E-8."""
    return f"{number:f}"


def book_view(time: str, bids: Sequence[PriceSize], asks: Sequence[PriceSize]) -> BookView:
    """A book, of all its levels, best first."""
    spread = middle = None
    if bids and asks:
        bid, ask = Decimal(bids[0][0]), Decimal(asks[0][0])
        spread, middle = digits(ask - bid), digits((ask + bid) / 2)
    return BookView(
        time,
        bids[:LADDER_LEVELS],
        asks[:LADDER_LEVELS],
        _depth(bids),
        _depth(asks),
        (len(bids), len(asks)),
        spread,
        middle,
    )


def _depth(levels: Sequence[PriceSize]) -> list[tuple[float, float]]:
    step = -(-len(levels) // DEPTH_POINTS) or 1
    total, points = 0.0, []
    for number, (price, size) in enumerate(levels, start=1):
        total += float(size)
        # The best levels are what a person looks at; the last one ends the picture.
        if number <= LADDER_LEVELS or number % step == 0 or number == len(levels):
            points.append((float(price), total))
    return points


def health(run: Run | None) -> Health:
    """How the collection of a pair's book does, by the run that reaches furthest."""
    if run is None:
        return Health("never", "Nobody has watched this book yet.")
    until = utc_text(run.last_at)
    if run.ended_at is not None:
        return Health("ended", f"Not collecting since {clock(run.last_at)}: {explain(run.end_reason)}.", until)
    if run.now - run.last_at > SILENT_AFTER:
        text = f"No news since {clock(run.last_at)}: the collector has stopped, or its rows wait for the database."
        return Health("silent", text, until)
    text = f"Collecting without a gap since {clock(run.started_at)}."
    if run.suspect_since is not None:
        text += f" An audit found the book wrong below its ten best levels since {clock(run.suspect_since)}."
    return Health("live", text, until)


def trade_rows(trades: Iterable[StoredTrade]) -> list[tuple[int | None, str, str, str, str, str]]:
    """Trades as [id, time, side, price, volume, order type]."""
    return [
        (trade_id, utc_text(event_time), side, digits(price), digits(volume), order_type)
        for trade_id, event_time, side, price, volume, order_type in trades
    ]


def candle_rows(candles: Iterable[Candle]) -> list[tuple[str, str, str, str, str, str, int]]:
    """Candles as [time, open, high, low, close, volume, trades]."""
    return [
        (utc_text(bucket), digits(first), digits(high), digits(low), digits(last), digits(volume), trades)
        for bucket, first, high, low, last, volume, trades in candles
    ]


def sample_rows(samples: Iterable[Sample]) -> list[tuple[int, float | None, int]]:
    """Samples as [second since 1970, spread, updates]."""
    return [(second, spread, updates) for second, spread, updates in samples]


def coverage_view(channels: Iterable[Channel], since: datetime, now: datetime) -> CoverageView:
    """The coverage of channels from a time until now, with the gaps that go on now."""
    return CoverageView(utc_text(since), utc_text(now), [_channel_view(channel, now) for channel in channels])


def _channel_view(channel: Channel, now: datetime) -> ChannelView:
    gaps = [_gap_view(gap) for gap in channel.gaps]
    if channel.end_reason is not None:
        gaps.insert(0, _gap_view(Gap(channel.last_at, None, channel.end_reason)))
    elif now - channel.last_at > SILENT_AFTER:
        gaps.insert(0, _gap_view(Gap(channel.last_at, None, NO_NEWS)))
    share = None if channel.share is None else float(channel.share)
    return ChannelView(channel.name, utc_text(channel.started_at), utc_text(channel.last_at), share, gaps)


def _gap_view(gap: Gap) -> GapView:
    ended_at = None if gap.ended_at is None else utc_text(gap.ended_at)
    return GapView(utc_text(gap.started_at), ended_at, explain(gap.reason))


def collector_views(collectors: Iterable[CollectorState]) -> list[CollectorView]:
    """The processes that collect."""
    return [
        CollectorView(
            collector.name,
            collector.is_available,
            collector.pairs,
            collector.rows_per_second,
            collector.waiting_rows,
            utc_text(collector.started_at),
        )
        for collector in collectors
    ]
