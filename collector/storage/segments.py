"""The format of a spool segment: what is appended to it, and what can be read back of one that was cut short.

Pure. A segment is a sequence of blocks, each a head (kind, length, CRC-32 of kind and payload) and a payload. The first
is a header that says whose segment it is. What one append brought is at most three blocks in this order: book rows,
trades, coverage; coverage comes last, so that a segment cut anywhere never claims more than it holds. Rows are lines
as COPY takes them, so that shipping passes them on as they are.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from uuid import UUID

import msgspec

from collector.records import BookRow, Proof, Record, Trade
from collector.storage.copy_text import book_line, trade_line

_HEAD = struct.Struct(">cII")
_HEADER, _BOOK, _TRADES, _COVERAGE = b"H", b"B", b"T", b"C"


class Header(msgspec.Struct, frozen=True):
    """Whose segment it is.

    Attributes:
        spool: the spool that numbered it.
        number: its number in that spool.
        database: the database that it belongs to, None when none had been met yet.
        chain: the highest chain number that the spool had seen before it.

    """

    spool: UUID
    number: int
    database: UUID | None
    chain: int


class Segment(msgspec.Struct, frozen=True):
    """What a segment holds: COPY text by the block, and coverage in order.

    `torn` counts the bytes at its end that are not as they were written, as after a power cut.
    """

    header: Header
    book: list[bytes]
    trades: list[bytes]
    coverage: list[Proof]
    torn: int


_header_decoder = msgspec.json.Decoder(Header)
_coverage_decoder = msgspec.json.Decoder(list[Proof])
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError)  # the second is what msgspec raises for what is no UTF-8


def _block(kind: bytes, payload: bytes) -> bytes:
    return _HEAD.pack(kind, len(payload), _checksum(kind, payload)) + payload


def _checksum(kind: bytes, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(kind))


def encode_header(header: Header) -> bytes:
    """The beginning of a segment."""
    return _block(_HEADER, msgspec.json.encode(header))


def encode_records(records: Sequence[Record]) -> bytes:
    """What one append adds to a segment."""
    book: list[bytes] = []
    trades: list[bytes] = []
    coverage: list[Proof] = []
    for record in records:
        match record:
            case BookRow():
                book.append(book_line(record))
            case Trade():
                trades.append(trade_line(record))
            case _:
                coverage.append(record)
    blocks = b""
    if book:
        blocks += _block(_BOOK, b"".join(book))
    if trades:
        blocks += _block(_TRADES, b"".join(trades))
    if coverage:
        blocks += _block(_COVERAGE, msgspec.json.encode(coverage))
    return blocks


def read_segment(data: bytes) -> Segment | None:
    """Everything up to the first byte that is not as it was written; None where not even the header can be read."""
    blocks = _blocks(data)
    kind, payload, whole = next(blocks, (b"", b"", 0))
    if kind != _HEADER:
        return None
    book: list[bytes] = []
    trades: list[bytes] = []
    coverage: list[Proof] = []
    try:
        header = _header_decoder.decode(payload)
    except _UNREADABLE:
        return None
    for kind, payload, end in blocks:
        if kind == _BOOK:
            book.append(payload)
        elif kind == _TRADES:
            trades.append(payload)
        elif kind == _COVERAGE:
            try:
                coverage.extend(_coverage_decoder.decode(payload))
            except _UNREADABLE:
                break
        else:
            break
        whole = end
    return Segment(header, book, trades, coverage, len(data) - whole)


def _blocks(data: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """The whole blocks at the beginning of `data`: kind, payload, and where in `data` the block ends."""
    position = 0
    while len(data) - position >= _HEAD.size:
        kind, length, checksum = _HEAD.unpack_from(data, position)
        payload = data[position + _HEAD.size : position + _HEAD.size + length]
        if len(payload) != length or _checksum(kind, payload) != checksum:
            return
        position += _HEAD.size + length
        yield kind, payload, position
