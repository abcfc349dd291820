"""Kraken's public REST interface: trades by page, and the names of the pairs.

An application error comes with HTTP status 200 in the `error` array; an HTML page comes from the edge. Both are
`RestError`. Numbers are read from the text of their tokens: a time has up to 7 decimals, which no float holds.
"""

from typing import Annotated, Any

import httpx2
import msgspec

from collector.errors import MalformedMessage, RestError
from collector.kraken.digits import plain_digits
from collector.kraken.pairs import v2_symbol

TIMEOUT = 10.0  # seconds for an answer; the largest, AssetPairs, is 0.7 MB

_SIDES = {"b": "buy", "s": "sell"}
_ORDER_TYPES = {"m": "market", "l": "limit"}
_NANOSECOND_DECIMALS = 9


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


_NULL = msgspec.Raw(b"null")


class _Envelope(msgspec.Struct, gc=False):
    error: list[str]
    result: msgspec.Raw = _NULL  # no union with None: that refuses every object


class _AssetPair(msgspec.Struct, gc=False):
    wsname: str | None = None


_envelope_decoder = msgspec.json.Decoder(_Envelope)
_result_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_rows_decoder = msgspec.json.Decoder(list[_Row])
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
        raise RestError("; ".join(envelope.error) or "an answer without a result")
    return envelope.result


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
    return RestTrade(
        trade_id=trade_id,
        nanoseconds=int(seconds + decimals[:_NANOSECOND_DECIMALS].ljust(_NANOSECOND_DECIMALS, b"0")),
        price=plain_digits(price.encode()),
        volume=plain_digits(volume.encode()),
        side=_SIDES[side],
        order_type=_ORDER_TYPES.get(order_type, order_type),
    )


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


async def fetch_symbols(client: httpx2.AsyncClient) -> list[str]:
    """The v2 names of all pairs that Kraken trades.

    Raises:
        RestError: they could not be had.

    """
    return parse_symbols(await fetch(client, "AssetPairs"))
