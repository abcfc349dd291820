"""Kraken's public REST API over a source: what it answers to a call. Errors of the API are part of the body."""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import msgspec

from collector.kraken.pairs import Instrument
from collector.kraken.server.source import NANOSECONDS, DepthRow, PublicTrade, Source

TRADES_LIMIT = 1000  # also the default
DEPTH_LIMIT, DEPTH_DEFAULT = 500, 100
PRICE_DECIMALS = 5  # prices are padded to these, whatever the pair's precision
LARGEST_SECONDS = 10**12  # a `since` above it is in nanoseconds, as Kraken tells the two apart

UNKNOWN_PAIR = "EQuery:Unknown asset pair"
INVALID_ARGUMENT = "EGeneral:Invalid arguments:{}"
UNKNOWN_METHOD = "EGeneral:Unknown method"
RATE_LIMITED = "EGeneral:Too many requests"

# Assets that REST knows by another name than v2, or by an id with a prefix (the oldest ones; all others have none).
_RENAMED = {"BTC": "XBT", "DOGE": "XDG"}
_X_ASSETS = frozenset({"XBT", "XDG", "ETH", "LTC", "XRP", "XLM", "XMR", "ZEC", "ETC", "REP", "MLN"})
_Z_ASSETS = frozenset({"USD", "EUR", "GBP", "CAD", "JPY", "AUD"})


class RestError(Exception):
    """A call that the API refuses, with its text. Recovered in the server: it is the answer."""


class PairNames(msgspec.Struct, frozen=True):
    """How REST calls a pair and its assets; results are keyed by `key`."""

    base: str
    quote: str
    altname: str
    wsname: str
    key: str


def pair_names(symbol: str) -> PairNames:
    """REST's names for a v2 symbol: for BTC/USD they are XXBT, ZUSD, XBTUSD, XBT/USD and XXBTZUSD."""
    base, quote = (_RENAMED.get(asset, asset) for asset in symbol.split("/"))
    base_id, quote_id = _asset_id(base), _asset_id(quote)
    # Only pairs of two such old assets have a key of their own; Dogecoin's never had.
    is_classic = base_id != base and quote_id != quote and base != "XDG"
    return PairNames(
        base=base_id,
        quote=quote_id,
        altname=base + quote,
        wsname=f"{base}/{quote}",
        key=base_id + quote_id if is_classic else base + quote,
    )


def _asset_id(name: str) -> str:
    prefix = "X" if name in _X_ASSETS else "Z" if name in _Z_ASSETS else ""
    return prefix + name


async def call(source: Source, system: str, path: str, query: Mapping[str, str]) -> str:
    """The `result` of a call, as JSON; `system` is the engine's state.

    Raises:
        RestError: the API refuses it.

    """
    match path.removeprefix("/0/public/"):
        case "Trades":
            return await _trades(source, query)
        case "Depth":
            return await _depth(source, query)
        case "AssetPairs":
            return _asset_pairs(source, query)
        case "SystemStatus":
            now = datetime.fromtimestamp(source.now() // NANOSECONDS, UTC)
            return f'{{"status":"{system}","timestamp":"{now:%Y-%m-%dT%H:%M:%SZ}"}}'
        case "Time":
            seconds = source.now() // NANOSECONDS
            rfc1123 = f"{datetime.fromtimestamp(seconds, UTC):%a, %d %b %y %H:%M:%S +0000}"
            return f'{{"unixtime":{seconds},"rfc1123":"{rfc1123}"}}'
    raise RestError(UNKNOWN_METHOD)


async def _trades(source: Source, query: Mapping[str, str]) -> str:
    symbol, key = _pair(source, query.get("pair", ""))
    count = _count(query, TRADES_LIMIT, TRADES_LIMIT)
    since = _since(query["since"]) if query.get("since") else None
    page = await source.trades_page(symbol, since, count)
    last = page[-1].time if page else since or 0
    rows = ",".join(_trade_row(trade) for trade in page)
    return f'{{"{key}":[{rows}],"last":"{last}"}}'


def _trade_row(trade: PublicTrade) -> str:
    # Seconds with the decimals that a 100 ns clock gives, cut, trailing zeros dropped: as a number is written there.
    seconds, nanoseconds = divmod(trade.time, NANOSECONDS)
    decimals = f"{nanoseconds // 100:07d}".rstrip("0") or "0"
    return (
        f'["{_padded(trade.price)}","{trade.qty}",{seconds}.{decimals},"{trade.side[0]}","{trade.order_type[0]}","",'
        f"{trade.trade_id}]"
    )


async def _depth(source: Source, query: Mapping[str, str]) -> str:
    symbol, key = _pair(source, query.get("pair", ""))
    bids, asks = await source.depth_page(symbol, _count(query, DEPTH_DEFAULT, DEPTH_LIMIT))
    return f'{{"{key}":{{"asks":[{_depth_rows(asks)}],"bids":[{_depth_rows(bids)}]}}}}'


def _depth_rows(rows: Iterable[DepthRow]) -> str:
    return ",".join(f'["{_padded(row.price)}","{row.qty}",{row.time}]' for row in rows)


def _asset_pairs(source: Source, query: Mapping[str, str]) -> str:
    if query.get("pair"):
        symbols = dict(_pair(source, name) for name in query["pair"].split(","))
    else:
        symbols = {symbol: pair_names(symbol).key for symbol in source.instruments}
    return "{" + ",".join(f'"{key}":{_asset_pair(source.instruments[symbol])}' for symbol, key in symbols.items()) + "}"


def _asset_pair(instrument: Instrument) -> str:
    names = pair_names(instrument.symbol)
    precision = instrument.price_precision
    tick_size = f"0.{'0' * (precision - 1)}1" if precision else "1"
    return (
        f'{{"altname":"{names.altname}","wsname":"{names.wsname}","aclass_base":"currency","base":"{names.base}",'
        f'"aclass_quote":"currency","quote":"{names.quote}","lot":"unit","cost_decimals":5,'
        f'"pair_decimals":{precision},"lot_decimals":{instrument.qty_precision},"lot_multiplier":1,'
        f'"leverage_buy":[],"leverage_sell":[],"fees":[],"fees_maker":[],"fee_volume_currency":"ZUSD",'
        f'"margin_call":80,"margin_stop":40,"ordermin":"0.00005","costmin":"0.5","tick_size":"{tick_size}",'
        f'"status":"{instrument.status}","execution_venue":"international"}}'
    )


def _pair(source: Source, name: str) -> tuple[str, str]:
    """The symbol that a name means, and the key of the result: v2's name is its own key, and v1's is refused."""
    if name in source.instruments:
        return name, name
    for symbol in source.instruments:
        names = pair_names(symbol)
        if name in (names.altname, names.key):
            return symbol, names.key
    raise RestError(UNKNOWN_PAIR)


def _count(query: Mapping[str, str], default: int, limit: int) -> int:
    text = query.get("count", "") or str(default)
    if not re.fullmatch("[0-9]{1,9}", text) or not 1 <= int(text) <= limit:
        raise RestError(INVALID_ARGUMENT.format("count"))
    return int(text)


def _since(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,20})(?:\.([0-9]{1,20}))?", text)
    if match is None:
        raise RestError(INVALID_ARGUMENT.format("since"))
    whole = int(match[1])
    if match[2] is None and whole > LARGEST_SECONDS:
        return whole
    return whole * NANOSECONDS + int((match[2] or "0").ljust(9, "0")[:9])


def _padded(price: str) -> str:
    whole, _, decimals = price.partition(".")
    return f"{whole}.{decimals:0<{PRICE_DECIMALS}}"
