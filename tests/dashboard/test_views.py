"""What the page is told."""

from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from collector.dashboard.queries import Channel, Gap, Run
from collector.dashboard.reasons import REASONS, explain
from collector.dashboard.views import DEPTH_POINTS, LADDER_LEVELS, book_view, coverage_view, digits, health

NOON = datetime(2026, 1, 31, 12)  # noqa: DTZ001 - as the tables have it
SECOND = timedelta(seconds=1)
TIME = "2026-01-31T12:00:00.000000Z"


def run_of(**values: object) -> Run:
    run = Run(1, NOON, NOON + 60 * SECOND, None, None, None, NOON + 61 * SECOND)
    return run._replace(**values)


@pytest.mark.parametrize(
    ("run", "state", "told"),
    [
        (None, "never", "Nobody has watched"),
        (run_of(), "live", "Collecting without a gap since 2026-01-31 12:00:00 UTC."),
        (run_of(now=NOON + 75 * SECOND), "live", "Collecting"),
        (run_of(now=NOON + 76 * SECOND), "silent", "No news since 2026-01-31 12:01:00 UTC"),
        (run_of(ended_at=NOON, end_reason="closed_1012"), "ended", "UTC: Kraken closed the connection (closed_1012)."),
        (run_of(suspect_since=NOON), "live", "An audit found the book wrong below its ten best levels"),
    ],
)
def test_health_is_told(run: Run | None, state: str, told: str) -> None:
    """Prevents a collection that has stopped from looking like one that goes on."""
    found = health(run)
    assert found.state == state
    assert told in found.text


def test_book_keeps_digits_and_counts_all() -> None:
    """Prevents digits that are lost on the way, and a ladder or a picture that grows with the book."""
    bids = [(f"{1000 - place}.10", "0.00000001") for place in range(1000)]
    asks = [(f"{1000 + place}.20", "1.50") for place in range(50)]
    view = book_view(TIME, bids, asks)
    assert view.bids == bids[:LADDER_LEVELS]
    assert view.asks == asks[:LADDER_LEVELS]
    assert view.levels == (1000, 50)
    assert (view.spread, view.middle) == ("0.10", "1000.15")
    assert len(view.bid_depth) <= DEPTH_POINTS + LADDER_LEVELS
    assert view.bid_depth[-1] == (1.1, pytest.approx(1000 * 1e-8))
    assert view.ask_depth[-1] == (1049.2, 75.0)
    assert [total for _, total in view.bid_depth] == sorted(total for _, total in view.bid_depth)


def test_empty_side_has_no_spread() -> None:
    """Prevents a fault over a market that has lost a side."""
    view = book_view(TIME, [], [("1", "2")])
    assert (view.spread, view.middle, view.bid_depth, view.levels) == (None, None, [], (0, 1))


def test_small_sizes_are_plain() -> None:
    """Prevents a size of 1E-8 on the page."""
    assert digits(Decimal("0.00000001")) == "0.00000001"


@pytest.mark.parametrize(
    ("last_at", "end_reason", "gaps"),
    [
        (NOON, None, 1),
        (NOON - 16 * SECOND, None, 2),
        (NOON, "shutdown", 2),
    ],
)
def test_gap_that_goes_on_is_told(last_at: datetime, end_reason: str | None, gaps: int) -> None:
    """Prevents a collector that is gone from being seen only when it is back."""
    past = Gap(NOON - 100 * SECOND, NOON - 90 * SECOND, None)
    channel = Channel("book", NOON - 3600 * SECOND, last_at, end_reason, Decimal("0.5"), [past])
    (told,) = coverage_view([channel], NOON - 60 * SECOND, NOON).channels
    assert len(told.gaps) == gaps
    assert told.gaps[-1].reason == "nobody told why"
    assert (told.gaps[0].until is None) == (gaps == 2)
    assert told.share == 0.5


@pytest.mark.parametrize("reason", [*REASONS, "closed_1012", "a_new_one"])
def test_reason_keeps_its_own_word(reason: str) -> None:
    """Prevents a reason that cannot be looked up in the database."""
    assert reason in explain(reason)
