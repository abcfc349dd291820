"""What of a state is told to a client that knows another."""

from datetime import datetime
from decimal import Decimal

import msgspec

from collector.dashboard.follower import PairState
from collector.dashboard.live_book import Sample
from collector.dashboard.queries import StoredTrade
from collector.dashboard.stream import Update, _update
from collector.dashboard.views import Health, book_view, sample_rows, trade_rows

HEALTH = Health("live", "Collecting.")
BOOK = book_view("2026-01-31T12:00:00.000000Z", [("1", "2")], [("2", "3")])
TRADES = tuple(
    StoredTrade(number, datetime(2026, 1, 31), "buy", Decimal(1), Decimal(number), "limit")  # noqa: DTZ001 - as stored
    for number in (9, 8, 7)
)
SAMPLES = tuple(Sample(second, 0.1, second) for second in range(5))


def test_first_update_has_all() -> None:
    """Prevents a page that begins half empty."""
    state = PairState(HEALTH, BOOK, TRADES, SAMPLES)
    expected = Update(HEALTH, is_first=True, book=BOOK, trades=trade_rows(TRADES), samples=sample_rows(SAMPLES))
    assert _update(state, None) == expected


def test_later_update_has_what_is_new() -> None:
    """Prevents trades that are shown twice or not at all, and a line that is full of what is known."""
    known = PairState(HEALTH, BOOK, TRADES[1:], SAMPLES[:3])
    state = PairState(HEALTH, BOOK, TRADES, SAMPLES)
    assert _update(state, known) == Update(HEALTH, trades=trade_rows(TRADES[:1]), samples=sample_rows(SAMPLES[3:]))
    later = Health("ended", "Not collecting.")
    assert msgspec.to_builtins(_update(msgspec.structs.replace(state, health=later), state)) == {
        "health": msgspec.to_builtins(later)
    }
    assert _update(state, PairState(HEALTH)).trades == trade_rows(TRADES)
