"""Keeps what is stored of each chain a gapless beginning of it, whatever was lost on the way.

Something is lost when a segment was damaged on the disk, when the database was set back after it had committed one (a
failover to a standby that lagged, a restored backup), or when a row was set apart since PostgreSQL rejects it. Coverage
counts each run's rows, so that every segment can be held against the database: the rows that it brings are just those
that its coverage adds to what is stored. Where they are not, the run ends with what is stored of it, and the rows
behind the hole are kept in a file instead. Nothing is remembered from one segment to the next, since the database is
asked for each: so a restart, an outage and a backlog all end the same way.

A hole may have swallowed the ends of runs, too. So when one is found, every open run of the spool is ended there;
those that go on say so in a later segment, whose coverage opens them again.

Trades need none of this: they are stored by their ids, and repair finds and fetches those that are missing.
"""

from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec

from collector.records import SEGMENT_LOST, SPOOL_LOST, Coverage, Interrupted, Proof
from collector.storage.apart import Apart, KeptRow, file_of, keep
from collector.storage.book_lines import BookLine, Run, split_lines
from collector.storage.copy_text import escape
from collector.storage.database import Connection
from collector.storage.rejecting import ROW_REJECTED
from collector.storage.segments import Segment

_LAST_SEGMENT = "SELECT last_segment FROM collector_spools WHERE spool = %s FOR UPDATE"
_TIME = """to_char(run.{}, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
_STORED = f"""
SELECT pair, chain, {_TIME.format("started_at")}, {_TIME.format("last_at")}, updates, rows, end_reason
FROM kraken_coverage AS run WHERE channel = 'book' AND pair = ANY (%s) AND chain = ANY (%s)
"""  # noqa: S608 - the columns are constants


class Continued(NamedTuple):
    """What of a segment can be stored, which segments before it are lost, and one entry for each run set apart."""

    segment: Segment
    lost: range
    apart: list[Apart]


@dataclass(slots=True)
class _RunRows:
    """A book run: what is stored of it, what a segment says of it, and the rows that the segment brings."""

    stored: Coverage | None = None
    told: Coverage | None = None
    fitting: list[BookLine] = field(default_factory=list)
    behind: list[BookLine] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """How many rows will be stored of it."""
        return (self.stored.rows if self.stored else 0) + len(self.fitting)

    @property
    def is_broken(self) -> bool:
        """Whether rows are missing before the last one of the segment."""
        return bool(self.behind) or (self.told is not None and self.told.rows > self.rows)

    @property
    def is_cut(self) -> bool:
        """Whether the segment ends between rows and the coverage that they prove."""
        return not self.is_broken and (self.told is None or self.told.rows < self.rows)

    def take(self, row: BookLine) -> None:
        if not self.behind and row.seq == self.rows:
            self.fitting.append(row)
        else:
            self.behind.append(row)

    def proved(self, end_reason: str | None) -> Coverage | None:
        """The run as its stored rows prove it; None where there is none."""
        base = self.stored
        if base is None:
            if not self.fitting:
                return None
            (pair, chain), start = self.fitting[0].run, self.fitting[0].event_time
            base = Coverage(pair.decode(), "book", chain, start, start, 0, 0)
        last_at = max([base.last_at, *(row.event_time for row in self.fitting)])
        return msgspec.structs.replace(
            base,
            last_at=last_at,
            updates=base.updates + sum(row.type == "update" for row in self.fitting),
            rows=self.rows,
            ended_at=None if end_reason is None else last_at,
            end_reason=end_reason,
        )


def continue_runs(
    connection: Connection, segment: Segment, directory: Path, rejected: Container[Run] = ()
) -> Continued:
    """What can be stored of a segment, within the transaction that stores it.

    `rejected` are runs of which rows were taken out of it just now. What is set apart lies in a file in the spool's
    `directory`. A segment that is stored already comes back as it is.
    """
    last = connection.execute(_LAST_SEGMENT, [segment.header.spool]).fetchone()
    if last is not None and last[0] >= segment.header.number:
        return Continued(segment, range(0), [])
    lost = range(last[0] + 1, segment.header.number) if last is not None else range(0)
    told = _told(segment)
    if not segment.torn and not lost and _fits(segment, told, _stored(connection, told)):
        return Continued(segment, lost, [])
    rows = [BookLine.parse(line) for line in split_lines(segment.book)]
    stored = _stored(connection, {*told, *(row.run for row in rows)})
    runs = {run: _RunRows(stored.get(run), told.get(run)) for run in {*told, *(row.run for row in rows)}}
    for row in rows:
        runs[row.run].take(row)
    broken = {run for run, found in runs.items() if found.is_broken}
    coverage = [record for record in segment.coverage if not _is_of(record, broken)]
    apart: list[Apart] = []
    kept: list[KeptRow] = []
    is_cut = bool(segment.torn)
    for run, found in runs.items():
        if found.is_broken:
            reason = _why(found, ROW_REJECTED if run in rejected else SEGMENT_LOST)
            kept += [KeptRow("kraken_orderbook", reason, row.line.decode()) for row in found.behind]
            coverage += _end(found, reason)
            apart.append(Apart(run[0].decode(), run[1], reason, None, file_of(segment, directory)))
        elif found.is_cut:
            is_cut = True
            coverage += [state for state in [found.proved(None)] if state is not None]
    if lost:
        coverage.insert(0, Interrupted(SEGMENT_LOST))
    if is_cut:
        coverage.append(Interrupted(SEGMENT_LOST))
    if kept:
        keep(segment, directory, kept)
    book = [row.line for found in runs.values() for row in found.fitting]
    return Continued(msgspec.structs.replace(segment, book=book, coverage=coverage), lost, apart)


def _told(segment: Segment) -> dict[Run, Coverage]:
    """What a segment says of each book run in the end."""
    return {
        (escape(record.pair), record.chain): record
        for record in segment.coverage
        if isinstance(record, Coverage) and record.channel == "book"
    }


def _is_of(record: Proof, runs: Container[Run]) -> bool:
    return isinstance(record, Coverage) and record.channel == "book" and (escape(record.pair), record.chain) in runs


def _stored(connection: Connection, runs: Iterable[Run]) -> dict[Run, Coverage]:
    """Those of some book runs that the database has."""
    wanted = list(runs)
    if not wanted:
        return {}
    pairs, chains = [pair.decode() for pair, _ in wanted], [chain for _, chain in wanted]
    stored = {}
    for pair, chain, started_at, last_at, updates, rows, reason in connection.execute(_STORED, [pairs, chains]):
        ended_at = None if reason is None else last_at
        stored[escape(pair), chain] = Coverage(
            pair, "book", chain, started_at, last_at, updates, rows, ended_at, reason
        )
    return {run: stored[run] for run in wanted if run in stored}  # another pair may have a run of the same number


def _fits(segment: Segment, told: dict[Run, Coverage], stored: dict[Run, Coverage]) -> bool:
    """Whether a segment brings just as many book rows as its coverage adds to what is stored.

    Counted, not looked at, since this is done for every segment. Rows that were lost never make up for each other.
    """
    before = sum(run.rows for run in stored.values())
    return sum(block.count(b"\n") for block in segment.book) == sum(run.rows for run in told.values()) - before


def _why(found: _RunRows, reason: str) -> str:
    """Why a broken run ended: the first reason counts."""
    known = found.stored.end_reason if found.stored is not None else None
    return reason if known in (None, SPOOL_LOST) else str(known)


def _end(found: _RunRows, reason: str) -> list[Coverage]:
    """The end of a broken run, unless it has ended without a row of this segment, or has none at all."""
    state = found.proved(reason)
    if state is None or (not found.fitting and found.stored is not None and found.stored.end_reason == reason):
        return []
    return [state]
