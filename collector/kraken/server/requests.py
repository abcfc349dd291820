"""Requests to a v2 server and its answers: which are granted, and the exact shape and words of both.

Pure. Answers have their keys in alphabetical order, as Kraken's have. Where Kraken's v2 text for a refusal is not
known, v1's is used; those are marked.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from collector.kraken.pairs import BOOK_DEPTHS, Instrument

DEFAULT_DEPTH = 10
PRIVATE_CHANNELS = frozenset({"executions", "balances", "level3"})
SUBSCRIBABLE = {
    "book": frozenset({"channel", "symbol", "depth", "snapshot"}),
    "trade": frozenset({"channel", "symbol", "snapshot"}),
    "instrument": frozenset({"channel", "snapshot", "include_tokenized_assets", "execution_venue"}),
}
SNAPSHOT_BY_DEFAULT = {"book": True, "trade": False, "instrument": True}

PAIR_UNKNOWN = "Currency pair not supported {}"
DEPTH_UNKNOWN = "Subscription depth not supported"
CHANNEL_UNKNOWN = "Subscription name invalid"
NO_SYMBOLS = "Symbol(s) not found"
FIELD_UNKNOWN = "Unsupported field: '{}'"
PRIVATE_CHANNEL = "Private data and trading are unavailable on this endpoint. Try ws-auth.kraken.com"
ALREADY_SUBSCRIBED = "Already subscribed"  # v1's
NOT_SUBSCRIBED = "Subscription Not Found"  # v1's
MALFORMED = "Malformed request"  # v1's
DEPTH_NO_INTEGER = "Subscription book depth must be an integer"  # v1's
METHOD_UNKNOWN = "Unsupported method"  # ours: nothing is known


class Refused(Exception):  # noqa: N818 - named by what happened, as the field does
    """A request, or what it asks about one pair, is refused. Recovered in the server: it answers with the text."""

    def __init__(self, error: str, symbol: str | None = None) -> None:
        super().__init__(error)
        self.error = error
        self.symbol = symbol


class Topic(NamedTuple):
    """What a subscription is about. The instruments have no symbol (""), and only books have a depth (else 0)."""

    channel: str
    symbol: str
    depth: int


class Request(msgspec.Struct):
    """What a client asks."""

    method: str
    params: dict[str, Any] = {}
    req_id: int | None = None


def parse_request(text: str | bytes) -> Request:
    """Read a request.

    Raises:
        Refused: it is not one.

    """
    try:
        return msgspec.json.decode(text, type=Request)
    except msgspec.DecodeError:
        raise Refused(MALFORMED) from None


def read_topics(
    request: Request, instruments: Mapping[str, Instrument], depths: Mapping[str, Sequence[int]]
) -> list[Topic | Refused]:
    """What a subscribe or unsubscribe asks for, pair by pair.

    A pair that is not known, or not at that depth, is refused by itself.

    Raises:
        Refused: the whole request is.

    """
    params = request.params
    channel = params.get("channel")
    if channel in PRIVATE_CHANNELS:
        raise Refused(PRIVATE_CHANNEL)
    if channel in ("status", "heartbeat"):  # they are pushed, and cannot be asked for
        raise Refused(NO_SYMBOLS)
    if not isinstance(channel, str) or channel not in SUBSCRIBABLE:
        raise Refused(CHANNEL_UNKNOWN)
    for name in params:
        if name not in SUBSCRIBABLE[channel]:
            raise Refused(FIELD_UNKNOWN.format(name))
    if channel == "instrument":
        return [Topic(channel, "", 0)]
    symbols = params.get("symbol")
    if not isinstance(symbols, list) or not symbols or not all(isinstance(symbol, str) for symbol in symbols):
        raise Refused(NO_SYMBOLS)
    depth = params.get("depth", DEFAULT_DEPTH) if channel == "book" else 0
    if type(depth) is not int:
        raise Refused(DEPTH_NO_INTEGER)
    if channel == "book" and depth not in BOOK_DEPTHS:
        raise Refused(DEPTH_UNKNOWN)
    return [_topic(channel, symbol, depth, instruments, depths) for symbol in symbols]


def _topic(
    channel: str, symbol: str, depth: int, instruments: Mapping[str, Instrument], depths: Mapping[str, Sequence[int]]
) -> Topic | Refused:
    if symbol not in instruments:
        return Refused(PAIR_UNKNOWN.format(symbol), symbol)
    if channel == "book" and depth not in depths[symbol]:
        return Refused(DEPTH_UNKNOWN, symbol)
    return Topic(channel, symbol, depth)


def wants_snapshot(request: Request) -> bool:
    """Whether a subscribe asks for one, or leaves it to the channel's default."""
    return bool(request.params.get("snapshot", SNAPSHOT_BY_DEFAULT[request.params["channel"]]))


def granted(request: Request, topic: Topic, time_in: str, time_out: str, *, snapshot: bool) -> bytes:
    """The answer that grants one topic."""
    result: dict[str, Any] = {"channel": topic.channel}
    if topic.channel == "book":
        result["depth"] = topic.depth
    if topic.channel == "book" or request.method == "subscribe":
        result["snapshot"] = snapshot
    if topic.symbol:
        result["symbol"] = topic.symbol
    elif request.method == "subscribe":
        result["warnings"] = ["tick_size is deprecated, use price_increment"]
    return _answer(request, {"result": result, "success": True, "time_in": time_in, "time_out": time_out})


def refused(request: Request | None, refusal: Refused, time_in: str, time_out: str) -> bytes:
    """The answer that refuses; without a request when it could not be read."""
    answer: dict[str, Any] = {"error": refusal.error, "success": False, "time_in": time_in, "time_out": time_out}
    if refusal.symbol is not None:
        answer["symbol"] = refusal.symbol
    return _answer(request, answer)


def pong(request: Request, time_in: str, time_out: str) -> bytes:
    """The answer to an application ping."""
    answer = _answer(request, {"time_in": time_in, "time_out": time_out})
    return answer.replace(b'"method":"ping"', b'"method":"pong"', 1)


def _answer(request: Request | None, answer: dict[str, Any]) -> bytes:
    if request is not None:
        answer["method"] = request.method
        if request.req_id is not None:
            answer["req_id"] = request.req_id
    return msgspec.json.encode(answer, order="sorted")
