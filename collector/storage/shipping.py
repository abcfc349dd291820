"""Shipping: one segment into PostgreSQL, in one transaction, exactly once.

The transaction begins by claiming the segment: it advances its spool's row in collector_spools. A claim that was made
before means that the segment was committed before, whatever became of the answer. So a lost answer, a call that was
given up and a process that was killed all end the same way.
"""

from datetime import date
from itertools import chain
from typing import TypeAlias
from uuid import UUID

import msgspec
import psycopg

from collector.records import SPOOL_LOST, Audit, Coverage, Interrupted
from collector.storage.copy_text import BOOK_COLUMNS, TRADE_COLUMNS
from collector.storage.database import Connection
from collector.storage.partitions import ensure_day
from collector.storage.segments import Segment

Cursor: TypeAlias = psycopg.Cursor[tuple[object, ...]]

_PREPARE = """
CREATE TEMPORARY TABLE IF NOT EXISTS incoming_trades (LIKE kraken_trades) ON COMMIT DELETE ROWS
"""
_CLAIM = """
INSERT INTO collector_spools AS spools (spool, last_segment, shipped_at)
VALUES (%(spool)s, %(number)s, timezone('UTC', now()))
ON CONFLICT (spool) DO UPDATE
SET last_segment = excluded.last_segment, shipped_at = excluded.shipped_at
WHERE spools.last_segment < excluded.last_segment
"""
_COPY_BOOK = f"COPY kraken_orderbook ({BOOK_COLUMNS}) FROM STDIN"
_COPY_TRADES = f"COPY incoming_trades ({TRADE_COLUMNS}) FROM STDIN"
_INSERT_TRADES = f"""
INSERT INTO kraken_trades ({TRADE_COLUMNS}) SELECT {TRADE_COLUMNS} FROM incoming_trades
ON CONFLICT (pair, trade_id) DO NOTHING
"""  # noqa: S608 - the columns are constants
_COVER = """
INSERT INTO kraken_coverage
    (pair, channel, chain, started_at, last_at, updates, rows, ended_at, end_reason, spool)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (pair, channel, chain) DO UPDATE
SET last_at = excluded.last_at, updates = excluded.updates, rows = excluded.rows,
    ended_at = excluded.ended_at, end_reason = excluded.end_reason, spool = excluded.spool
"""
# The spool itself knows better why a run ended than whoever took it for lost meanwhile.
_INTERRUPT = """
UPDATE kraken_coverage SET ended_at = last_at, end_reason = %(reason)s
WHERE spool = %(spool)s AND (ended_at IS NULL OR end_reason = %(lost)s)
"""
_AUDIT = """
INSERT INTO kraken_audits (pair, chain, audited_at, passed, differences) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (pair, chain, audited_at) DO NOTHING
"""
_SUSPECT = """
UPDATE kraken_coverage AS run SET suspect_since = coalesce(
    (SELECT max(audited_at) FROM kraken_audits WHERE pair = run.pair AND chain = run.chain AND passed), run.started_at
)
WHERE run.pair = %(pair)s AND run.channel = 'book' AND run.chain = %(chain)s
"""


def last_segment(connection: Connection, spool: UUID) -> int:
    """The highest number of a spool's segments that is stored, 0 for none."""
    row = connection.execute("SELECT last_segment FROM collector_spools WHERE spool = %s", [spool]).fetchone()
    return 0 if row is None else int(row[0])


def prepare(connection: Connection) -> None:
    """Ready a connection for shipping: trades pass through a table of its own, which drops the known ones."""
    connection.execute(_PREPARE)


def ship(connection: Connection, segment: Segment) -> int:
    """Store a segment, if it is not stored already; return how many rows that added.

    Raises:
        psycopg.Error: nothing of it was stored, unless only the answer to the commit was lost.

    """
    try:
        return _ship(connection, segment)
    except psycopg.errors.CheckViolation:
        # Of a day without a partition: its rows are as good as any other's.
        for day in _days(segment):
            ensure_day(connection, day)
        return _ship(connection, segment)


def _ship(connection: Connection, segment: Segment) -> int:
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(_CLAIM, {"spool": segment.header.spool, "number": segment.header.number})
        if not cursor.rowcount:
            return 0
        stored = 0
        if segment.book:
            stored += store_book(cursor, segment.book)
        if segment.trades:
            stored += store_trades(cursor, segment.trades)
        _store_coverage(cursor, segment)
        return stored


def store_book(cursor: Cursor, blocks: list[bytes]) -> int:
    """Add book rows, in COPY's text, within a transaction; return how many there were."""
    return _copy(cursor, _COPY_BOOK, blocks)


def store_trades(cursor: Cursor, blocks: list[bytes]) -> int:
    """Add the trades that are not there yet, in COPY's text, within a transaction; return how many that was.

    The connection must be prepared. What passes through stays until the transaction's end, so call it once in one.
    """
    _copy(cursor, _COPY_TRADES, blocks)
    cursor.execute(_INSERT_TRADES)
    return cursor.rowcount


def _copy(cursor: Cursor, statement: str, blocks: list[bytes]) -> int:
    with cursor.copy(statement) as copy:
        for block in blocks:
            copy.write(block)
    return cursor.rowcount


def _store_coverage(cursor: Cursor, segment: Segment) -> None:
    """Store what the segment says of each run; of several states of a run the last one counts."""
    spool = segment.header.spool
    latest: dict[tuple[str, str, int], Coverage] = {}
    for record in segment.coverage:
        match record:
            case Coverage():
                latest[record.pair, record.channel, record.chain] = record
            case Interrupted(reason=reason):
                _cover(cursor, latest, spool)
                latest = {}
                cursor.execute(_INTERRUPT, {"reason": reason, "spool": spool, "lost": SPOOL_LOST})
            case Audit():
                _cover(cursor, latest, spool)
                latest = {}
                _store_audit(cursor, record)
    _cover(cursor, latest, spool)


def _store_audit(cursor: Cursor, audit: Audit) -> None:
    differences = msgspec.json.encode(audit.differences).decode()
    cursor.execute(_AUDIT, (audit.pair, audit.chain, audit.audited_at, not audit.differences, differences))
    if audit.differences:
        cursor.execute(_SUSPECT, {"pair": audit.pair, "chain": audit.chain})


def _cover(cursor: Cursor, latest: dict[tuple[str, str, int], Coverage], spool: object) -> None:
    if latest:
        cursor.executemany(
            _COVER,
            [
                (
                    run.pair,
                    run.channel,
                    run.chain,
                    run.started_at,
                    run.last_at,
                    run.updates,
                    run.rows,
                    run.ended_at,
                    run.end_reason,
                    spool,
                )
                for run in latest.values()
            ],
        )


def _days(segment: Segment) -> set[date]:
    """The days of the book rows in a segment."""
    lines = chain.from_iterable(block.splitlines() for block in segment.book)
    return {date.fromisoformat(line[: len("2026-08-24")].decode()) for line in lines}
