"""What an exported file says of itself: what it holds, and how much of its time was watched. Pure.

By this a finished file is known again: one that says the same as what would be written now is not written again.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

import msgspec

from collector.history.chains import covered
from collector.history.spans import Span
from collector.kraken.times import format_time, read_time
from collector.verification.checks import StoredRun

LAYOUT = 1  # of the columns and of this document: a file of another layout is another file


class Covered(msgspec.Struct, frozen=True, omit_defaults=True):
    """A part of a file's time of which there is verified data, the end included.

    Attributes:
        chain: the number of the run, as in kraken_coverage and in the rows of books.
        since: when it begins, at the file's beginning or later.
        until: up to when it is complete.
        end_reason: why it ended there; left out where it goes on.
        suspect_since: since when a book may be wrong below its ten best levels, as an audit found.

    """

    chain: int
    since: str
    until: str
    end_reason: str | None = None
    suspect_since: str | None = None


class Document(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a file says of itself; it holds what happened from `since` up to before `until`.

    Attributes:
        layout: `LAYOUT`.
        stored_trades: how many trades were stored of that time, for what is made of trades.
        rows: how many rows the file has.
        missing: a line for each place where rows of a book are missing from the database, and from the file. Such a
            file never counts as finished, so that it is told each time, and mended once they are there.

    """

    layout: int
    what: str
    pair: str
    since: str
    until: str
    options: Mapping[str, str]
    coverage: list[Covered]
    stored_trades: int | None = None
    rows: int | None = None
    missing: list[str] = msgspec.field(default_factory=list)

    def is_of_same_file(self, other: "Document") -> bool:
        """Whether both are about the same rows, though they may have been written at different times."""
        return all(
            getattr(self, field) == getattr(other, field)
            for field in ("layout", "what", "pair", "since", "until", "options")
        )

    def says_the_same(self, other: "Document") -> bool:
        """Whether what is stored has not changed between the two."""
        return msgspec.structs.replace(self, rows=None) == msgspec.structs.replace(other, rows=None)

    def holds_more_than(self, other: "Document") -> bool:
        """Whether the other lacks what this one was made of, as when retention has dropped days since."""
        return (self.stored_trades or 0) > (other.stored_trades or 0) or _duration(self) > _duration(other)


def encode(document: Document) -> bytes:
    """A document as JSON, on one line."""
    return msgspec.json.encode(document)


def decode(text: bytes) -> Document | None:
    """Read what `encode` wrote; None of anything else."""
    try:
        return msgspec.json.decode(text, type=Document)
    except msgspec.DecodeError:
        return None


def covered_parts(runs: Iterable[StoredRun], channel: str, span: Span) -> list[Covered]:
    """The parts of a range that the runs of a channel cover."""
    parts = []
    for run in runs:
        part = covered(run, span)
        if run.channel != channel or part is None or part.since is None or part.until is None:
            continue
        ends_here = run.ended_at is not None and datetime.fromisoformat(run.ended_at) <= part.until
        suspect = None if run.suspect_since is None else datetime.fromisoformat(run.suspect_since)
        if suspect is not None and suspect > part.until:
            suspect = None
        parts.append(
            Covered(
                run.chain,
                time_text(part.since),
                time_text(part.until),
                run.end_reason if ends_here else None,
                None if suspect is None else time_text(suspect),
            )
        )
    return parts


def _duration(document: Document) -> timedelta:
    parts = document.coverage
    return sum((read_time(part.until) - read_time(part.since) for part in parts), start=timedelta())


class Gap(NamedTuple):
    """A part of a range that nobody watched, and why the run before it ended."""

    since: str
    until: str
    reason: str | None


def gaps(parts: Iterable[Covered], span: Span) -> list[Gap]:
    """What is between the covered parts of a range, and before and behind them where the range has bounds."""
    stretches: list[Covered] = []
    if span.since is not None:
        stretches.append(Covered(0, "", time_text(span.since)))
    for part in sorted(parts, key=lambda part: part.since):
        if stretches and part.until <= stretches[-1].until:
            continue
        stretches.append(part)
    if span.until is not None:
        stretches.append(Covered(0, time_text(span.until), ""))
    return [
        Gap(before.until, after.since, before.end_reason)
        for before, after in pairwise(stretches)
        if before.until < after.since
    ]


def time_text(moment: datetime) -> str:
    """A time in UTC without a zone, in the collector's one width."""
    return format_time(moment.replace(tzinfo=UTC))
