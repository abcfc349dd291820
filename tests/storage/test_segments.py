"""The format of a segment: whatever is cut or spoiled, what is read is what was written before that place."""

import struct
import zlib
from uuid import UUID

from hypothesis import example, given
from hypothesis import strategies as st
from samples import batch, book_row, run, trade

from collector.records import Interrupted
from collector.storage.copy_text import book_line, trade_line
from collector.storage.segments import Header, encode_header, encode_records, read_segment

HEADER = Header(UUID(int=7), 3, UUID(int=9), 1_700_000_000_000_000)
BEGINNING = encode_header(HEADER)
FIRST, LAST = encode_records(batch(0, 3)), encode_records(batch(3, 2))


def block(kind: bytes, payload: bytes) -> bytes:
    """A block that is well-formed, whatever is in it."""
    return struct.pack(">cII", kind, len(payload), zlib.crc32(kind + payload)) + payload


def test_segment_reads_back_as_it_was_written() -> None:
    """Prevents the format from losing a record, a digit, or the order of coverage."""
    records = [trade(5), book_row(0), run(1), Interrupted("crash"), book_row(1, chain=2), run(2, chain=2)]
    segment = read_segment(BEGINNING + encode_records(records))
    assert segment is not None
    assert segment.header == HEADER
    assert b"".join(segment.book) == book_line(book_row(0)) + book_line(book_row(1, chain=2))
    assert b"".join(segment.trades) == trade_line(trade(5))
    assert segment.coverage == [run(1), Interrupted("crash"), run(2, chain=2)]
    assert segment.torn == 0


def test_nothing_appended_is_nothing_written() -> None:
    """Prevents blocks without content, which every read of a segment would pay for."""
    assert encode_records([]) == b""
    segment = read_segment(BEGINNING)
    assert segment is not None
    assert (segment.book, segment.trades, segment.coverage, segment.torn) == ([], [], [], 0)


@given(st.integers(0, len(LAST)))
def test_torn_tail(kept: int) -> None:
    """Prevents a power cut from costing more than the last block, or a cut segment from claiming what it lacks."""
    segment = read_segment(BEGINNING + FIRST + LAST[:kept])
    assert segment is not None
    rows = b"".join(segment.book).count(b"\n")
    assert rows == 5 if kept == len(LAST) else rows in (3, 5)
    assert max(covered.rows for covered in segment.coverage) <= rows
    whole = len(BEGINNING + FIRST) + kept - segment.torn
    again = read_segment((BEGINNING + FIRST + LAST)[:whole])
    assert again is not None
    assert again.torn == 0
    assert (again.book, again.trades, again.coverage) == (segment.book, segment.trades, segment.coverage)


@given(st.integers(0, len(LAST) - 1), st.integers(1, 255))
@example(0, ord("B") ^ ord("T"))  # the kind of a block: book rows would pass for trades
def test_spoiled_byte(position: int, change: int) -> None:
    """Prevents a byte that the disk changed from reaching the database."""
    spoiled = bytearray(LAST)
    spoiled[position] ^= change
    segment = read_segment(BEGINNING + FIRST + bytes(spoiled))
    assert segment is not None
    assert segment.torn > 0
    assert b"".join(segment.book) in {b"".join(map(book_line, map(book_row, range(count)))) for count in (3, 5)}
    assert b"".join(segment.trades) in {b"".join(map(trade_line, map(trade, range(count)))) for count in (3, 5)}
    assert segment.coverage == [run(3)]


@given(st.binary() | st.builds(lambda rest: BEGINNING + rest, st.binary()))
def test_any_bytes(data: bytes) -> None:
    """Prevents a file of anything else from crashing the collector, at every start again."""
    segment = read_segment(data)
    assert segment is None or 0 <= segment.torn <= len(data)


@given(st.sampled_from([b"H", b"B", b"T", b"C", b"?"]), st.binary())
@example(b"C", b'[{"type":"coverage","pair":"\xff"}]')
@example(b"C", b'[{"type":"later"}]')
def test_any_payload_with_a_right_checksum(kind: bytes, payload: bytes) -> None:
    """Prevents a block of another version of the collector from crashing this one; it counts as unreadable."""
    if kind in (b"B", b"T"):
        return  # any bytes are lines as far as a segment knows
    segment = read_segment(BEGINNING + FIRST + block(kind, payload) + LAST)
    assert segment is not None
    if kind != b"C" or segment.torn:
        assert segment.torn == len(block(kind, payload) + LAST)
        assert b"".join(segment.book).count(b"\n") == 3


@given(st.binary())
@example(b'{"spool":"\xff"}')
def test_any_header(payload: bytes) -> None:
    """Prevents a segment that nobody can name the owner of from being shipped, or from crashing the collector."""
    assert read_segment(block(b"H", payload) + FIRST) is None
    assert read_segment(FIRST + BEGINNING) is None
