"""Rows that PostgreSQL rejects: found, kept in a file with the reason, and taken out of their segment.

Such a row is a bug of ours or a limit of the server's, and must hold up nothing. A book run ends before its rejected
row: what comes behind it is set apart as after any other hole (continuity.py).
"""

from collections.abc import Callable
from pathlib import Path

import msgspec
import psycopg

from collector.storage.apart import Apart, KeptRow, keep
from collector.storage.book_lines import BookLine, split_lines
from collector.storage.database import Connection
from collector.storage.segments import Segment
from collector.storage.shipping import Cursor, store_book, store_trades

ROW_REJECTED = "row_rejected"


def set_rejected_apart(connection: Connection, segment: Segment, directory: Path) -> tuple[Segment, list[Apart]]:
    """Find the rows of a segment that PostgreSQL rejects; return the segment without them, and what they were.

    Nothing is stored here: every row is tried in a transaction that is rolled back.
    """
    book, trades = split_lines(segment.book), split_lines(segment.trades)
    with connection.transaction(force_rollback=True), connection.cursor() as cursor:
        bad_book = _find(connection, cursor, store_book, book)
        bad_trades = _find(connection, cursor, store_trades, trades)
    kept = [KeptRow("kraken_orderbook", error, book[number].decode()) for number, error in bad_book.items()]
    kept += [KeptRow("kraken_trades", error, trades[number].decode()) for number, error in bad_trades.items()]
    file = keep(segment, directory, kept)
    apart = []
    for number, error in bad_book.items():
        pair, chain = BookLine.parse(book[number]).run
        apart.append(Apart(pair.decode(), chain, ROW_REJECTED, error, file))
    for number, error in bad_trades.items():
        apart.append(Apart(trades[number].split(b"\t")[1].decode(), None, ROW_REJECTED, error, file))
    good = msgspec.structs.replace(
        segment,
        book=[line for number, line in enumerate(book) if number not in bad_book],
        trades=[line for number, line in enumerate(trades) if number not in bad_trades],
    )
    return good, apart


def _find(
    connection: Connection,
    cursor: Cursor,
    store: Callable[[Cursor, list[bytes]], int],
    lines: list[bytes],
    first: int = 0,
) -> dict[int, str]:
    """The lines that cannot be stored, by number, with the reason: halves are tried until one line is left."""
    if not lines:
        return {}
    try:
        with connection.transaction():
            store(cursor, lines)
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        if len(lines) == 1:
            return {first: str(error)}
        middle = len(lines) // 2
        return _find(connection, cursor, store, lines[:middle], first) | _find(
            connection, cursor, store, lines[middle:], first + middle
        )
    return {}
