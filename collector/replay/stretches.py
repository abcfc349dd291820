"""The stretches of time in which a topic was watched without a hole: what a replay can show of it.

Pure. A stretch goes from its `start` up to before its `end`. Of runs that overlap, each is complete in itself: one is
followed until a later one begins that goes on for longer, so that every run that is shown begins with its own snapshot.
"""

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import NamedTuple

from collector.replay.moments import MICROSECOND, read_nanoseconds
from collector.verification.checks import StoredRun

# Levels that a checksum proves: an audit that failed leaves these beyond doubt.
PROVED_DEPTH = 10
# Ends of several topics that lie as close together are one disconnect: they differ by what the clocks differ.
SAME_GAP = 5_000_000_000  # nanoseconds


class Stretch(NamedTuple):
    """A part of a run (for trades: of runs that overlap), in nanoseconds.

    The run is `chain`, which began at `began`; `end_reason` is why it ended, where that is known.
    """

    start: int
    end: int
    chain: int
    began: int
    end_reason: str | None


def book_stretches(runs: Iterable[StoredRun], since: int, until: int, depth: int) -> list[Stretch]:
    """What can be shown of a pair's book at a depth, in order.

    A stretch ends at most a microsecond behind the beginning of the next: a last update and the next run's snapshot
    may have one time.
    """
    stretches: list[Stretch] = []
    for run in _within(runs, since, until, depth):
        if stretches and stretches[-1].end > run.start:
            last = stretches[-1]
            if last.end >= run.end:
                continue
            stretches[-1:] = [last._replace(end=run.start + MICROSECOND)] if last.start < run.start else []
        stretches.append(run)
    return stretches


def trade_stretches(runs: Iterable[StoredRun], since: int, until: int) -> list[Stretch]:
    """What can be shown of a pair's trades, in order; runs that overlap or touch are one stretch."""
    stretches: list[Stretch] = []
    for run in _within(runs, since, until, PROVED_DEPTH):
        if stretches and stretches[-1].end >= run.start:
            if run.end > stretches[-1].end:
                stretches[-1] = stretches[-1]._replace(end=run.end, end_reason=run.end_reason)
        else:
            stretches.append(run)
    return stretches


def _within(runs: Iterable[StoredRun], since: int, until: int, depth: int) -> list[Stretch]:
    stretches = []
    for run in runs:
        began, end = read_nanoseconds(run.dropped_before or run.started_at), read_nanoseconds(run.last_at) + MICROSECOND
        if run.suspect_since is not None and depth > PROVED_DEPTH:
            end = min(end, read_nanoseconds(run.suspect_since))
        start, end = max(began, since), min(end, until)
        if start < end:
            stretches.append(Stretch(start, end, run.chain, began, run.end_reason))
    return sorted(stretches)


def ahead_of(stretches: Sequence[Stretch], place: int) -> list[Stretch]:
    """Those that are not over at a time; where two of them meet, the later one counts."""
    return [
        stretch
        for stretch, following in zip_longest(stretches, stretches[1:])
        if stretch.end > place and (following is None or following.start > place)
    ]


def close_time(ending: Sequence[Stretch], topics: Iterable[Sequence[Stretch]]) -> int:
    """When a connection closes of which one topic ends a stretch: with the last of those that end by the same gap.

    Each topic is given by its stretches from the present one on; the one that ends has another.
    """
    end, following, *_ = ending
    latest = min(end.end + SAME_GAP, max(end.end, following.start))
    return max((ahead[0].end for ahead in topics if ahead and end.end <= ahead[0].end <= latest), default=end.end)


def next_place(closed_at: int, topics: Iterable[Sequence[Stretch]]) -> int | None:
    """Where the market of some topics goes on for whoever comes back; None where nothing follows."""
    places = []
    for ahead in topics:
        following = [stretch for stretch in ahead[1:] if stretch.end > closed_at]
        if ahead and ahead[0].end > closed_at:
            places.append(max(closed_at, ahead[0].start))
        elif following:
            places.append(following[0].start)
    return min(places, default=None)
