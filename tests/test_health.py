"""What is told of a collector's health: a restart is asked for only where it helps, and every trouble is named."""

from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import pytest

from collector.assignment import CHANNELS, Assignment
from collector.health import (
    CRASHING_LIMIT,
    PAIRS_NAMED,
    STABLE_AFTER,
    WAITING_LIMIT,
    Running,
    is_standing_by,
    live_problems,
    ready_problems,
)
from collector.settings import Settings
from collector.statistics import Statistics
from collector.storage.spool import Spool

PAIRS = ("BTC/USD", "ETH/USD")


def books(*pairs: str) -> SimpleNamespace:
    """Books that are all watched."""
    return SimpleNamespace(
        runs=lambda: [SimpleNamespace(pair=pair, channel=channel) for pair in pairs for channel in CHANNELS]
    )


def running(directory: Path, *, pairs: tuple[str, ...] = PAIRS, watched: tuple[str, ...] = PAIRS) -> Running:
    """A collector that is well, unless `watched` lacks something."""
    spool = Spool(directory, -1)
    spool.database = UUID(int=1)
    configured = Settings(database_url="postgresql://h/d", pairs=PAIRS)
    return Running(configured, Statistics(), spool, Assignment(pairs), lambda: books(*watched))


def test_all_is_well(tmp_path: Path) -> None:
    """Prevents an alarm without a cause."""
    well = running(tmp_path)
    assert (live_problems(well, 0.0), ready_problems(well, 0.0), is_standing_by(well)) == ([], [], False)


@pytest.mark.parametrize("lasting", [0.5, STABLE_AFTER - 1])
def test_crashes_in_a_row_ask_for_a_restart(lasting: float, tmp_path: Path) -> None:
    """Prevents a process whose tasks crash for ever from passing for alive."""
    crashing = running(tmp_path)
    now = 1000.0
    while now - 1000.0 < CRASHING_LIMIT:
        crashing.statistics.group.note(now, STABLE_AFTER)
        assert live_problems(crashing, now) == []
        now += lasting
    crashing.statistics.group.note(now, STABLE_AFTER)
    (problem,) = live_problems(crashing, now)
    assert "crashing" in problem
    assert live_problems(crashing, now + STABLE_AFTER) == [], "it has run for long since"


def test_crashes_now_and_then_do_not(tmp_path: Path) -> None:
    """Prevents a restart of the whole process over crashes that the supervisor has mended."""
    crashing = running(tmp_path)
    for number in range(20):
        crashing.statistics.group.note(1000.0 + number * STABLE_AFTER, STABLE_AFTER)
        assert live_problems(crashing, 1000.0 + number * STABLE_AFTER) == []
    assert crashing.statistics.group.count == 20


def test_outages_do_not_ask_for_a_restart(tmp_path: Path) -> None:
    """Prevents a host from restarting the collector, which costs coverage, because something else is away."""
    alone = running(tmp_path, watched=())
    alone.spool.database = None
    alone.statistics.spooled(1, 0.0)
    assert live_problems(alone, 10_000.0) == []
    assert len(ready_problems(alone, 10_000.0)) == 2 + len(PAIRS) * len(CHANNELS)


def test_rows_that_wait_are_told(tmp_path: Path) -> None:
    """Prevents a collector that stores nothing from passing for ready, and a slow commit for an outage."""
    behind = running(tmp_path)
    behind.statistics.spooled(1, 100.0)
    behind.statistics.spooled(2, 200.0)
    limit = WAITING_LIMIT + behind.settings.flush_interval
    assert ready_problems(behind, 100.0 + limit) == []
    (problem,) = ready_problems(behind, 101.0 + limit)
    assert problem.startswith("PostgreSQL takes nothing")
    behind.statistics.committed(1, 10, 131.0)
    assert ready_problems(behind, 101.0 + limit) == []


def test_what_is_not_watched_is_named(tmp_path: Path) -> None:
    """Prevents a pair that was refused, or a feed that is gone, from being hidden by the others."""
    assert ready_problems(running(tmp_path, watched=("BTC/USD",)), 0.0) == [
        "ETH/USD book: not watched",
        "ETH/USD trade: not watched",
    ]
    many = running(tmp_path, pairs=tuple(f"P{number}/USD" for number in range(50)), watched=())
    problems = ready_problems(many, 0.0)
    assert len(problems) == PAIRS_NAMED + 1
    assert problems[-1] == f"and {100 - PAIRS_NAMED} more are not watched"
    before = Running(many.settings, many.statistics, many.spool, Assignment(PAIRS), lambda: None)
    assert len(ready_problems(before, 0.0)) == 4, "the group of tasks has not begun"


def test_full_spool_is_the_reason_and_not_its_effect(tmp_path: Path) -> None:
    """Prevents the books that were given up for want of room from being told as a fault of the feed."""
    full = running(tmp_path, watched=())
    full.assignment.channels.value = frozenset()
    assert ready_problems(full, 0.0) == [
        "the spool is full: nothing of channel book is taken in",
        "the spool is full: nothing of channel trade is taken in",
    ]


def test_standing_by_is_ready(tmp_path: Path) -> None:
    """Prevents a deploy that waits for the new worker, which waits for the old one, from never ending."""
    waiting = running(tmp_path, pairs=(), watched=())
    assert (ready_problems(waiting, 0.0), is_standing_by(waiting)) == ([], True)
