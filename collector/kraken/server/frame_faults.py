"""Frames made wrong on purpose: each function takes a frame and gives what is sent in its place, None for no change."""

import re
import zlib
from collections.abc import Callable

import msgspec

_CHECKSUM = re.compile(rb'"checksum":(\d+)')
_SNAPSHOT = b'"type":"snapshot"'
CHECKSUM_LEVELS = 10


class _Entry(msgspec.Struct):
    price: msgspec.Raw
    qty: msgspec.Raw


class _Book(msgspec.Struct):
    symbol: str
    bids: list[_Entry]
    asks: list[_Entry]
    checksum: int
    timestamp: str | None = None


class _Message(msgspec.Struct):
    channel: str
    type: str
    data: list[_Book]


_decode_book = msgspec.json.Decoder(_Message).decode


def spoil_checksum(frame: bytes) -> list[bytes]:
    """A book message with a checksum that is off by one bit, all else as it was."""
    return [_CHECKSUM.sub(lambda match: b'"checksum":%d' % (int(match[1]) ^ 1), frame)]


def cross_snapshot(frame: bytes) -> list[bytes] | None:
    """A snapshot whose best bid stands at the best ask; its checksum is right."""
    if _SNAPSHOT not in frame:
        return None
    message = _decode_book(frame)
    book = message.data[0]
    if not book.bids or not book.asks:
        return None
    book.bids[0].price = book.asks[0].price
    levels = book.asks[:CHECKSUM_LEVELS] + book.bids[:CHECKSUM_LEVELS]
    book.checksum = zlib.crc32(b"".join(_token(level.price) + _token(level.qty) for level in levels))
    return [msgspec.json.encode(message)]


def _token(number: msgspec.Raw) -> bytes:
    return bytes(number).replace(b".", b"").lstrip(b"0")


def deep_change_withholder() -> Callable[[bytes], list[bytes] | None]:
    """Withholds an update whose checksum is that of the message before: nothing in the checksum's reach changed."""
    last: bytes | None = None

    def withhold(frame: bytes) -> list[bytes] | None:
        nonlocal last
        match = _CHECKSUM.search(frame)
        checksum = match[1] if match is not None else None
        is_deep, last = checksum is not None and checksum == last, checksum
        return [] if is_deep and _SNAPSHOT not in frame else None

    return withhold


def swapper() -> Callable[[bytes], list[bytes]]:
    """Keeps every other frame back and sends it behind the next."""
    kept: list[bytes] = []

    def swap(frame: bytes) -> list[bytes]:
        if kept:
            return [frame, kept.pop()]
        kept.append(frame)
        return []

    return swap
