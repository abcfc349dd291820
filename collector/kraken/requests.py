"""The requests that the collector sends on Kraken's v2 WebSocket, and the bookkeeping of their answers.

A request for several pairs is answered once a pair, all with its `req_id`; an answer that refuses may name neither
pair nor channel. Answers are therefore matched by `req_id` first, then by pair.
"""

from collections.abc import Collection
from typing import Literal, TypeAlias

import msgspec
import trio

from collector.kraken.messages import Response

Channel: TypeAlias = Literal["book", "trade"]
Method: TypeAlias = Literal["subscribe", "unsubscribe"]

RATE_LIMITED = "Exceeded msg rate"


def subscribe_instruments() -> str:
    """The frame that asks for the list of pairs, and for what changes in it."""
    return msgspec.json.encode({"method": "subscribe", "params": {"channel": "instrument", "snapshot": True}}).decode()


class Request:
    """A subscribe or unsubscribe under way.

    `waiting` holds the pairs without an answer yet, `refused` the answers of those that were refused, and `answered`
    is set when `waiting` is empty. An unsubscribe must name the depth that was subscribed: the server keys a book
    subscription by channel, pair and depth.
    """

    def __init__(self, number: int, method: Method, channel: Channel, pairs: Collection[str], depth: int) -> None:
        self.number = number
        self.method = method
        self.channel = channel
        self.depth = depth
        self.waiting = set(pairs)
        self.refused: dict[str, str] = {}
        self.answered = trio.Event()

    def encode(self) -> str:
        """The frame that asks for every pair that is still waiting."""
        params: dict[str, object] = {"channel": self.channel, "symbol": sorted(self.waiting)}
        if self.channel == "book":
            params["depth"] = self.depth
        if self.method == "subscribe":
            params["snapshot"] = True
        return msgspec.json.encode({"method": self.method, "params": params, "req_id": self.number}).decode()

    def take(self, response: Response) -> set[str] | None:
        """Note an answer; return the pairs that it answers, None where it does not fit what was asked."""
        pairs = {response.pair} if response.pair is not None else set(self.waiting)
        fits = response.method in (self.method, None) and response.channel in (self.channel, None)
        if not fits or not pairs or not pairs <= self.waiting or (response.pair is None and response.error is None):
            return None
        if response.error == RATE_LIMITED:  # not a refusal: it is asked again after a while
            return set()
        self.waiting -= pairs
        if response.error is not None:
            self.refused.update(dict.fromkeys(pairs, response.error))
        if not self.waiting:
            self.answered.set()
        return pairs
