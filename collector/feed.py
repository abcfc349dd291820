"""What the socket tasks tell the book task, in the order in which it happened, and what the book task asks back.

Connections, answers and closes travel in band with the market's messages, so that the book task can miss none and
always knows to which subscription a snapshot belongs. Each names its connection; of the market's messages the pair
tells it, since a pair is subscribed on one connection at a time.
"""

from typing import TypeAlias

import msgspec
from trio_util import RepeatedEvent

from collector.kraken.messages import BookMessage, Malformed, TradeMessage
from collector.kraken.requests import Channel


class Connected(msgspec.Struct, frozen=True, gc=False):
    """A new connection, by its number within this process; nothing is subscribed on it yet."""

    connection: int


class Alive(msgspec.Struct, frozen=True, gc=False):
    """A connection has nothing to say but that it lives."""

    connection: int


class Subscribed(msgspec.Struct, frozen=True, gc=False):
    """A pair's subscription was acknowledged, at the server's `time` where it told one; a snapshot follows."""

    connection: int
    channel: Channel
    pair: str
    time: str | None


class Unsubscribed(msgspec.Struct, frozen=True, gc=False):
    """A pair's subscription was given up on purpose, and no message of it comes any more."""

    channel: Channel
    pair: str
    reason: str


class Disconnected(msgspec.Struct, frozen=True, gc=False):
    """A connection is gone; `last_frame_at` is the monotonic time (seconds) when it was last known to be alive."""

    connection: int
    reason: str
    last_frame_at: float


FeedEvent: TypeAlias = (
    Connected | Alive | Subscribed | Unsubscribed | Disconnected | BookMessage | TradeMessage | Malformed
)


class ResyncRequests:
    """The books that need a new snapshot: the book task adds them, the socket task takes them. Adding never waits."""

    def __init__(self) -> None:
        self._wanted: dict[int, set[str]] = {}
        self._added = RepeatedEvent()

    def add(self, connection: int, pair: str) -> None:
        """Ask for a new snapshot of a pair on the connection where its book went wrong."""
        self._wanted.setdefault(connection, set()).add(pair)
        self._added.set()

    async def next_pair(self, connection: int) -> str:
        """Wait for the next pair to resync on a connection."""
        while not self._wanted.get(connection):
            await self._added.wait()
        return self._wanted[connection].pop()

    def forget(self, connection: int) -> None:
        """Drop what was asked of a connection that is gone."""
        self._wanted.pop(connection, None)


class Doubts:
    """Books that somebody beside the book task found wrong, for the book task to end. Adding never waits."""

    def __init__(self) -> None:
        self._doubted: dict[str, tuple[int, str]] = {}

    def add(self, pair: str, chain: int, reason: str) -> None:
        """Doubt a run of a pair's book."""
        self._doubted[pair] = (chain, reason)

    def take(self) -> dict[str, tuple[int, str]]:
        """The doubted runs by pair, each with the reason; they are forgotten here."""
        doubted, self._doubted = self._doubted, {}
        return doubted
