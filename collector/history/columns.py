"""What the results of `collector.history` consist of: named columns, and one line of CSV for each row.

CSV is the common form: the server writes it, files take it as it is, Arrow reads it, and no digit is lost on the way.
A column's kind says what its text is. Pure.
"""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from collector.kraken.times import read_time
from collector.storage.history import PriceLevel

# `levels` is a JSON array of [price, size], `evicted` a JSON object of two arrays of prices, both as PostgreSQL writes
# JSONB. An empty field is no value, but for a text that is always there.
Kind: TypeAlias = Literal["time", "decimal", "integer", "text", "optional_text", "levels", "evicted"]

TIME_WIDTH = len("2026-01-31T12:00:00.000000Z")  # every time, and every line begins with one


class Column(NamedTuple):
    """A column of a result."""

    name: str
    kind: Kind


class Block(NamedTuple):
    """Some whole lines of CSV, without a header, and how many rows they are."""

    text: bytes
    rows: int


class Evicted(NamedTuple):
    """Prices that a row of a book pushed out of the collected depth."""

    bids: list[Decimal]
    asks: list[Decimal]


def _columns(**kinds: Kind) -> tuple[Column, ...]:
    return tuple(Column(*column) for column in kinds.items())


TRADE_COLUMNS = _columns(
    event_time="time", price="decimal", volume="decimal", side="text", order_type="text", trade_id="integer"
)
UPDATE_COLUMNS = _columns(
    event_time="time",
    bids="levels",
    asks="levels",
    type="text",
    checksum="integer",
    chain="integer",
    seq="integer",
    evicted="evicted",
)
LEVEL_COLUMNS = _columns(
    event_time="time", chain="integer", seq="integer", side="text", price="decimal", size="decimal"
)
CANDLE_COLUMNS = _columns(
    bucket="time", open="decimal", high="decimal", low="decimal", close="decimal", volume="decimal", trades="integer"
)
COVERAGE_COLUMNS = _columns(
    started_at="time",
    last_at="time",
    pair="text",
    channel="text",
    chain="integer",
    updates="integer",
    rows="integer",
    ended_at="time",
    end_reason="optional_text",
    dropped_before="time",
    suspect_since="time",
)


def top_columns(levels: int) -> tuple[Column, ...]:
    """The columns of samples of the best `levels` of each side, the four of the best level first."""
    prices = [
        Column(f"{side}_{what}_{number}", "decimal")
        for number in range(1, levels + 1)
        for side in ("bid", "ask")
        for what in ("price", "size")
    ]
    return (Column("event_time", "time"), Column("chain", "integer"), *prices)


def fields(block: Block) -> Iterator[list[str]]:
    """The fields of each row of a block."""
    # Its own newlines are left alone: a quoted text may hold one.
    return csv.reader(io.StringIO(block.text.decode(), newline=""))


def python_readers(columns: Sequence[Column]) -> list[Callable[[str], Any]]:
    """What makes a Python value of each column's text."""
    return [_PYTHON[column.kind] for column in columns]


def json_writers(columns: Sequence[Column]) -> list[Callable[[str], str]]:
    """What makes JSON of each column's text: numbers are its digits, as they are."""
    return [_JSON[column.kind] for column in columns]


def _optional(read: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: read(text) if text else None


def _read_levels(text: str) -> list[PriceLevel]:
    if text == "[]":
        return []
    return [PriceLevel(*map(Decimal, level.split(", "))) for level in text[2:-2].split("], [")]


def _read_evicted(text: str) -> Evicted:
    prices: dict[str, list[msgspec.Raw]] = msgspec.json.decode(text, type=dict[str, list[msgspec.Raw]])
    bids, asks = ([Decimal(bytes(price).decode()) for price in prices[side]] for side in ("bids", "asks"))
    return Evicted(bids, asks)


def _json_text(text: str) -> str:
    return msgspec.json.encode(text).decode()


def _json_number(text: str) -> str:
    return text or "null"


_PYTHON: dict[Kind, Callable[[str], Any]] = {
    "time": _optional(read_time),
    "decimal": _optional(Decimal),
    "integer": _optional(int),
    "text": str,
    "optional_text": _optional(str),
    "levels": _read_levels,
    "evicted": _optional(_read_evicted),
}
_JSON: dict[Kind, Callable[[str], str]] = {
    "time": lambda text: f'"{text}"' if text else "null",
    "decimal": _json_number,
    "integer": _json_number,
    "text": _json_text,
    "optional_text": lambda text: _json_text(text) if text else "null",
    "levels": str,
    "evicted": _json_number,
}
