"""What is stored, held against itself: book rows against their runs and their checksums, trade ids against each other.

Pure: rows, runs and ids come from the caller, in order. While a collector writes, the runs that are open when the
verification begins are checked up to the rows that they had then, since what is read later may lack earlier rows.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from collector.id_ranges import IdRange, without
from collector.records import SEGMENT_LOST, SPOOL_LOST
from collector.verification.chain_replay import ChainReplay, StoredRow
from collector.verification.findings import Finding, Findings, Kind, counted


class StoredRun(NamedTuple):
    """A row of kraken_coverage, with its times as PostgreSQL writes them (see `collector.records.Coverage`).

    The run's rows before `dropped_before` are gone by retention. From `suspect_since` on, its book may be wrong below
    its ten best levels: an audit failed.
    """

    pair: str
    channel: str
    chain: int
    started_at: str
    last_at: str
    updates: int
    rows: int
    ended_at: str | None
    end_reason: str | None
    dropped_before: str | None
    suspect_since: str | None


class TimeRange(msgspec.Struct, frozen=True):
    """From `since` up to before `until`, in UTC without a zone; None is without a bound."""

    since: datetime | None = None
    until: datetime | None = None

    def begins_after(self, time: str) -> bool:
        """Whether a stored time is before the range."""
        return self.since is not None and datetime.fromisoformat(time) < self.since

    def ends_by(self, time: str) -> bool:
        """Whether a stored time is behind the range."""
        return self.until is not None and datetime.fromisoformat(time) >= self.until

    def overlaps(self, run: StoredRun) -> bool:
        """Whether a part of a run is in the range."""
        return not self.begins_after(run.last_at) and not self.ends_by(run.started_at)


class BookVerification:
    """Replays the chains of `runs` from their rows.

    A chain that begins before the range is replayed from its last snapshot before it: its seq is in `starts`.
    """

    def __init__(
        self, runs: Iterable[StoredRun], starts: dict[tuple[str, int], int], span: TimeRange, findings: Findings
    ) -> None:
        self._runs = {(run.pair, run.chain): run for run in runs if run.channel == "book"}
        self._starts = starts
        self._span = span
        self._findings = findings
        self._replays: dict[tuple[str, int], ChainReplay] = {}
        # What no run accounts for: how many rows, the highest seq, and when the first of them was.
        self._unknown: dict[tuple[str, int], tuple[int, int, str]] = {}

    def take(self, rows: Iterable[StoredRow], *, in_range: bool = True) -> None:
        """Take rows in the order of their chains and seqs.

        Rows before the range, which only build its first books, are not counted.
        """
        pair = chain = b""
        replay: ChainReplay | None = None
        open_rows: int | None = None
        for row in rows:
            if row[6] != chain or row[1] != pair:
                pair, chain = row[1], row[6]
                key = pair.decode(), int(chain)
                replay, open_rows = self._open(key)
                tally = self._findings.of(key[0])
            try:
                if replay is None or (open_rows is not None and int(row[7]) >= open_rows):
                    self._note_unknown(key, row)
                else:
                    tally.book_rows += in_range
                    replay.take(row)
            except ValueError as error:
                finding = Finding("unreadable", key[0], key[1], None, row[0].decode(), str(error))
                self._findings.add(finding)

    def unknown_chains(self) -> list[int]:
        """The chains that have rows of which no run told when the verification began."""
        return [chain for _, chain in self._unknown]

    def finish(self, runs_now: Iterable[StoredRun]) -> None:
        """Hold what was replayed against the runs; `runs_now` are those of `unknown_chains` as they are by now."""
        for key, run in self._runs.items():
            self._findings.of(run.pair).chains += 1
            replay = self._replays.get(key)
            if replay is not None:
                replay.finish()
            for what in run_faults(run):
                self._tell("coverage", run, None, what)
            self._tell_suspect(run)
            self._compare(run, replay)
        self._compare_unknown({(run.pair, run.chain): run for run in runs_now if run.channel == "book"})

    def _open(self, key: tuple[str, int]) -> tuple[ChainReplay | None, int | None]:
        run = self._runs.get(key)
        if run is None:
            return None, None
        replay = self._replays.get(key)
        if replay is None:
            start = 0 if self._begins_in_range(run) else self._starts.get(key)
            replay = self._replays[key] = ChainReplay(run.pair, run.chain, start, self._findings)
        return replay, run.rows if may_go_on(run) else None

    def _begins_in_range(self, run: StoredRun) -> bool:
        dropped = run.dropped_before is not None and run.dropped_before > run.started_at
        return not dropped and not self._span.begins_after(run.started_at)

    def _note_unknown(self, key: tuple[str, int], row: StoredRow) -> None:
        rows, highest, time = self._unknown.get(key) or (0, 0, row[0].decode())
        self._unknown[key] = rows + 1, max(highest, int(row[7])), time

    def _tell_suspect(self, run: StoredRun) -> None:
        """Tell of the part of a run that an audit has found wrong, unless retention has dropped it."""
        since = run.suspect_since
        if since is None or self._span.ends_by(since) or (run.dropped_before or "") > run.last_at:
            return
        what = f"an audit failed: up to {run.last_at} its book may be wrong below the ten best levels"
        self._findings.add(Finding("suspect", run.pair, run.chain, None, since, what))

    def _compare(self, run: StoredRun, replay: ChainReplay | None) -> None:
        begins, ends = self._begins_in_range(run), not self._span.ends_by(run.last_at)
        if replay is None or replay.next is None:
            if begins and run.rows:
                self._tell(
                    "coverage_without_rows", run, None, f"coverage says {counted(run.rows, 'row')}, none is stored"
                )
            return
        if replay.next > run.rows or (ends and replay.next < run.rows):
            what = f"coverage says {counted(run.rows, 'row')}, the last one that is stored is seq {replay.next - 1}"
            self._tell("coverage", run, min(replay.next, run.rows), what)
        elif begins and ends and replay.is_whole and replay.updates != run.updates:
            what = f"coverage says {counted(run.updates, 'update')}, {replay.updates} stored"
            self._tell("coverage", run, None, what)
        first, last = replay.first_time.decode(), replay.last_time.decode()
        if begins and replay.is_whole and first != run.started_at:
            self._tell(
                "coverage", run, 0, f"coverage says that it began at {run.started_at}, its first row is of {first}"
            )
        if last > run.last_at:
            self._tell("coverage", run, None, f"coverage goes up to {run.last_at}, its last row is of {last}")

    def _compare_unknown(self, runs_now: dict[tuple[str, int], StoredRun]) -> None:
        for (pair, chain), (rows, highest, time) in self._unknown.items():
            run = runs_now.get((pair, chain))
            if run is None:
                what = f"{counted(rows, 'row')} of a chain that coverage does not have"
                self._findings.add(Finding("rows_without_coverage", pair, chain, None, time, what))
            elif not self._span.overlaps(run):
                what = f"{counted(rows, 'row')} outside of the time of the run, {run.started_at} to {run.last_at}"
                self._findings.add(Finding("coverage", pair, chain, None, time, what))
            elif highest >= run.rows:  # else they were written since the verification began
                what = f"coverage says {counted(run.rows, 'row')}, seq {highest} is stored"
                self._tell("coverage", run, run.rows, what)

    def _tell(self, kind: Kind, run: StoredRun, seq: int | None, what: str) -> None:
        self._findings.add(Finding(kind, run.pair, run.chain, seq, run.started_at, what))


def expected_rows(runs: Iterable[StoredRun], span: TimeRange) -> int:
    """About how many rows of the book a range has, if the rows of its runs come evenly; for a progress bar."""
    expected = 0.0
    for run in runs:
        if run.channel == "book":
            started_at, last_at = datetime.fromisoformat(run.started_at), datetime.fromisoformat(run.last_at)
            begin = started_at if span.since is None else max(started_at, span.since)
            end = last_at if span.until is None else min(last_at, span.until)
            share = (end - begin) / (last_at - started_at) if last_at > started_at else 1.0
            expected += run.rows * share
    return round(expected)


def may_go_on(run: StoredRun) -> bool:
    """Whether more of a run may come: it is open, or nobody saw its end."""
    return run.ended_at is None or run.end_reason in (SPOOL_LOST, SEGMENT_LOST)


def run_faults(run: StoredRun) -> Iterator[str]:
    """What is wrong with a run by itself."""
    if run.last_at < run.started_at:
        yield f"coverage goes up to {run.last_at}, before it began at {run.started_at}"
    if run.ended_at is not None and run.ended_at != run.last_at:
        yield f"coverage ended at {run.ended_at}, and goes up to {run.last_at}"
    if (run.ended_at is None) != (run.end_reason is None):
        yield f"coverage ended at {run.ended_at} because of {run.end_reason}: one of the two is missing"
    if run.channel == "trade" and run.rows != run.updates:
        yield f"coverage says {run.updates} trades received and {run.rows} stored"


def check_trade_runs(runs: Iterable[StoredRun], findings: Findings) -> None:
    """Hold the runs of the trade channel against themselves: stored trades belong to no run."""
    for run in runs:
        if run.channel == "trade":
            for what in run_faults(run):
                findings.add(Finding("coverage", run.pair, run.chain, None, run.started_at, what))


def check_trade_ids(pair: str, ids: Iterable[int], absent: Sequence[IdRange], findings: Findings) -> None:
    """Find holes and repeats in a pair's trade ids, which come in order; `absent` ids are no holes."""
    tally = findings.of(pair)
    previous: int | None = None
    for trade_id in ids:
        if previous is not None and trade_id != previous + 1:
            if trade_id == previous:
                what = "this trade id is stored more than once"
                findings.add(Finding("trade_repeat", pair, None, trade_id, None, what))
            else:
                gap = IdRange(previous + 1, trade_id - 1)
                holes = without([gap], absent)
                missing = sum(hole.size for hole in holes)
                tally.absent_trades += gap.size - missing
                tally.missing_trades += missing
                for hole in holes:
                    one, several = f"id {hole.first} is", f"ids {hole.first} to {hole.last} are"
                    what = f"{one if hole.size == 1 else several} missing"
                    findings.add(Finding("trade_hole", pair, None, hole.first, None, what))
        previous = trade_id
