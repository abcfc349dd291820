"""Ranges of time: read, cut and compared. Pure; times are UTC without a zone, as the tables have them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from collector.kraken.times import EPOCH


class Span(NamedTuple):
    """From `since` up to before `until`; None is without a bound."""

    since: datetime | None
    until: datetime | None


def read_span(since: datetime | None, until: datetime | None) -> Span:
    """A range that is given by aware times.

    Raises:
        ValueError: a time has no zone, or `until` is not after `since`.

    """
    if (since is not None and since.tzinfo is None) or (until is not None and until.tzinfo is None):
        raise ValueError("a time needs a zone, such as datetime(2026, 11, 24, tzinfo=UTC)")
    if since is not None and until is not None and until <= since:
        raise ValueError(f"until ({until}) must be after since ({since})")
    return Span(*(None if bound is None else bound.astimezone(UTC).replace(tzinfo=None) for bound in (since, until)))


def within(span: Span, first: datetime, last: datetime) -> Span | None:
    """The part of a range that is between two times; None where that is none."""
    since = first if span.since is None else max(first, span.since)
    until = last if span.until is None else min(last, span.until)
    return Span(since, until) if since < until else None


def parts(span: Span | None, length: timedelta) -> Iterator[tuple[datetime, datetime]]:
    """A range that has both bounds, cut at the multiples of a length, counted from 1970-01-01."""
    begin, until = span or (None, None)
    epoch = EPOCH.replace(tzinfo=None)
    while begin is not None and until is not None and begin < until:
        end = min(until, epoch + ((begin - epoch) // length + 1) * length)
        yield begin, end
        begin = end
