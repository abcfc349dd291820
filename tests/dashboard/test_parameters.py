"""Parameters of requests: each is read, or refused with what makes sense."""

from datetime import UTC, datetime, timedelta

import pytest

from collector.commands.arguments import WrongUsage
from collector.dashboard.parameters import read_hours, read_moment, read_pair, read_width

PAIRS = ["BTC/USD", "ETH/USD"]


def test_what_makes_sense_is_read() -> None:
    """Prevents a right question from being refused."""
    assert read_pair("ETH/USD", PAIRS) == "ETH/USD"
    assert read_width("15m").width == timedelta(minutes=15)
    assert read_moment("at", "2026-01-31T13:00+01:00") == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert read_moment("at", None) is None
    assert [read_hours(text) for text in (None, "1", "168")] == [24, 1, 168]


@pytest.mark.parametrize("text", ["0", "169", "-1", "1.5", "", "٣", "9" * 5000])
def test_range_that_is_too_long_is_refused(text: str) -> None:
    """Prevents a question that keeps the database from the collector."""
    with pytest.raises(WrongUsage, match=r"^hours: got .*; it takes a whole number from 1 to 168$"):
        read_hours(text)


def test_what_makes_no_sense_is_told() -> None:
    """Prevents an empty chart as the answer to a slip of the pen."""
    with pytest.raises(WrongUsage, match=r"^pair: got 'ETH/EUR', .*: ETH/USD"):
        read_pair("ETH/EUR", PAIRS)
    with pytest.raises(WrongUsage, match=r"^pair: got None, .*: none yet$"):
        read_pair(None, [])
    with pytest.raises(WrongUsage, match=r"^width: got '2m'; it takes one of 1m, 5m, 15m, 1h, 4h, 1d$"):
        read_width("2m")
    with pytest.raises(WrongUsage, match=r"^at: got 'noon'; it takes a time such as"):
        read_moment("at", "noon")
    with pytest.raises(WrongUsage, match=r"^at: got .*, which is yet to come"):
        read_moment("at", (datetime.now(UTC) + timedelta(hours=1)).isoformat())
