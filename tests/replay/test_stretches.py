"""What of the stored runs a replay shows, and where it goes on behind a hole."""

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from collector.replay.moments import MICROSECOND, moment, nanoseconds, read_nanoseconds
from collector.replay.stretches import (
    Stretch,
    ahead_of,
    book_stretches,
    close_time,
    next_place,
    trade_stretches,
)
from collector.verification.checks import StoredRun

BEGIN = datetime(2026, 8, 24, 12)  # noqa: DTZ001 - UTC without zone, like the columns
SINCE, UNTIL = nanoseconds(BEGIN), nanoseconds(BEGIN + timedelta(hours=1))
SECOND = 1_000_000_000


def run(chain: int, first: float, last: float, **more: str | None) -> StoredRun:
    """A run by seconds from the beginning of the range."""
    values = {"ended_at": None, "end_reason": "closed_1001", "dropped_before": None, "suspect_since": None} | more
    return StoredRun("BTC/USD", "book", chain, at(first), at(last), 1, 1, **values)


def at(second: float) -> str:
    return str(BEGIN + timedelta(seconds=second))


def seconds(stretches: list[Stretch]) -> list[tuple[int, float, float]]:
    """Chain, start and end, without the microsecond that makes an end exclusive."""
    return [
        (stretch.chain, (stretch.start - SINCE) / SECOND, (stretch.end - MICROSECOND - SINCE) / SECOND)
        for stretch in stretches
    ]


def test_times_are_read_as_postgresql_writes_them() -> None:
    """Prevents a trade of half past from being replayed a few microseconds past."""
    assert read_nanoseconds("2026-08-24 12:00:00") == SINCE
    assert read_nanoseconds("2026-08-24 12:00:00.5") == SINCE + 500_000_000
    assert read_nanoseconds("2026-08-24 12:00:00.000001") == SINCE + 1000
    assert moment(SINCE + 1999) == BEGIN + timedelta(microseconds=1)


def test_a_later_run_is_followed_from_its_own_beginning() -> None:
    """Prevents a takeover from beginning without its snapshot."""
    found = book_stretches([run(2, 20, 40), run(1, 0, 30), run(3, 25, 35)], SINCE, UNTIL, 10)
    assert seconds(found) == [(1, 0, 20), (2, 20, 40)]


def test_runs_are_cut_to_the_range_and_to_what_is_left_of_them() -> None:
    """Prevents rows from outside of the range, and a search for rows that retention has dropped."""
    found = book_stretches([run(1, -50, -1), run(2, -1, 5), run(3, 10, 90, dropped_before=at(60))], SINCE, UNTIL, 10)
    assert seconds(found) == [(2, 0, 5), (3, 60, 90)]
    assert book_stretches([run(1, 0, 7200)], SINCE, UNTIL, 10)[0].end == UNTIL


def test_what_an_audit_found_wrong_is_shown_as_far_as_checksums_prove_it() -> None:
    """Prevents a book that is known to be wrong below its ten best levels from being replayed as a good one."""
    suspect = run(1, 0, 40, suspect_since=at(30))
    assert seconds(book_stretches([suspect], SINCE, UNTIL, 10)) == [(1, 0, 40)]
    assert book_stretches([suspect], SINCE, UNTIL, 25)[0].end == nanoseconds(BEGIN) + 30 * SECOND


def test_trades_of_two_collectors_are_one_stretch() -> None:
    """Prevents a takeover that lost no trade from closing the connection."""
    found = trade_stretches([run(1, 0, 30), run(2, 20, 40), run(3, 50, 60)], SINCE, UNTIL)
    assert seconds(found) == [(1, 0, 40), (3, 50, 60)]


def test_ends_that_lie_close_together_are_one_closed_connection() -> None:
    """Prevents a disconnect of twenty pairs from closing a client's connection twenty times."""
    one = book_stretches([run(1, 0, 10), run(2, 60, 90)], SINCE, UNTIL, 10)
    other = book_stretches([run(3, 0, 10.4), run(4, 59, 90)], SINCE, UNTIL, 10)
    lasting = book_stretches([run(5, 0, 90)], SINCE, UNTIL, 10)
    closed_at = close_time(one, [one, other])
    assert closed_at == other[0].end
    assert next_place(closed_at, [one, other]) == SINCE + 59 * SECOND
    closed_at = close_time(one, [one, lasting])
    assert closed_at == one[0].end
    assert next_place(closed_at, [one, lasting]) == closed_at, "nothing of the other pair is left out"
    assert next_place(UNTIL, [lasting]) is None


RUNS = st.lists(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30)), max_size=6).map(
        lambda spans: [run(number, first, first + length) for number, (first, length) in enumerate(spans)]
    ),
    min_size=1,
    max_size=3,
)


@given(topics=RUNS)
def test_a_client_that_comes_back_each_time_gets_to_the_end(topics: list[list[StoredRun]]) -> None:
    """Prevents a client from being sent round in circles, or past what is stored."""
    stretches = [book_stretches(runs, SINCE, UNTIL, 10) for runs in topics]
    starts = [stretch.start for of_topic in stretches for stretch in of_topic]
    seen: list[set[int]] = [set() for _ in topics]
    place: int | None = min(starts, default=None)
    for _ in range(len(starts) + 1):
        if place is None:
            break
        aheads = [ahead_of(of_topic, place) for of_topic in stretches]
        ends = [close_time(ahead, aheads) for ahead in aheads if len(ahead) > 1]
        closed_at = min(ends, default=UNTIL)
        for ahead, chains in zip(aheads, seen, strict=True):
            chains.update(stretch.chain for stretch in ahead[:1] if stretch.start < closed_at)
        place = next_place(closed_at, aheads) if ends else None
    assert place is None
    assert seen == [{stretch.chain for stretch in of_topic} for of_topic in stretches]
