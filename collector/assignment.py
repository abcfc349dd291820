"""Which subscriptions this process should hold now.

They are the pairs that are wanted and that it has the lock of, on the channels for which the spool has room, each on
one of its sockets.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import TypeAlias

from trio_util import AsyncValue, compose_values

from collector.kraken.requests import Channel

Subscription: TypeAlias = tuple[Channel, str]  # a channel and a pair

CHANNELS: frozenset[Channel] = frozenset({"trade", "book"})


class Assignment:
    """What others decide and the socket tasks carry out.

    Attributes:
        wanted: the pairs that all processes with these settings collect together, as far as the exchange lists them.
        pairs: those that this process is to collect; empty until the lock task knows.
        channels: the channels that may be taken in; fewer when the spool runs out of room.

    """

    def __init__(self, pairs: Iterable[str] = (), wanted: Iterable[str] = ()) -> None:
        self.wanted: AsyncValue[frozenset[str]] = AsyncValue(frozenset(wanted))
        self.pairs: AsyncValue[frozenset[str]] = AsyncValue(frozenset(pairs))
        self.channels: AsyncValue[frozenset[Channel]] = AsyncValue(CHANNELS)

    def why_not(self, subscription: Subscription) -> str:
        """Why a subscription is not to be held: the reason that coverage tells."""
        channel, pair = subscription
        if channel not in self.channels.value:
            return "spool_full"
        return "yielded" if pair in self.wanted.value else "delisted"


class Share:
    """What of an assignment one socket carries out: its `pairs`, on the assignment's channels."""

    def __init__(self, assignment: Assignment, pairs: Iterable[str]) -> None:
        self.pairs: AsyncValue[frozenset[str]] = AsyncValue(frozenset(pairs))
        self.why_not = assignment.why_not
        self._channels = assignment.channels

    def subscriptions(self) -> AbstractContextManager[AsyncValue[frozenset[Subscription]]]:
        """The subscriptions to hold, as a value that follows pairs and channels for the length of the block."""
        composed: AbstractContextManager[AsyncValue[frozenset[Subscription]]] = compose_values(
            _transform_=lambda both: frozenset((channel, pair) for channel in both.channels for pair in both.pairs),
            pairs=self.pairs,
            channels=self._channels,
        )
        return composed
