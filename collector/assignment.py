"""Which subscriptions this process should hold now: the pairs that it has the lock of, on the channels with room."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import TypeAlias

from trio_util import AsyncValue, compose_values

from collector.kraken.requests import Channel

Subscription: TypeAlias = tuple[Channel, str]  # a channel and a pair

CHANNELS: frozenset[Channel] = frozenset({"trade", "book"})


class Assignment:
    """What others decide and the socket task carries out.

    Attributes:
        pairs: the pairs to collect; empty until the lock task knows.
        channels: the channels that may be taken in; fewer when the spool runs out of room.

    """

    def __init__(self, pairs: Iterable[str] = ()) -> None:
        self.pairs: AsyncValue[frozenset[str]] = AsyncValue(frozenset(pairs))
        self.channels: AsyncValue[frozenset[Channel]] = AsyncValue(CHANNELS)

    def subscriptions(self) -> AbstractContextManager[AsyncValue[frozenset[Subscription]]]:
        """The subscriptions to hold, as a value that follows pairs and channels for the length of the block."""
        composed: AbstractContextManager[AsyncValue[frozenset[Subscription]]] = compose_values(
            _transform_=lambda both: frozenset((channel, pair) for channel in both.channels for pair in both.pairs),
            pairs=self.pairs,
            channels=self.channels,
        )
        return composed

    def why_not(self, subscription: Subscription) -> str:
        """Why a subscription is not to be held: the reason that coverage tells."""
        channel, _ = subscription
        return "yielded" if channel in self.channels.value else "spool_full"
