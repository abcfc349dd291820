"""Kraken's timestamps: checked, and brought to one width.

The result is RFC 3339 in UTC with six decimals and a `Z` (27 characters), so that times compare as text. Decimals
beyond the sixth are cut, never rounded.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from collector.earliest import EARLIEST
from collector.errors import MalformedMessage

LATEST_AHEAD = timedelta(days=1)  # a wrong clock, here or there, is taken up to here
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
_WIDTH = len("2026-08-24T22:21:58.345080Z")
_SECOND_WIDTH = len("2026-08-24T22:21:58.")


def format_time(moment: datetime) -> str:
    """Write a UTC time in the one width."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def read_time(text: str) -> datetime:
    """Read what `format_time` wrote."""
    return datetime.fromisoformat(text)


def microseconds(moment: datetime) -> int:
    """An aware time as whole microseconds since 1970."""
    return (moment - EPOCH) // _MICROSECOND


def from_microseconds(count: int) -> datetime:
    """The time that is that many microseconds after 1970, in UTC."""
    return EPOCH + count * _MICROSECOND


class TimeReader:
    """Reads timestamps; nothing from before 2013 or from more than a day after `now()` is accepted.

    A busy feed sends thousands of times within one second, so the second that was accepted last is remembered and
    only the decimals behind it are looked at: 0.3 µs instead of 1.1.
    """

    __slots__ = ("_now", "_second")

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._second = " " * (_WIDTH + 1)  # no text that is looked at is as long, so that none begins with it

    def __call__(self, text: str) -> str:
        """Check a timestamp and bring it to the one width.

        Raises:
            MalformedMessage: it is no RFC 3339 time with a zone, or it is out of range.

        """
        if (
            len(text) == _WIDTH
            and text.startswith(self._second)
            and text.isascii()
            and text[_SECOND_WIDTH:-1].isdigit()
            and text[-1] == "Z"
        ):
            return text
        # Python reads more than RFC 3339 (weeks, times without a zone) and does not look at decimals beyond the sixth.
        if not _RFC_3339.fullmatch(text):
            raise MalformedMessage(f"not a time: {text[:40]!r}")
        try:
            moment = datetime.fromisoformat(text).astimezone(UTC)
        except (ValueError, OverflowError):
            raise MalformedMessage(f"not a time: {text[:40]!r}") from None
        if not EARLIEST <= moment <= self._now() + LATEST_AHEAD:
            raise MalformedMessage(f"a time that cannot be: {text[:40]!r}")
        normal = format_time(moment)
        self._second = normal[:_SECOND_WIDTH]
        return normal
