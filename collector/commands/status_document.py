"""What `status` says of a database: what is stale, what is open, how much of the last day was seen. Pure.

A pair is stale when what is known of its book or of its trades does not reach to within `STALE_AFTER` of now. That is
told by coverage, which moves with every heartbeat of the feed, and not by rows: a quiet market is not stale.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import msgspec

from collector.kraken.requests import Channel
from collector.selection import Selection
from collector.storage.backlog import Backlog
from collector.storage.row_counts import DAY, PairCounts
from collector.storage.status import ChannelSpan, Period, StoredStatus

# Longer than what mends itself: a takeover takes up to 15 s, a reconnect backs off for up to 30 s, and coverage of a
# quiet pair is written each 5 s. FLUSH_INTERVAL, which may be a minute itself, comes on top.
STALE_AFTER = timedelta(seconds=60)
# Pairs whose coverage ends this much earlier than the newest are not collected any more: somebody took them out.
FORMER_AFTER = timedelta(days=1)
# Time over which growth is measured at least: the first snapshots alone would make it look far too much.
SHORTEST_GROWTH = timedelta(hours=1)
CELLS = 24  # of the last day's bar: an hour each
CELL = DAY / CELLS

CHANNELS: tuple[Channel, ...] = ("book", "trade")


class Unwatched(msgspec.Struct, frozen=True):
    """A time of which there is no verified data; `until` is None while it goes on, `reason` where nobody told."""

    pair: str
    channel: str
    since: datetime | None
    until: datetime | None
    reason: str | None
    seconds: float | None


class Rows(msgspec.Struct, frozen=True):
    """Rows of trades and book together; hour and day are estimates."""

    minute: int
    hour: int
    day: int


class AuditResult(msgspec.Struct, frozen=True):
    """The latest audit of a pair's book, and how many of the last day's failed."""

    audited_at: datetime
    passed: bool
    differences: int
    failed: int


class PairStatus(msgspec.Struct, frozen=True):
    """A pair. Ages are seconds, None where there is nothing; `coverage` is of its book, within the last 24 hours.

    Attributes:
        trades_age: since the trades are known to be complete.
        book_age: since the book is known to be complete.
        coverage: the share of the time since the first run that was seen.
        cells: the same by the hour, the oldest first; None before the first run.
        missing_trades: trades of the last day whose ids are missing.
        checksum_failures: runs of the last day that ended by a wrong checksum.

    """

    pair: str
    stale: bool
    last_trade_at: datetime | None
    last_trade_age: float | None
    last_price: msgspec.Raw | None
    trades_age: float | None
    book_age: float | None
    rows: Rows
    coverage: float | None
    cells: list[float | None]
    missing_trades: int
    checksum_failures: int
    audit: AuditResult | None


class CollectorStatus(msgspec.Struct, frozen=True):
    """A process that collects now, by its own word of a moment ago: its host and process, what it collects, its load.

    It is not available, so that it is given no pairs, while it stops, and while Kraken is out of its reach.
    `waiting_rows` are those in its spool, `age` the seconds since it started.
    """

    name: str
    available: bool
    pairs: list[str]
    rows_per_second: int
    waiting_rows: int
    started_at: datetime
    age: float


class SpoolStatus(msgspec.Struct, frozen=True):
    """A spool that was shipped into this database, and how long ago that last happened."""

    spool: str
    last_segment: int
    shipped_at: datetime
    age: float


class Document(msgspec.Struct, frozen=True):
    """All that `status` says, as its JSON has it.

    Attributes:
        stale: whether any pair is, or whether there is none.
        collectors: the processes that collect now.
        open_gaps: pairs and channels of which nothing comes now.
        gaps: gaps of the last 24 hours that are over, the latest first.
        bytes_a_day: how much the tables grow; None as long as that is too early to tell.
        former_pairs: stored pairs that are not collected any more.

    """

    at: datetime
    origin: str | None
    stale: bool
    stale_after: float
    pairs: list[PairStatus]
    collectors: list[CollectorStatus]
    open_gaps: list[Unwatched]
    gaps: list[Unwatched]
    spools: list[SpoolStatus]
    backlog: Backlog | None
    bytes: int
    bytes_a_day: int | None
    former_pairs: list[str]


def expected_pairs(channels: Sequence[ChannelSpan], selection: Selection | None) -> list[str]:
    """The pairs that should be collected now: the selected ones, or, where nobody said (None), what was until lately.

    Of what a pattern stands for, too, only what was collected until lately is known here.
    """
    newest = max((span.last_at for span in channels), default=datetime.max)  # noqa: DTZ901 - UTC without zone
    lately = {span.pair for span in channels if span.last_at >= newest - FORMER_AFTER}
    return sorted(lately if selection is None else selection.wanted(lately))


def make_document(stored: StoredStatus, backlog: Backlog | None, flush_interval: float) -> Document:
    """Judge what is stored; `flush_interval` is that of the settings, in seconds."""
    stale_after = STALE_AFTER + timedelta(seconds=flush_interval)
    spans = {(span.pair, span.channel): span for span in stored.channels}
    pairs = [_pair_status(stored, pair, spans, stale_after) for pair in stored.pairs]
    return Document(
        _utc(stored.now),
        stored.origin,
        not pairs or any(pair.stale for pair in pairs),
        stale_after.total_seconds(),
        pairs,
        [
            CollectorStatus(*state[:-1], _utc(state.started_at), _age(stored.now, state.started_at))
            for state in stored.collectors
        ],
        _open_gaps(stored, spans, stale_after),
        _closed_gaps(stored, spans),
        [
            SpoolStatus(
                str(spool.spool), spool.last_segment, _utc(spool.shipped_at), _age(stored.now, spool.shipped_at)
            )
            for spool in stored.spools
        ],
        backlog,
        stored.sizes.database,
        _growth(stored),
        stored.former_pairs,
    )


def watched_share(merged: Sequence[Period], since: datetime, until: datetime) -> float:
    """How much of a time was watched, from 0 to 1; the periods do not overlap."""
    parts = (min(period.ended_at, until) - max(period.started_at, since) for period in merged)
    return sum((part for part in parts if part > timedelta()), timedelta()) / (until - since)


def merge(periods: Iterable[Period]) -> list[Period]:
    """The same time as periods that neither overlap nor touch, in order; each ends as that of them which ended last."""
    merged: list[Period] = []
    for period in sorted(periods, key=lambda period: (period.started_at, period.chain)):
        if merged and period.started_at <= merged[-1].ended_at:
            last = max(merged[-1], period, key=lambda period: (period.ended_at, period.chain))
            merged[-1] = last._replace(started_at=merged[-1].started_at)
        else:
            merged.append(period)
    return merged


def _pair_status(
    stored: StoredStatus,
    pair: str,
    spans: dict[tuple[str, Channel], ChannelSpan],
    stale_after: timedelta,
) -> PairStatus:
    book, trade = spans.get((pair, "book")), spans.get((pair, "trade"))
    last, audit = stored.last_trades.get(pair), stored.audits.get(pair)
    counts: PairCounts = stored.counts[pair]
    share, cells = _coverage(stored, book, stale_after)
    return PairStatus(
        pair,
        any(span is None or stored.now - span.last_at > stale_after for span in (book, trade)),
        None if last is None else _utc(last.event_time),
        None if last is None else _age(stored.now, last.event_time),
        None if last is None else msgspec.Raw(last.price.encode()),
        None if trade is None else _age(stored.now, trade.last_at),
        None if book is None else _age(stored.now, book.last_at),
        Rows(*(sum(both) for both in zip(counts.trades, counts.book, strict=True))),
        share,
        cells,
        counts.missing_trades,
        0 if book is None else book.checksum_failures,
        None if audit is None else AuditResult(_utc(audit.audited_at), audit.passed, audit.differences, audit.failed),
    )


def _coverage(
    stored: StoredStatus, book: ChannelSpan | None, stale_after: timedelta
) -> tuple[float | None, list[float | None]]:
    """The share of the last day, from the first run on, that was watched, and the same by cells.

    What is not stored yet, since it has only just happened, is no gap.
    """
    if book is None:
        return None, [None] * CELLS
    is_fresh = stored.now - book.last_at <= stale_after
    until = min(book.last_at, stored.now) if is_fresh else stored.now
    day_ago = stored.now - DAY
    since = max(book.first_at, day_ago)
    if since >= until:
        return None, [None] * CELLS
    periods = merge(stored.periods.get((book.pair, "book"), []))
    cells: list[float | None] = []
    for number in range(CELLS):
        start, end = max(day_ago + number * CELL, since), min(day_ago + (number + 1) * CELL, until)
        cells.append(watched_share(periods, start, end) if start < end else None)
    return watched_share(periods, since, until), cells


def _open_gaps(
    stored: StoredStatus, spans: dict[tuple[str, Channel], ChannelSpan], stale_after: timedelta
) -> list[Unwatched]:
    gaps = []
    for pair in stored.pairs:
        for channel in CHANNELS:
            span = spans.get((pair, channel))
            if span is None:
                gaps.append(Unwatched(pair, channel, None, None, "never_watched", None))
            elif span.end_reason is not None or stored.now - span.last_at > stale_after:
                age = _age(stored.now, span.last_at)
                gaps.append(Unwatched(pair, channel, _utc(span.last_at), None, span.end_reason, age))
    return gaps


def _closed_gaps(stored: StoredStatus, spans: dict[tuple[str, Channel], ChannelSpan]) -> list[Unwatched]:
    """What lies between the runs that reach into the last day, and behind the last one before it; the latest first."""
    gaps = []
    for (pair, channel), periods in stored.periods.items():
        span = spans[pair, channel]
        earlier = [] if span.earlier_at is None else [Period(span.earlier_at, span.earlier_at, 0, span.earlier_reason)]
        for before, after in pairwise(merge([*earlier, *periods])):
            if after.started_at > stored.now - DAY:
                lasted = (after.started_at - before.ended_at).total_seconds()
                since, until = _utc(before.ended_at), _utc(after.started_at)
                gaps.append(Unwatched(pair, channel, since, until, before.reason, lasted))
    return sorted(gaps, key=lambda gap: (gap.until, gap.pair, gap.channel), reverse=True)


def _utc(moment: datetime) -> datetime:
    """A time of the tables, which have no zone, for whoever reads the document."""
    return moment.replace(tzinfo=UTC)


def _age(now: datetime, then: datetime) -> float:
    """Seconds since then; none where Kraken's clock is ahead of the database's."""
    return max((now - then).total_seconds(), 0.0)


def _growth(stored: StoredStatus) -> int | None:
    """Bytes a day, as it was since yesterday's beginning, or since the first run where that is later."""
    began = max(min((span.first_at for span in stored.channels), default=stored.now), stored.sizes.since)
    elapsed = stored.now - began
    if elapsed < SHORTEST_GROWTH:
        return None
    trades = sum(counts.trades.day for counts in stored.counts.values()) * (stored.sizes.bytes_per_trade or 0.0)
    return round(stored.sizes.book_since * (DAY / elapsed) + trades * (DAY / min(elapsed, DAY)))
