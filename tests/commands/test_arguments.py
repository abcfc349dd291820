"""Arguments are read in one way, and what a person can mend is told in one line with its exit status."""

from datetime import UTC, datetime, timedelta

import pytest

from collector.commands.arguments import (
    WrongUsage,
    read_choices,
    read_duration,
    read_pair,
    read_pairs,
    read_time,
    told_in_one_line,
)
from collector.errors import StorageUnavailable, UnusableDatabase
from collector.settings import SettingsError


@pytest.mark.parametrize(
    "text", ["2026-01-31T12:00:00Z", "2026-01-31 12:00", " 2026-01-31T14:00:00+02:00 ", "2026-01-31T12:00:00.000Z"]
)
def test_times_are_utc(text: str) -> None:
    """Prevents zones from being mixed up."""
    moment = read_time("--at", text)
    assert moment == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert moment.utcoffset() == datetime.now(UTC).utcoffset()


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "0001-01-01T00:00+14:00", "1999-01-01"])
def test_what_is_no_time_is_refused_by_name(text: str) -> None:
    """Prevents a traceback, and a text that does not say which argument is wrong."""
    with pytest.raises(WrongUsage, match=r"^--at: got .*; it takes a time "):
        read_time("--at", text)


def test_pairs() -> None:
    """Prevents several symbols from being taken for one, and what is no symbol from being asked for."""
    assert read_pairs("--pairs", "BTC/USD,ETH/EUR") == ("BTC/USD", "ETH/EUR")
    assert read_pair("PAIR", "XDG/USD") == "DOGE/USD"
    with pytest.raises(WrongUsage, match=r"^--pairs: got 'bitcoin'; it takes a comma list"):
        read_pairs("--pairs", "bitcoin")
    for text in ("bitcoin", "BTC/USD,ETH/EUR", ""):
        with pytest.raises(WrongUsage, match=r"^PAIR: got .*; it takes one of Kraken's symbols"):
            read_pair("PAIR", text)


def test_lengths_of_time() -> None:
    """Prevents a minute from being taken for a month or a millisecond, and a length of nothing."""
    seconds = {"500ms": 0.5, "1s": 1, " 15m ": 900, "1h": 3600, "1d": 86400}
    for text, length in seconds.items():
        assert read_duration("--every", text) == timedelta(seconds=length)
    for text in ("", "1", "0s", "-1s", "1.5s", "1M", "1 s", "9999999s"):
        with pytest.raises(WrongUsage, match=r"^--every: got .*; it takes a length of time, such as"):
            read_duration("--every", text)


def test_choices_are_known_words() -> None:
    """Prevents a word that is misspelt from being passed over."""
    assert read_choices("--what", "b, a,b", ("a", "b", "c")) == ("b", "a")
    for text, most in (("", None), ("d", None), ("a,d", None), ("a,b", 1)):
        with pytest.raises(WrongUsage, match=r"^--what: got .*; it takes (one|a comma list) of a, b, c"):
            read_choices("--what", text, ("a", "b", "c"), most=most)


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (WrongUsage("no"), 2, "no\n"),
        (SettingsError("no"), 2, "no\n"),
        (UnusableDatabase("no"), 2, "no\n"),
        (StorageUnavailable("no"), 1, "The database cannot be reached: no\n"),
    ],
)
def test_what_can_be_mended_is_one_line(
    error: Exception, status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prevents a traceback where a person can help, and a script from mistaking a bad setting for bad data."""

    @told_in_one_line
    def command(error: Exception) -> int:
        raise error

    assert command(error) == status
    assert capsys.readouterr() == ("", line)


def test_bugs_are_raised() -> None:
    """Prevents a bug from being told as somebody's mistake."""

    @told_in_one_line
    def command() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        command()
