"""How long a recovery took, where other faults struck meanwhile. Pure."""

from collections.abc import Iterable
from typing import NamedTuple


class Interval(NamedTuple):
    """From when to when, in seconds of one clock."""

    start: float
    end: float


def undisturbed(whole: Interval, others: Iterable[Interval]) -> float:
    """The seconds of an interval that none of the others covers."""
    left, reached = 0.0, whole.start
    for other in sorted(others):
        if other.start >= whole.end:
            break
        left += max(0.0, other.start - reached)
        reached = max(reached, other.end)
    return left + max(0.0, whole.end - reached)
