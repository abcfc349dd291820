"""How long to wait, and how often to try: chance and time are given."""

import random
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.backoff import ATTEMPTS_LIMIT, ATTEMPTS_WINDOW, AttemptBudget, Backoff
from collector.tasks.socket import Attempts

DAY = 86_400.0
BAN = 150  # attempts in ten minutes for which Kraken's edge bans an address


def highest(_low: float, high: float) -> float:
    return high


def lowest(low: float, _high: float) -> float:
    return low


def test_delays_double_up_to_the_cap() -> None:
    """Prevents a constant or an endless backoff."""
    backoff = Backoff(0.5, 30.0, 30.0, highest)
    assert [backoff.delay(0.0) for _ in range(9)] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


@given(st.floats(0.01, 10), st.floats(10, 100), st.integers(0, 200), st.randoms())
def test_jitter_is_full(base: float, cap: float, failures: int, chance: random.Random) -> None:
    """Prevents collectors that come back in step, and jitter that vanishes at the cap."""
    asked: list[tuple[float, float]] = []

    def choose(low: float, high: float) -> float:
        asked.append((low, high))
        return chance.uniform(low, high)

    backoff = Backoff(base, cap, 30.0, choose)
    delays = [backoff.delay(0.0) for _ in range(failures)]
    assert asked == [(0.0, min(cap, base * 2.0**count)) for count in range(failures)]
    assert all(0 <= delay <= cap for delay in delays)


def test_row_of_failures_has_no_end() -> None:
    """Prevents an overflow after days of an outage."""
    backoff = Backoff(0.5, 30.0, 30.0, highest)
    assert {backoff.delay(0.0) for _ in range(5000)} >= {30.0}
    assert backoff.failures == 5000


def test_only_time_survived_ends_a_row_of_failures() -> None:
    """Prevents a server that accepts and drops at once from being tried without end."""
    backoff = Backoff(0.5, 30.0, 30.0, highest)
    assert [backoff.delay(ran_for) for ran_for in (0.0, 29.9, 29.9, 30.0, 1.0, 3600.0)] == [0.5, 1, 2, 0.5, 1, 0.5]


def most_in_a_window(times: list[float]) -> int:
    """The most attempts in any window, its end not included."""
    most = first = 0
    for last, time in enumerate(times):
        while time - times[first] >= ATTEMPTS_WINDOW:
            first += 1
        most = max(most, last - first + 1)
    return most


def a_day_of_failures(
    choose: Callable[[float, float], float], ran_for: Callable[[], float], pause: float
) -> list[float]:
    """When the socket task would have tried, as it uses both parts."""
    attempts = Attempts(choose)
    times: list[float] = []
    now = 0.0
    while now < DAY and len(times) < DAY:
        now += attempts.budget.wait(now)
        started = now
        attempts.budget.spend(started)
        times.append(started)
        now += ran_for()
        now += pause + attempts.backoff(0).delay(now - started)
    return times


@pytest.mark.parametrize("pause", [0.0, 5.0])
@pytest.mark.parametrize("ran_for", [lambda: 0.0, lambda: 10.0, lambda: 30.0, partial(random.Random(2).uniform, 0, 60)])
@pytest.mark.parametrize("choose", [lowest, highest, random.Random(1).uniform])
def test_a_day_of_failures_never_comes_near_a_ban(
    choose: Callable[[float, float], float], ran_for: Callable[[], float], pause: float
) -> None:
    """Prevents a ban by Kraken's edge, with any luck of the jitter, and a collector that stops trying."""
    times = a_day_of_failures(choose, ran_for, pause)
    assert most_in_a_window(times) <= ATTEMPTS_LIMIT < BAN
    assert max(later - earlier for earlier, later in pairwise(times)) <= ATTEMPTS_WINDOW


def test_without_jitter_the_budget_alone_holds() -> None:
    """Prevents the day above from passing although the budget does nothing."""
    times = a_day_of_failures(lowest, lambda: 0.0, 0.0)
    assert most_in_a_window(times) == ATTEMPTS_LIMIT
    assert sum(time < DAY for time in times) == ATTEMPTS_LIMIT * DAY / ATTEMPTS_WINDOW


@given(st.lists(st.integers(0, 30), max_size=80), st.integers(1, 5))
def test_budget_waits_when_it_must_and_only_then(gaps: list[int], limit: int) -> None:
    """Prevents an attempt too many, and a wait while there is room."""
    window = 20
    budget = AttemptBudget(limit, window)
    spent: list[int] = []
    now = 0
    for gap in gaps:
        now += gap
        wait = budget.wait(now)
        recent = [time for time in spent if now - time < window]
        assert wait == (0 if len(recent) < limit else recent[-limit] + window - now)
        now += int(wait)
        budget.spend(now)
        spent.append(now)
