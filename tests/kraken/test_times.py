"""Timestamps: one width, cut and never rounded, checked once, and the quick way as strict as the slow one."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.earliest import EARLIEST
from collector.errors import MalformedMessage
from collector.kraken.times import LATEST_AHEAD, TimeReader, format_time, read_time

NOW = datetime(2026, 11, 24, 12, 0, 0, 999_999, tzinfo=UTC)  # the end of a second: the limit is looked at once in each
GOOD = "2026-08-24T22:21:58.345080Z"
seconds = st.integers(0, (NOW - EARLIEST) // timedelta(seconds=1)).map(
    lambda count: EARLIEST + timedelta(seconds=count)
)


def new_reader() -> TimeReader:
    return TimeReader(lambda: NOW)


def outcome(reader: TimeReader, text: str) -> str | None:
    try:
        return reader(text)
    except MalformedMessage:
        return None


@given(
    seconds,
    st.text("0123456789", max_size=12),
    st.integers(-14 * 60, 14 * 60),
)
def test_any_time_is_brought_to_one_width_and_cut(second: datetime, decimals: str, offset: int) -> None:
    """Prevents rounding into the next microsecond or day, and a zone that is dropped instead of converted."""
    fraction = f".{decimals}" if decimals else ""
    text = second.replace(tzinfo=None).isoformat()
    expected = f"{text}.{decimals[:6]:0<6}Z"
    assert new_reader()(f"{text}{fraction}Z") == expected
    local = second.astimezone(timezone(timedelta(minutes=offset)))
    sign, minutes = "-" if offset < 0 else "+", abs(offset)
    zone = f"{sign}{minutes // 60:02}:{minutes % 60:02}"
    assert new_reader()(f"{local.replace(tzinfo=None).isoformat()}{fraction}{zone}") == expected


def test_last_nanosecond_of_a_day_stays_in_it() -> None:
    """Prevents a row in the wrong day's partition."""
    assert new_reader()("2025-12-31T23:59:59.999999999Z") == "2025-12-31T23:59:59.999999Z"


@pytest.mark.parametrize(
    ("moment", "accepted"),
    [
        (EARLIEST, True),
        (EARLIEST - timedelta(microseconds=1), False),
        (NOW + LATEST_AHEAD, True),
        (NOW + LATEST_AHEAD + timedelta(microseconds=1), False),
    ],
)
def test_range(moment: datetime, accepted: bool) -> None:
    """Prevents rows at 1970 or in the far future, for which there is no partition."""
    assert (outcome(new_reader(), format_time(moment)) is not None) is accepted


@pytest.mark.parametrize(
    "text",
    [
        *("", "now", "2026-08-24", "2026-08-24T22:21:58", "2026-08-24T22:21:58.345080", "2026-08-24 22:21:58Z"),
        *("2026-13-24T22:21:58Z", "2026-02-30T22:21:58Z", "2026-08-24T25:21:58Z", "2026-08-24T22:21:60Z"),
        *("2026-W35-1T22:21:58Z", "20260824T222158Z", "2026-08-24T22:21:58,345Z", "2026-08-24T22:21:58.Z"),
        *(
            "2026-08-24T22:21:58+99:00",
            "0001-01-01T00:00:00+10:00",
            "9999-12-31T23:59:59-10:00",
            GOOD + "\n",
            " " + GOOD,
        ),
        *("2026-08-24T22:21:58.34508099xZ", "1724538118.345080", GOOD.replace("345080", "٣٤٥٠٨٠"), "?" * 26 + "Z"),
        *("?" + 19 * "x" + "123456Z", " " * 20 + "123456Z", "2026-08-24T22:21:58.345080z"),
    ],
)
def test_what_is_no_time_is_refused_before_and_after_a_good_one(text: str) -> None:
    """Prevents a remembered second, or the lack of one, from letting through what is no RFC 3339 time with a zone."""
    reader = new_reader()
    assert outcome(reader, text) is None
    assert reader(GOOD) == GOOD
    assert outcome(reader, text) is None


variations = st.builds(
    lambda text, position, character: text[:position] + character + text[position + 1 :],
    st.sampled_from([GOOD, "2026-08-24T22:21:58Z", "2026-11-25T12:00:00.000000Z", "2012-12-31T23:59:59.999999Z"]),
    st.integers(0, 27),
    st.sampled_from(["", *"0123456789Zz.:-T+ ?x", "٣", "²", "\0"]),
)


@settings(max_examples=300)
@given(st.lists(variations, max_size=20))
def test_remembered_second_cannot_be_told_from_outside(texts: list[str]) -> None:
    """Prevents any order of good and bad times from changing what one of them means."""
    reader = new_reader()
    for text in texts:
        assert outcome(reader, text) == outcome(new_reader(), text)


def test_clock_is_asked_again_for_each_new_second() -> None:
    """Prevents times that were too early once from being refused for ever."""
    now = NOW
    reader = TimeReader(lambda: now)
    late = format_time(NOW + LATEST_AHEAD + timedelta(seconds=5))
    assert outcome(reader, late) is None
    now = NOW + timedelta(seconds=10)
    assert outcome(reader, late) == late


@given(seconds, st.timedeltas(timedelta(days=-9), timedelta(days=9)))
def test_written_times_compare_as_text_and_read_back(one: datetime, later: timedelta) -> None:
    """Prevents coverage that compares texts of two widths."""
    other = one + later
    assert read_time(format_time(other)) == other
    assert (format_time(one) < format_time(other)) == (one < other)
    assert format_time(one.astimezone(timezone(timedelta(hours=5)))) == format_time(one)
