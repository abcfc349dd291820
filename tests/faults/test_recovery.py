"""The seconds of a recovery that count."""

from faults.recovery import Interval, undisturbed
from hypothesis import given
from hypothesis import strategies as st

moments = st.integers(0, 30)
intervals = st.tuples(moments, moments).map(lambda both: Interval(min(both), max(both)))


@given(whole=intervals, others=st.lists(intervals, max_size=6))
def test_undisturbed_seconds(whole: Interval, others: list[Interval]) -> None:
    """A recovery would be told as longer or shorter than it was, when other faults overlap it."""
    counted = [
        second
        for second in range(int(whole.start), int(whole.end))
        if not any(other.start <= second < other.end for other in others)
    ]
    assert undisturbed(whole, others) == len(counted)
