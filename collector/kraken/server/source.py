"""Where a server's market data comes from: the protocol that every source keeps.

A source outlives connections; a session belongs to one connection. Frames are whole v2 messages as bytes, and go to
the client as they are. Times are nanoseconds since 1970 in UTC, prices and quantities are digits; neither is ever a
float.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple, Protocol

from collector.kraken.pairs import Instrument

TRADE_SNAPSHOT_ROWS = 50  # what Kraken sends when a trade subscription asks for a snapshot
FRAMES_A_BATCH = 64  # 12 kB of updates: enough to pay for a write, few enough to leave room for others in between
NANOSECONDS = 10**9


TRY_AGAIN_LATER = 1013  # the close code for a server that cannot serve now


class ConnectionEnds(Exception):  # noqa: N818 - named by what happened, as the field does
    """A source ends a connection. Recovered in the server: it closes it, behind all that its streams have given.

    Attributes:
        code: the close code, and the exception's text the reason, of at most 123 bytes (RFC 6455 5.5).

    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class SubscriberTooSlow(ConnectionEnds):
    """A client leaves too much of a live stream unread."""

    def __init__(self, reason: str) -> None:
        super().__init__(TRY_AGAIN_LATER, reason)


class PublicTrade(NamedTuple):
    """A trade as REST gives it: with nanoseconds, which the WebSocket cuts to microseconds."""

    trade_id: int
    time: int
    price: str
    qty: str
    side: str
    order_type: str


class DepthRow(NamedTuple):
    """A level as REST gives it; `time` is in whole seconds."""

    price: str
    qty: str
    time: int


class Session(Protocol):
    """One connection's view of a source.

    A stream is an async generator of batches of frames; whoever iterates it closes it, and may drop the batch that
    it did not use: a batch counts as sent when the next one is asked for. A stream that ends leaves its subscription
    standing, in silence.
    """

    def now(self) -> int:
        """The time that acks carry."""

    def book(self, symbol: str, depth: int, *, snapshot: bool) -> AsyncGenerator[Sequence[bytes], None]:
        """A book from now on: a snapshot if wanted, then every update.

        Raises:
            ConnectionEnds: from the stream; what was not taken is lost.

        """

    def trades(self, symbol: str, *, snapshot: bool) -> AsyncGenerator[Sequence[bytes], None]:
        """The trades from now on: the last 50 as a snapshot if wanted, then every update. Raises likewise."""


class Source(Protocol):
    """A market: what can be subscribed, sessions to do so, and the pages of REST."""

    @property
    def instruments(self) -> Mapping[str, Instrument]:
        """The pairs, by symbol."""

    @property
    def depths(self) -> Mapping[str, Sequence[int]]:
        """The depths of book that it can give, by symbol."""

    def now(self) -> int:
        """The market's clock, which REST tells."""

    def open_session(self) -> AbstractAsyncContextManager[Session]:
        """Begin what one connection sees."""

    async def trades_page(self, symbol: str, since: int | None, count: int) -> Sequence[PublicTrade]:
        """At most `count` trades in order: from `since` on, that time included, or the last ones when it is None."""

    async def depth_page(self, symbol: str, count: int) -> tuple[Sequence[DepthRow], Sequence[DepthRow]]:
        """At most `count` levels of a side, best first: bids and asks."""


def format_nanoseconds(time: int) -> str:
    """Write a time as v2 does: RFC 3339, UTC, microseconds (cut, not rounded)."""
    seconds, nanoseconds = divmod(time, NANOSECONDS)
    return f"{_format_second(seconds)}.{nanoseconds // 1000:06d}Z"


@lru_cache(maxsize=64)  # a busy market writes thousands of times within a second
def _format_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def parse_nanoseconds(text: str) -> int:
    """Read such a time."""
    moment = datetime.fromisoformat(text)
    return int(moment.replace(microsecond=0).timestamp()) * NANOSECONDS + moment.microsecond * 1000
