"""Times of the market: nanoseconds since 1970 in UTC, as the server has them, and what PostgreSQL calls them."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache

from collector.kraken.server.source import NANOSECONDS

MICROSECOND = 1000  # nanoseconds: the finest that is stored

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - UTC without zone, like the columns
_SECOND_WIDTH = len("2026-08-24 22:21:58")


def moment(time: int) -> datetime:
    """A time as the tables have it: in UTC without a zone."""
    return _EPOCH + timedelta(microseconds=time // MICROSECOND)


def nanoseconds(moment: datetime) -> int:
    """The time of such a moment."""
    return (moment - _EPOCH) // timedelta(microseconds=1) * MICROSECOND


def read_nanoseconds(text: str) -> int:
    """Read a time as PostgreSQL writes it, which leaves out zeros at the end of a second's decimals."""
    return _read_second(text[:_SECOND_WIDTH]) + int(text[_SECOND_WIDTH + 1 :].ljust(6, "0")) * MICROSECOND


@lru_cache(maxsize=64)  # a busy market has thousands of rows within a second
def _read_second(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * NANOSECONDS
