"""Ranges of ids, held against sets of ids."""

from hypothesis import given
from hypothesis import strategies as st

from collector.id_ranges import IdRange, between, common, contains, without

IDS = st.sets(st.integers(0, 60))


def ranges_of(ids: set[int]) -> list[IdRange]:
    """The fewest ranges that hold some ids."""
    ranges: list[IdRange] = []
    for number in sorted(ids):
        if ranges and ranges[-1].last == number - 1:
            ranges[-1] = IdRange(ranges[-1].first, number)
        else:
            ranges.append(IdRange(number, number))
    return ranges


def ids_of(ranges: list[IdRange]) -> list[int]:
    return [number for first, last in ranges for number in range(first, last + 1)]


@given(IDS, IDS)
def test_without_and_common_are_difference_and_intersection(ids: set[int], others: set[int]) -> None:
    """Prevents an id from being lost, or fetched for ever, where ranges overlap in whatever way."""
    assert ids_of(without(ranges_of(ids), ranges_of(others))) == sorted(ids - others)
    assert ids_of(common(ranges_of(ids), ranges_of(others))) == sorted(ids & others)


@given(IDS, st.integers(-5, 70))
def test_contains_and_size_count_both_ends(ids: set[int], number: int) -> None:
    """Prevents the first or the last trade of a gap from being taken for one that nobody misses."""
    ranges = ranges_of(ids)
    assert contains(ranges, number) == (number in ids)
    assert sum(gap.size for gap in ranges) == len(ids)


@given(IDS)
def test_between_is_what_lies_between(ids: set[int]) -> None:
    """Prevents ids beyond the ends from being judged: of those the numbers say nothing."""
    whole = set(range(min(ids), max(ids))) if ids else set()
    assert ids_of(between(sorted(ids))) == sorted(whole - ids)
