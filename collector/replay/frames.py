"""The messages of a replay, from what is stored: with every digit, and with their original times and checksums.

Pure.
"""

from collections.abc import Sequence

import msgspec

from collector.kraken.orderbook import Level
from collector.kraken.server.source import format_nanoseconds
from collector.storage.stored_trades import StoredTrade


def book_frame(
    symbol: str, kind: str, bids: Sequence[Level], asks: Sequence[Level], *, checksum: bytes, time: int
) -> bytes:
    """A message of the book channel; `kind` is snapshot or update, `time` in nanoseconds."""
    return (
        b'{"channel":"book","type":"%b","data":[{"symbol":%b,"bids":[%b],"asks":[%b],"checksum":%b,"timestamp":"%b"}]}'
        % (kind.encode(), _text(symbol), _entries(bids), _entries(asks), checksum, format_nanoseconds(time).encode())
    )


def _entries(levels: Sequence[Level]) -> bytes:
    return b",".join([b'{"price":%b,"qty":%b}' % (level.price, level.size) for level in levels])


def trade_frame(kind: str, trades: Sequence[tuple[int, StoredTrade]]) -> bytes:
    """A message of the trade channel, of trades with their times in nanoseconds."""
    return b'{"channel":"trade","type":"%b","data":[%b]}' % (
        kind.encode(),
        b",".join([_trade(time, trade) for time, trade in trades]),
    )


def _trade(time: int, trade: StoredTrade) -> bytes:
    return b'{"symbol":%b,"side":%b,"price":%b,"qty":%b,"ord_type":%b,"trade_id":%d,"timestamp":"%b"}' % (
        _text(trade.pair),
        _text(trade.side),
        trade.price.encode(),
        trade.volume.encode(),
        _text(trade.order_type),
        trade.trade_id,
        format_nanoseconds(time).encode(),
    )


def _text(text: str) -> bytes:
    return msgspec.json.encode(text)
