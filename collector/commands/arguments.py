"""What the commands of a person share: arguments that are read or refused, and failures told in one line.

Invariant: what a person can mend ends in one line on stderr that says what to do, and in an exit status; whatever else
is raised is a bug, whose traceback is shown.
"""

import re
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import ParamSpec

from collector import exit_status
from collector.earliest import EARLIEST
from collector.errors import StorageUnavailable, UnusableDatabase
from collector.kraken.pairs import parse_pairs
from collector.settings import SettingsError

Parameters = ParamSpec("Parameters")

_DURATION = re.compile(r"([1-9][0-9]{0,5})(ms|s|m|h|d)", re.ASCII)
_UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}


class WrongUsage(Exception):  # noqa: N818 - what the person did, not what went wrong in here
    """What was asked for makes no sense; the text says what would."""


def told_in_one_line(command: Callable[Parameters, int]) -> Callable[Parameters, int]:
    """A command, which returns its exit status, that tells what a person can mend instead of raising it."""

    @wraps(command)
    def told(*args: Parameters.args, **options: Parameters.kwargs) -> int:
        try:
            return command(*args, **options)
        except (WrongUsage, SettingsError, UnusableDatabase) as error:
            print(error, file=sys.stderr)
            return exit_status.UNUSABLE
        except StorageUnavailable as error:
            print(f"The database cannot be reached: {error}", file=sys.stderr)
            return exit_status.FOUND_WRONG

    return told


def read_time(option: str, text: str) -> datetime:
    """Read a time, of UTC where no zone is named, as an aware one in UTC.

    Raises:
        WrongUsage: it is no time, or of before Kraken.

    """
    try:
        moment = datetime.fromisoformat(text.strip())
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise WrongUsage(f"{option}: got {text!r}; it takes a time such as 2026-01-31T12:00:00Z") from None
    if moment < EARLIEST:
        raise WrongUsage(f"{option}: got {text!r}; it takes a time from {EARLIEST.year} on, when Kraken began")
    return moment


def read_pairs(option: str, text: str) -> tuple[str, ...]:
    """Read a comma list of symbols, as Kraken's v2 interface writes them.

    Raises:
        WrongUsage: it is none.

    """
    try:
        return parse_pairs(text)
    except ValueError:
        raise WrongUsage(f"{option}: got {text!r}; it takes a comma list of symbols, such as BTC/USD,ETH/EUR") from None


def read_pair(option: str, text: str) -> str:
    """Read one symbol, as Kraken's v2 interface writes it.

    Raises:
        WrongUsage: it is none, or there are several.

    """
    try:
        (symbol,) = parse_pairs(text)
    except ValueError:
        raise WrongUsage(f"{option}: got {text!r}; it takes one of Kraken's symbols, such as BTC/USD") from None
    return symbol


def read_duration(option: str, text: str) -> timedelta:
    """Read a length of time such as 500ms, 1s, 15m, 1h or 1d.

    Raises:
        WrongUsage: it is none.

    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise WrongUsage(f"{option}: got {text!r}; it takes a length of time, such as 500ms, 1s, 15m, 1h or 1d")
    return int(found[1]) * _UNITS[found[2]]


def read_choices(option: str, text: str, known: Sequence[str], *, most: int | None = None) -> tuple[str, ...]:
    """Read a comma list of known words, each once, in the order given; at most `most` of them.

    Raises:
        WrongUsage: a word is not known, there is none, or there are too many.

    """
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not words or not set(words) <= set(known) or (most is not None and len(words) > most):
        takes = "one of" if most == 1 else "a comma list of"
        raise WrongUsage(f"{option}: got {text!r}; it takes {takes} {', '.join(known)}")
    return words
