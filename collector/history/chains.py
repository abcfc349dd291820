"""The chains of a pair's book that have a part in a range of time, read from the database one after the other.

Each begins with the book as it was at the beginning of the range, so that what is read stands alone.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from collector.history.book_rows import (
    LATENESS,
    Effect,
    OnMissing,
    apply_row,
    effects,
    in_order,
    new_book,
    snapshot_after,
)
from collector.history.csv_lines import one_width
from collector.history.spans import Span
from collector.kraken.times import format_time, from_microseconds, microseconds
from collector.records import BookRow
from collector.storage.database import Connection
from collector.storage.stored_rows import Snapshot, last_snapshots, rows_since
from collector.storage.stored_runs import stored_runs
from collector.verification.checks import StoredRun

_LATENESS = timedelta(microseconds=LATENESS)
_NULL = b"\\N"


class Chain(NamedTuple):
    """A run of a pair's book, its rows in a range of time, and the part of the range that it covers.

    Times are microseconds since 1970; what is not covered begins behind `last`.
    """

    run: StoredRun
    first: int
    last: int
    rows: Iterator[Effect]


def runs_in(connection: Connection, pair: str, span: Span) -> list[StoredRun]:
    """The runs of both channels that cover a part of a range, by when they began."""
    runs = [run for run in stored_runs(connection, [pair], span.since, span.until) if covered(run, span) is not None]
    return sorted(runs, key=lambda run: (run.started_at, run.chain))


def covered(run: StoredRun, span: Span) -> Span | None:
    """The part of a range that a run covers, of which retention has left its rows; None where that is none."""
    begin, end = datetime.fromisoformat(run.started_at), datetime.fromisoformat(run.last_at)
    if run.dropped_before is not None:
        begin = max(begin, datetime.fromisoformat(run.dropped_before))
    if span.since is not None:
        begin = max(begin, span.since)
    if span.until is not None:
        end = min(end, span.until)
    return Span(begin, end) if begin <= end and (span.until is None or begin < span.until) else None


def chains_in(connection: Connection, pair: str, span: Span, on_missing: OnMissing) -> Iterator[Chain]:
    """The chains of a pair's book, by when they began; the rows of each must be read before the next one is taken."""
    for run in runs_in(connection, pair, span):
        part = covered(run, span)
        if run.channel == "book" and part is not None and part.since is not None and part.until is not None:
            rows = _chain_rows(connection, run, span, on_missing)
            yield Chain(run, _microseconds(part.since), _microseconds(part.until), rows)


def _chain_rows(connection: Connection, run: StoredRun, span: Span, on_missing: OnMissing) -> Iterator[Effect]:
    """The rows of a chain that take effect in a range, led by a snapshot.

    A chain that goes on from before the range begins with a snapshot as of its beginning, which has the seq and the
    checksum of the last row before it; a snapshot that is stored at just that time stands for itself.
    """
    base = _base(connection, run, span.since)
    end = None if span.until is None else span.until + _LATENESS
    stored = rows_since(connection, [base._replace(event_time=base.event_time - _LATENESS)], end)
    ordered = in_order(map(_book_row, stored), None if base.seq < 0 else base.seq, on_missing)
    since = None if span.since is None else _microseconds(span.since)
    until = None if span.until is None else _microseconds(span.until)
    book, last = new_book(), None
    for effect in effects(ordered):
        if until is not None and effect.at >= until:
            break
        if since is not None and effect.at < since:
            apply_row(book, effect.row)
            last = effect.row
            continue
        if last is not None and since is not None:
            if effect.at > since or effect.row.type != "snapshot":
                yield Effect(since, snapshot_after(book, last, format_time(from_microseconds(since))))
            last = None
        yield effect
    if last is not None and since is not None:  # it was quiet for the whole range
        yield Effect(since, snapshot_after(book, last, format_time(from_microseconds(since))))


def _base(connection: Connection, run: StoredRun, since: datetime | None) -> Snapshot:
    """Where to begin with a chain: at its last snapshot before the range, else at its first row that is left.

    Where rows were dropped, nobody knows the first seq: it is -1 then.
    """
    started_at = datetime.fromisoformat(run.started_at)
    if since is not None and started_at < since:
        found = last_snapshots(connection, [(run.pair, run.chain, run.started_at)], since)
        if found:
            return found[0]
    if run.dropped_before is not None and run.dropped_before > run.started_at:
        return Snapshot(run.pair, run.chain, -1, datetime.fromisoformat(run.dropped_before))
    return Snapshot(run.pair, run.chain, 0, started_at)


def _book_row(row: Sequence[bytes]) -> BookRow:
    """A row as PostgreSQL writes it, with its time in the collector's one width."""
    return BookRow(
        one_width(row[0].decode()),
        row[1].decode(),
        row[2],
        row[3],
        "snapshot" if row[4] == b"snapshot" else "update",
        int(row[5]),
        int(row[6]),
        int(row[7]),
        None if row[8] == _NULL else row[8],
    )


def _microseconds(moment: datetime) -> int:
    return microseconds(moment.replace(tzinfo=UTC))
