"""Kraken's public REST interface: trades by page, and the names of the pairs.

An application error comes with HTTP status 200 in the `error` array; an HTML page comes from the edge. Both are
`RestError`. Numbers are read from the text of their tokens: a time has up to 7 decimals, which no float holds.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import httpx2
import msgspec

from collector.errors import MalformedMessage, RestError, UnknownPair
from collector.kraken.digits import plain_digits, with_decimals
from collector.kraken.orderbook import parse_level
from collector.kraken.pairs import v2_symbol
from collector.kraken.times import format_time
from collector.records import Trade

TIMEOUT = 10.0  # seconds for an answer; the largest, AssetPairs, is 0.7 MB

_SIDES = {"b": "buy", "s": "sell"}
_ORDER_TYPES = {"m": "market", "l": "limit"}
_NULL = msgspec.Raw(b"null")
_NANOSECOND_DECIMALS = 9
TRADES_LIMIT = 1000  # rows of a page of trades at most

_LATEST = 2**63  # nanoseconds, in the year 2262: no time of a trade
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNKNOWN_PAIR = "EQuery:Unknown asset pair"
_THROTTLED = re.compile(r"EService: ?Throttled: ?([0-9]{1,12})")


class RestTrade(msgspec.Struct, frozen=True, gc=False):
    """A trade as REST tells it: its price is padded to 5 decimals, its time is in nanoseconds since 1970."""

    trade_id: int
    nanoseconds: int
    price: bytes
    volume: bytes
    side: str
    order_type: str


class TradesPage(msgspec.Struct, frozen=True, gc=False):
    """A page of trades, oldest first; `last` is the cursor of the next page, in nanoseconds, None where it lacks."""

    trades: list[RestTrade]
    last: int | None


_Row = tuple[str, str, msgspec.Raw, str, str, str, Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]]


class _Envelope(msgspec.Struct, gc=False):
    error: list[str]
    result: msgspec.Raw = _NULL  # a union with None takes no object


class _Depth(msgspec.Struct, gc=False):
    bids: list[tuple[str, str, int]]
    asks: list[tuple[str, str, int]]


class Precision(msgspec.Struct, frozen=True, gc=False):
    """How many decimals the prices and the volumes of a pair have."""

    price: int
    volume: int


class _AssetPair(msgspec.Struct, gc=False):
    wsname: str | None = None


class _Precise(msgspec.Struct, gc=False):
    pair_decimals: Annotated[int, msgspec.Meta(ge=0)]
    lot_decimals: Annotated[int, msgspec.Meta(ge=0)]


_envelope_decoder = msgspec.json.Decoder(_Envelope)
_result_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_rows_decoder = msgspec.json.Decoder(list[_Row])
_depth_decoder = msgspec.json.Decoder(dict[str, _Depth])
_precise_decoder = msgspec.json.Decoder(dict[str, _Precise])
_asset_pairs_decoder = msgspec.json.Decoder(dict[str, _AssetPair])


def parse_result(body: bytes) -> msgspec.Raw:
    """The `result` of an answer.

    Raises:
        RestError: the answer is an error, or none of Kraken's.

    """
    try:
        envelope = _envelope_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # deep nesting ends in the last one
        raise RestError(f"not an answer of Kraken's: {body[:100]!r}") from None
    if envelope.error or envelope.result == _NULL:
        raise _refusal("; ".join(envelope.error) or "an answer without a result")
    return envelope.result


def _refusal(told: str) -> RestError:
    if _UNKNOWN_PAIR in told:
        return UnknownPair(told)
    throttled = _THROTTLED.match(told)
    return RestError(told, not_before=int(throttled[1]) if throttled else 0)


def parse_trades(body: bytes) -> TradesPage:
    """Read an answer of `Trades`.

    Raises:
        RestError: the answer is an error, or not as documented.

    """
    try:
        result = _result_decoder.decode(parse_result(body))
        last = result.pop("last", None)
        (rows,) = result.values()  # the pair's key depends on how the pair was asked for
        trades = [_trade(row) for row in _rows_decoder.decode(rows)]
        return TradesPage(trades, None if last is None else int(msgspec.json.decode(last, type=str)))
    except (msgspec.DecodeError, MalformedMessage, KeyError, ValueError) as error:
        raise RestError(f"a page of trades that is not as documented: {error}") from error


def _trade(row: _Row) -> RestTrade:
    price, volume, time, side, order_type, _, trade_id = row
    seconds, _, decimals = plain_digits(bytes(time)).partition(b".")
    nanoseconds = int(seconds + decimals[:_NANOSECOND_DECIMALS].ljust(_NANOSECOND_DECIMALS, b"0"))
    if nanoseconds >= _LATEST:
        raise MalformedMessage(f"a time that cannot be: {bytes(time)!r}")
    if not order_type.isprintable():  # as in what the WebSocket sends
        raise MalformedMessage(f"an order type that is no word: {order_type!r}")
    return RestTrade(
        trade_id=trade_id,
        nanoseconds=nanoseconds,
        price=plain_digits(price.encode()),
        volume=plain_digits(volume.encode()),
        side=_SIDES[side],
        order_type=_ORDER_TYPES.get(order_type, order_type),
    )


def to_trade(told: RestTrade, pair: str, precision: Precision) -> Trade:
    """A trade as the WebSocket tells it: one that comes both ways is one row, with one set of digits.

    Its time is cut to microseconds, as Kraken cuts it there; its price and its volume lose the zeros beyond the
    pair's decimals, and no other digit.
    """
    return Trade(
        format_time(_EPOCH + timedelta(microseconds=told.nanoseconds // 1000)),
        pair,
        with_decimals(told.price, precision.price),
        with_decimals(told.volume, precision.volume),
        told.side,
        told.order_type,
        told.trade_id,
    )


def parse_depth(body: bytes) -> tuple[list[int], list[int]]:
    """The prices of bids and of asks in an answer of `Depth`, best first, in units of 10**-18.

    Raises:
        RestError: the answer is an error, or not as documented.

    """
    try:
        (depth,) = _depth_decoder.decode(parse_result(body)).values()
        bids, asks = (
            [parse_level(price.encode(), volume.encode()).rank for price, volume, _ in side]
            for side in (depth.bids, depth.asks)
        )
    except (msgspec.DecodeError, MalformedMessage, ValueError) as error:
        raise RestError(f"a depth that is not as documented: {error}") from error
    return bids, asks


def parse_precision(body: bytes) -> Precision:
    """The decimals of the one pair in an answer of `AssetPairs`.

    Raises:
        RestError: the answer is an error, or not as documented.

    """
    try:
        (pair,) = _precise_decoder.decode(parse_result(body)).values()
    except (msgspec.DecodeError, ValueError) as error:
        raise RestError(f"an asset pair that is not as documented: {error}") from error
    return Precision(pair.pair_decimals, pair.lot_decimals)


def parse_symbols(body: bytes) -> list[str]:
    """The v2 names of all pairs in an answer of `AssetPairs`.

    Raises:
        RestError: the answer is an error, or not as documented.

    """
    try:
        pairs = _asset_pairs_decoder.decode(parse_result(body))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RestError(f"asset pairs that are not as documented: {error}") from error
    return [v2_symbol(pair.wsname) for pair in pairs.values() if pair.wsname]


async def fetch(client: httpx2.AsyncClient, method: str, **parameters: Any) -> bytes:
    """The body of a public endpoint's answer; the client's base URL is Kraken's.

    Raises:
        RestError: it could not be had.

    """
    try:
        response = await client.get(f"/0/public/{method}", params=parameters, timeout=TIMEOUT)
    except httpx2.HTTPError as error:
        raise RestError(f"{method}: {error or type(error).__name__}") from error
    if response.status_code != httpx2.codes.OK:
        raise RestError(f"{method}: HTTP status {response.status_code}")
    return response.content


async def fetch_trades(client: httpx2.AsyncClient, pair: str, since: int, count: int = TRADES_LIMIT) -> TradesPage:
    """A page of trades from `since` on, in nanoseconds since 1970.

    Raises:
        UnknownPair: there is no such pair.
        RestError: it could not be had.

    """
    return parse_trades(await fetch(client, "Trades", pair=pair, since=since, count=count))


async def fetch_precision(client: httpx2.AsyncClient, pair: str) -> Precision:
    """How many decimals the numbers of a pair have. Raises likewise."""
    return parse_precision(await fetch(client, "AssetPairs", pair=pair))


async def fetch_depth(client: httpx2.AsyncClient, pair: str, levels: int) -> tuple[list[int], list[int]]:
    """The best prices of bids and of asks, as `parse_depth` has them.

    Raises:
        RestError: they could not be had.

    """
    return parse_depth(await fetch(client, "Depth", pair=pair, count=levels))


async def fetch_symbols(client: httpx2.AsyncClient) -> list[str]:
    """The v2 names of all pairs that Kraken trades.

    Raises:
        RestError: they could not be had.

    """
    return parse_symbols(await fetch(client, "AssetPairs"))
