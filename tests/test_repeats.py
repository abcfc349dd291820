"""What is said again and again: a few times, and then counted without losing one."""

from hypothesis import given
from hypothesis import strategies as st

from collector.repeats import Repeats

LIMIT, SECONDS = 3, 60.0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 30)), max_size=200))
def test_each_is_told_or_counted_once(events: list[tuple[str, float]]) -> None:
    """Prevents something from being neither told nor counted, and a kind from silencing another."""
    repeats, now = Repeats(LIMIT, SECONDS), 0.0
    told: dict[str, list[float]] = {}
    taken: dict[str, int] = {}
    counted: dict[str, int] = {}
    for kind, pause in events:
        now += pause
        taken[kind] = taken.get(kind, 0) + 1
        left_out = repeats.take(kind, now)
        if left_out is not None:
            told.setdefault(kind, []).append(now)
            counted[kind] = counted.get(kind, 0) + 1 + left_out
            assert counted[kind] == taken[kind]
    for moments in told.values():  # windows begin with what they let pass, so that two of them may meet in one
        assert all(late - early >= SECONDS for early, late in zip(moments, moments[2 * LIMIT :], strict=False))


def test_flood_is_told_at_its_beginning_and_once_a_while() -> None:
    """Prevents a flood from filling the log, and its end from hiding how much there was."""
    repeats = Repeats(LIMIT, SECONDS)
    flood = [repeats.take("a", second / 10) for second in range(int(SECONDS * 10))]
    assert flood == [0] * LIMIT + [None] * (len(flood) - LIMIT)
    assert repeats.take("a", 3 * SECONDS) == len(flood) - LIMIT
    assert repeats.take("a", 3 * SECONDS) == 0


def test_what_seldom_happens_is_always_told() -> None:
    """Prevents a second outage within a minute from being hidden by the first."""
    repeats = Repeats(LIMIT, SECONDS)
    assert [repeats.take("a", number * SECONDS / LIMIT) for number in range(50)] == [0] * 50


def test_kinds_are_forgotten() -> None:
    """Prevents texts that are never the same from filling the memory."""
    repeats = Repeats(LIMIT, SECONDS)
    for number in range(10_000):
        repeats.take(number, number * 1.0)
    assert len(repeats._windows) <= 2 * SECONDS
