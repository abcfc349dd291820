"""Pairs and their names, and depths of books, as Kraken's WebSocket v2 spells them."""

import difflib
import re
from collections.abc import Iterable

import msgspec

BOOK_DEPTHS = (10, 25, 100, 500, 1000)  # a strict list: others are refused, not rounded

# v2 differs from v1 and from REST's `wsname` in these two assets only, on either leg.
_RENAMED_ASSETS = {"XBT": "BTC", "XDG": "DOGE"}
_SYMBOL = re.compile(r"[A-Z0-9.]+/[A-Z0-9.]+")
ANY = "*"
_PATTERN = re.compile(r"\*|(?:\*|[A-Z0-9.]+)/(?:\*|[A-Z0-9.]+)")


class Instrument(msgspec.Struct, frozen=True, gc=False):
    """A pair as reference data: its v2 symbol, the decimals of its prices and quantities, and whether it trades."""

    symbol: str
    price_precision: int
    qty_precision: int
    status: str = "online"


def v2_symbol(name: str) -> str:
    """Rename a v1 or `wsname` spelling (`XBT/USD`) to v2's (`BTC/USD`)."""
    return "/".join(_RENAMED_ASSETS.get(asset, asset) for asset in name.split("/"))


def parse_pairs(value: str | Iterable[str]) -> tuple[str, ...]:
    """Read a comma list of pairs: upper case, renamed to v2's spelling, each once, in the order given.

    Raises:
        ValueError: no pair, or one that is not of the form BASE/QUOTE.
    """
    return _parse(value, _SYMBOL)


def parse_patterns(value: str | Iterable[str]) -> tuple[str, ...]:
    """Read a comma list of pairs and of patterns: `*` stands for any asset on its leg, and alone for every pair.

    Raises:
        ValueError: nothing, or what is neither a pair nor a pattern.
    """
    return _parse(value, _PATTERN)


def is_pattern(name: str) -> bool:
    """Whether a name stands for pairs that only the exchange can list."""
    return ANY in name


def fits(pair: str, pattern: str) -> bool:
    """Whether a pair is one of those that a pattern, or a pair's own name, stands for."""
    if pattern == ANY:
        return True
    return all(leg in (ANY, asset) for leg, asset in zip(pattern.split("/"), pair.split("/"), strict=True))


def _parse(value: str | Iterable[str], form: re.Pattern[str]) -> tuple[str, ...]:
    names = value.split(",") if isinstance(value, str) else list(value)
    symbols = [v2_symbol(name.strip().upper()) for name in names if name.strip()]
    if not symbols:
        raise ValueError("no pair")
    for symbol in symbols:
        if not form.fullmatch(symbol):
            raise ValueError(symbol)
    return tuple(dict.fromkeys(symbols))


def nearest_symbols(symbol: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The known symbols that a person who wrote `symbol` is likely to have meant, best first."""
    return difflib.get_close_matches(symbol, sorted(known), n=count, cutoff=0.5)
