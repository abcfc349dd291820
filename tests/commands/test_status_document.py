"""What is called stale, open or seen: held against what a person would say of the same runs."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.commands.status_document import (
    CELLS,
    FORMER_AFTER,
    STALE_AFTER,
    Document,
    expected_pairs,
    make_document,
    merge,
    watched_share,
)
from collector.selection import Selection
from collector.storage.row_counts import DAY, HOUR, PairCounts, RowCounts
from collector.storage.status import ChannelSpan, LastAudit, LastTrade, Period, Sizes, StoredStatus

NOW = datetime(2026, 8, 24, 12)  # noqa: DTZ001 - UTC without zone, like the tables
SECOND = timedelta(seconds=1)
NOTHING = RowCounts(0, 0, 0)


def span(pair: str = "BTC/USD", channel: str = "book", *, began: timedelta = DAY, age: timedelta = SECOND, **more):
    values = {"end_reason": None, "earlier_at": None, "earlier_reason": None, "checksum_failures": 0} | more
    return ChannelSpan(pair, channel, NOW - began, NOW - age, **values)


def period(since: datetime, until: datetime, chain: int = 1, reason: str | None = None) -> Period:
    return Period(since, until, chain, reason)


def both(pair: str = "BTC/USD", **more) -> list[ChannelSpan]:
    return [span(pair, "book", **more), span(pair, "trade", **more)]


def document(channels: list[ChannelSpan], pairs: list[str] | None = None, **more: object) -> Document:
    pairs = sorted({span.pair for span in channels}) if pairs is None else pairs
    values = {
        "now": NOW,
        "origin": "ws.kraken.com",
        "channels": channels,
        "pairs": pairs,
        "periods": {(span.pair, span.channel): [period(span.first_at, span.last_at)] for span in channels},
        "audits": {},
        "last_trades": {},
        "collectors": [],
        "counts": {pair: PairCounts(NOTHING, NOTHING, 0) for pair in pairs},
        "spools": [],
        "sizes": Sizes(10**9, 10**8, NOW - timedelta(hours=36), None),
        "former_pairs": [],
    }
    return make_document(StoredStatus(**(values | more)), None, 0.5)


def test_pair_is_stale_when_either_channel_stands_still() -> None:
    """Prevents a collector that hangs, or lost one of its subscriptions, from passing for well."""
    limit = STALE_AFTER + timedelta(seconds=0.5)
    assert not document(both(age=limit)).stale
    for late in ("book", "trade"):
        channels = [span(channel=late, age=limit + SECOND), span(channel={"book": "trade", "trade": "book"}[late])]
        stale = document(channels + both("ETH/USD"))
        assert stale.stale
        assert [(pair.pair, pair.stale) for pair in stale.pairs] == [("BTC/USD", True), ("ETH/USD", False)]
        assert [(gap.channel, gap.until, gap.reason) for gap in stale.open_gaps] == [(late, None, None)]
    assert document([span(channel="book")], ["BTC/USD"]).stale, "its trades were never watched"


def test_nothing_collected_is_stale() -> None:
    """Prevents an empty database, or a pair that nobody has ever collected, from passing for well."""
    assert document([]).stale
    never = document([], ["SOL/USD"])
    assert (never.stale, never.pairs[0].stale, never.pairs[0].coverage) == (True, True, None)
    assert [(gap.channel, gap.reason) for gap in never.open_gaps] == [
        ("book", "never_watched"),
        ("trade", "never_watched"),
    ]


def test_gap_is_open_from_its_first_second() -> None:
    """Prevents a run that has just ended from being told as going on, and a short gap as staleness."""
    ended = document(both(age=5 * SECOND, end_reason="closed_1012"))
    assert not ended.stale
    assert [(gap.channel, gap.reason, gap.seconds) for gap in ended.open_gaps] == [
        ("book", "closed_1012", 5.0),
        ("trade", "closed_1012", 5.0),
    ]
    assert ended.open_gaps[0].since == (NOW - 5 * SECOND).replace(tzinfo=UTC)


def test_pairs_that_are_expected() -> None:
    """Prevents a pair that was taken out from being an alarm for ever, and a dead collector from being none."""
    channels = [*both(age=3 * DAY), *both("ETH/USD", age=3 * DAY + FORMER_AFTER + SECOND)]
    assert expected_pairs(channels, None) == ["BTC/USD"]
    assert expected_pairs(channels, Selection(("SOL/USD", "ETH/USD"), ())) == ["ETH/USD", "SOL/USD"]
    assert expected_pairs(channels, Selection(("SOL/USD", "*/USD"), ())) == ["BTC/USD", "SOL/USD"]
    assert expected_pairs([], None) == []


@pytest.mark.parametrize("age", [SECOND, STALE_AFTER])
def test_whole_day_is_whole(age: timedelta) -> None:
    """Prevents what has just happened, and is not stored yet, from being shown as a gap."""
    (pair,) = document(both(began=3 * DAY, age=age)).pairs
    assert (pair.coverage, pair.cells) == (1.0, [1.0] * CELLS)
    assert pair.book_age == age.total_seconds()


def test_time_before_the_first_run_is_no_gap() -> None:
    """Prevents the time before somebody began to collect from counting as missed."""
    (pair,) = document(both(began=HOUR + HOUR / 2)).pairs
    assert pair.coverage == 1.0
    assert pair.cells == [None] * (CELLS - 2) + [1.0] * 2


def test_gap_shows_in_its_hour_alone() -> None:
    """Prevents a gap from being hidden by rounding, or from being shown at another time."""
    periods = [period(NOW - DAY, NOW - 5 * HOUR, 1, "silent"), period(NOW - 5 * HOUR + SECOND, NOW, 2)]
    (pair,) = document(
        both(began=3 * DAY, age=timedelta(0)), periods={("BTC/USD", "book"): list(reversed(periods))}
    ).pairs
    assert [number for number, share in enumerate(pair.cells) if share != 1.0] == [CELLS - 5]
    assert pair.coverage == pytest.approx(1 - 1 / 86_400)
    (pair,) = document(both(began=3 * DAY, age=2 * HOUR)).pairs
    assert pair.cells == [1.0] * (CELLS - 2) + [0.0] * 2


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), max_size=12), st.integers(0, 99))
def test_share_is_that_of_the_seconds_that_are_covered(ends: list[tuple[int, int]], start: int) -> None:
    """Prevents runs that overlap, touch or lie outside from counting twice or wrongly."""
    spans = [(min(pair), max(pair)) for pair in ends]
    periods = merge(period(NOW + low * SECOND, NOW + high * SECOND) for low, high in spans)
    assert all(one.ended_at < other.started_at for one, other in pairwise(periods))
    covered = sum(any(low <= second < high for low, high in spans) for second in range(start, 100))
    share = watched_share(periods, NOW + start * SECOND, NOW + 100 * SECOND)
    assert share == pytest.approx(covered / (100 - start))
    assert (share == 1.0) == (covered == 100 - start)


def test_figures_reach_the_document() -> None:
    """Prevents a count, a price or an audit from getting lost or mixed up on its way."""
    channels = [span(checksum_failures=2), span(channel="trade", age=3 * SECOND)]
    told = document(
        channels,
        periods={
            ("BTC/USD", "book"): [
                period(NOW - DAY, NOW - 2 * HOUR, 1, "checksum"),
                period(NOW - HOUR, NOW - SECOND, 2),
            ]
        },
        audits={"BTC/USD": LastAudit(NOW - HOUR, passed=False, differences=4, failed=1)},
        last_trades={"BTC/USD": LastTrade(NOW - 90 * SECOND, "0.00000010")},
        counts={"BTC/USD": PairCounts(RowCounts(1, 20, 300), RowCounts(10, 200, 3000), 7)},
    )
    (pair,) = told.pairs
    assert (pair.last_trade_age, bytes(pair.last_price or b"")) == (90.0, b"0.00000010")
    assert (pair.book_age, pair.trades_age) == (1.0, 3.0)
    assert (pair.rows.minute, pair.rows.hour, pair.rows.day) == (11, 220, 3300)
    assert (pair.missing_trades, pair.checksum_failures) == (7, 2)
    assert pair.audit is not None
    assert (pair.audit.passed, pair.audit.differences, pair.audit.failed) == (False, 4, 1)
    assert [(gap.reason, gap.seconds) for gap in told.gaps] == [("checksum", 3600.0)]
    assert told.bytes == 10**9


def test_growth_is_reckoned_over_the_time_of_collecting() -> None:
    """Prevents the first minutes from being taken for a day, and half a day from being taken for a whole one."""
    assert document(both(began=HOUR / 2)).bytes_a_day is None
    assert document(both(began=12 * HOUR)).bytes_a_day == 2 * 10**8
    assert document(both(began=30 * DAY)).bytes_a_day == pytest.approx(10**8 / 1.5, abs=1)
    grown = document(
        both(began=12 * HOUR),
        counts={"BTC/USD": PairCounts(RowCounts(0, 0, 1000), NOTHING, 0)},
        sizes=Sizes(10**9, 10**8, NOW - timedelta(hours=36), 150.0),
    )
    assert grown.bytes_a_day == 2 * 10**8 + 2 * 1000 * 150


def test_clock_that_is_behind_krakens() -> None:
    """Prevents a database whose clock is a little late from telling ages below zero, or from failing."""
    (pair,) = document(both(age=-SECOND)).pairs
    assert (pair.stale, pair.book_age, pair.coverage) == (False, 0.0, 1.0)
