"""Ranges of trade ids, and sums over them. Pure.

A list of ranges is ascending, and no two of its ranges overlap.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple


class IdRange(NamedTuple):
    """All ids from `first` to `last`, both included."""

    first: int
    last: int

    @property
    def size(self) -> int:
        """How many ids it holds."""
        return self.last - self.first + 1


def contains(ranges: Sequence[IdRange], number: int) -> bool:
    """Whether an id is in one of the ranges."""
    place = bisect_right(ranges, number, key=lambda ids: ids.first)
    return place > 0 and number <= ranges[place - 1].last


def without(ranges: Iterable[IdRange], removed: Sequence[IdRange]) -> list[IdRange]:
    """What is left of the ranges when others are taken away."""
    left: list[IdRange] = []
    passed = 0  # so many of the removed ranges end before the one that is looked at
    for first, last in ranges:
        while passed < len(removed) and removed[passed].last < first:
            passed += 1
        start, place = first, passed
        while place < len(removed) and removed[place].first <= last:
            if start < removed[place].first:
                left.append(IdRange(start, removed[place].first - 1))
            start = removed[place].last + 1
            place += 1
        if start <= last:
            left.append(IdRange(start, last))
    return left


def common(ranges: Sequence[IdRange], others: Sequence[IdRange]) -> list[IdRange]:
    """What is in both."""
    return without(ranges, without(ranges, others))


def between(numbers: Iterable[int]) -> list[IdRange]:
    """The ids that lie between ascending ones."""
    return [IdRange(low + 1, high - 1) for low, high in pairwise(numbers) if high - low > 1]
