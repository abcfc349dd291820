"""The parameters of a request, read or refused with one line that says what makes sense. Pure but for the clock."""

from collections.abc import Sequence
from datetime import UTC, datetime

from collector.commands.arguments import WrongUsage, read_time
from collector.dashboard.candles import WIDTHS, Width
from collector.kraken.pairs import nearest_symbols

DEFAULT_HOURS = 24
MAX_HOURS = 24 * 7  # of the coverage that is drawn: a gap of a second is no longer seen in more


def read_pair(text: str | None, known: Sequence[str]) -> str:
    """One of the pairs that were ever collected.

    Raises:
        WrongUsage: it is none of them.

    """
    if text is not None and text in known:
        return text
    examples = ", ".join(nearest_symbols(text or "", known) or known[:3]) or "none yet"
    raise WrongUsage(f"pair: got {text!r}, which was never collected; collected are, for example: {examples}")


def read_width(text: str | None) -> Width:
    """The width of a candle, by its name.

    Raises:
        WrongUsage: there is no such width.

    """
    for width in WIDTHS:
        if width.name == text:
            return width
    raise WrongUsage(f"width: got {text!r}; it takes one of {', '.join(width.name for width in WIDTHS)}")


def read_moment(name: str, text: str | None) -> datetime | None:
    """A time up to now; None where it is not given.

    Raises:
        WrongUsage: it is no time, of before Kraken, or of the future.

    """
    if text is None:
        return None
    moment = read_time(name, text)
    if moment > datetime.now(UTC):
        raise WrongUsage(f"{name}: got {text!r}, which is yet to come; it takes a time up to now")
    return moment


def read_hours(text: str | None) -> int:
    """How many hours back.

    Raises:
        WrongUsage: it is no whole number, or too many.

    """
    if text is None:
        return DEFAULT_HOURS
    if text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_HOURS)) and 1 <= int(text) <= MAX_HOURS:
        return int(text)
    raise WrongUsage(f"hours: got {text!r}; it takes a whole number from 1 to {MAX_HOURS}")
