"""CSV into Arrow, column by column, without a step through Python values. Needs pyarrow."""

from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from collector.history.columns import Block, Column, Kind
from collector.history.values import DoesNotFit

# Kraken's finest market trades in 10 decimals. 12 hold them all, and leave room for price times volume in an engine
# whose widest decimal has 38 digits: two factors of 18 decimals overflow there at 100.
DECIMAL = pa.decimal128(38, 12)
_PRICES = pa.list_(DECIMAL)
_TYPES: dict[Kind, pa.DataType] = {
    "time": pa.timestamp("us", tz="UTC"),
    "decimal": DECIMAL,
    "integer": pa.int64(),
    "text": pa.string(),
    "optional_text": pa.string(),
    "levels": pa.list_(pa.struct([("price", DECIMAL), ("size", DECIMAL)])),
    "evicted": pa.struct([("bids", _PRICES), ("asks", _PRICES)]),
}
_NESTED = ("levels", "evicted")
_EVICTED = r'^\{"asks": \[(?P<asks>[^\]]*)\], "bids": \[(?P<bids>[^\]]*)\]\}$'  # JSONB puts its keys in order


def schema(columns: Sequence[Column]) -> pa.Schema:
    """The Arrow types of columns."""
    return pa.schema([(column.name, _TYPES[column.kind]) for column in columns])


def table(columns: Sequence[Column], blocks: Iterable[Block]) -> pa.Table:
    """Blocks of CSV as one table.

    Raises:
        DoesNotFit: a number has too many digits.

    """
    text = b"".join([block.text for block in blocks])
    if not text:
        return schema(columns).empty_table()
    try:
        parsed = _parse(columns, text)
        nested = {"levels": _levels, "evicted": _evicted}
        arrays = [
            nested[column.kind](parsed[column.name].combine_chunks()) if column.kind in nested else parsed[column.name]
            for column in columns
        ]
    except pa.ArrowInvalid as error:
        raise DoesNotFit(
            f"a number has more digits than decimal({DECIMAL.precision}, {DECIMAL.scale}), which Arrow and Parquet"
            f" take here; CSV and JSON Lines have every digit ({str(error).splitlines()[0]})"
        ) from error
    return pa.table(arrays, schema=schema(columns))


def _parse(columns: Sequence[Column], text: bytes) -> pa.Table:
    """The flat columns as they are to be, the nested ones as text."""
    types = {column.name: pa.string() if column.kind in _NESTED else _TYPES[column.kind] for column in columns}
    return pyarrow.csv.read_csv(
        pa.BufferReader(text),
        # One block, however long: else a quoted text that holds a newline may be cut there.
        read_options=pyarrow.csv.ReadOptions(column_names=list(types), block_size=len(text) + 1),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=types,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )


def _levels(texts: pa.StringArray) -> pa.ListArray:
    """Arrays of `[price, size]`."""
    numbers = _numbers(pc.replace_substring_regex(texts, r"[\[\]]", ""))
    flat = numbers.values
    pairs = pa.StructArray.from_arrays([flat[0::2], flat[1::2]], ["price", "size"])
    return pa.ListArray.from_arrays(pc.divide(numbers.offsets, 2), pairs)


def _evicted(texts: pa.StringArray) -> pa.StructArray:
    """Objects of two arrays of prices; NULL where nothing was evicted."""
    found = pc.extract_regex(texts, _EVICTED)
    sides = [_numbers(found.field(side)) for side in ("bids", "asks")]
    return pa.StructArray.from_arrays(sides, ["bids", "asks"], mask=pc.is_null(texts))


def _numbers(texts: pa.StringArray) -> pa.ListArray:
    """Numbers that are separated by a comma and a blank, none in an empty text or a NULL."""
    parts = pc.split_pattern(pc.if_else(pc.equal(texts, ""), None, texts), ", ")
    # The lists of NULLs are empty: what is left of them is made whole again by leaving out which were NULL.
    return pa.ListArray.from_arrays(parts.offsets, parts.values.cast(DECIMAL))
