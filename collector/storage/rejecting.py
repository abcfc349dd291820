"""Rows that PostgreSQL rejects: found, kept in a file with the reason, and taken out of their segment.

Such a row is a bug of ours or a limit of the server's, and must hold up nothing. What is stored of a book run has to
be a gapless beginning of it, so the run ends before its rejected row, and its later rows are kept in files, too.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from uuid import UUID

import msgspec
import psycopg

from collector.records import Coverage, Proof
from collector.storage.copy_text import escape
from collector.storage.database import Connection
from collector.storage.segments import Segment
from collector.storage.shipping import Cursor, store_book, store_trades

FOLDER = "rejected"
END_REASON = "row_rejected"

Run: TypeAlias = tuple[bytes, int]  # pair as COPY text has it, and chain

_STORED_RUN = """
SELECT updates, to_char(last_at, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') FROM kraken_coverage
WHERE pair = %s AND channel = 'book' AND chain = %s
"""
_REJECTED_RUNS = "SELECT pair, chain FROM kraken_coverage WHERE spool = %s AND end_reason = %s"


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that was set apart: of which pair, of which book run (None for a trade), why, and in which file."""

    pair: str
    chain: int | None
    error: str
    file: Path


class _Kept(msgspec.Struct):
    """A line of the file of rejected rows."""

    table: str
    error: str
    line: str


@dataclass(frozen=True, slots=True)
class _BookLine:
    """What must be known of a book row, read back from its COPY text."""

    event_time: str
    run: Run
    type: str
    seq: int

    @classmethod
    def parse(cls, line: bytes) -> "_BookLine":
        event_time, pair, _, _, row_type, _, chain, seq, _ = line.split(b"\t")
        return cls(event_time.decode(), (pair, int(chain)), row_type.decode(), int(seq))


def rejected_runs(connection: Connection, spool: UUID) -> set[Run]:
    """The book runs of a spool that ended by a rejected row, some of whose rows may still be in its segments."""
    rows = connection.execute(_REJECTED_RUNS, [spool, END_REASON]).fetchall()
    return {(escape(pair), chain) for pair, chain in rows}


def without_runs(segment: Segment, runs: set[Run], directory: Path) -> tuple[Segment, list[Rejected]]:
    """A segment without the rows of runs that ended in an earlier one, and one of these rows of each such run.

    They are kept in a file. That there are any means that nobody ended the run where they come from.
    """
    lines = _lines(segment.book) if runs else []
    later = [line for line in lines if _BookLine.parse(line).run in runs]
    if not later:
        return segment, []
    _keep(segment, directory, [_Kept("kraken_orderbook", END_REASON, line.decode()) for line in later])
    gone, file = set(later), _path(segment, directory)
    kept = msgspec.structs.replace(
        segment,
        book=[line for line in lines if line not in gone],
        coverage=[record for record in segment.coverage if not _is_of(record, runs)],
    )
    of_runs = {
        (record.pair, record.chain)
        for record in segment.coverage
        if isinstance(record, Coverage) and _is_of(record, runs) and record.ended_at is None
    }
    return kept, [Rejected(pair, chain, "the run ended by a rejected row", file) for pair, chain in of_runs]


def set_rejected_apart(connection: Connection, segment: Segment, directory: Path) -> tuple[Segment, list[Rejected]]:
    """Find the rows of a segment that PostgreSQL rejects; return the segment without them, and what they were.

    Nothing is stored here: every row is tried in a transaction that is rolled back.
    """
    book, trades = _lines(segment.book), _lines(segment.trades)
    with connection.transaction(force_rollback=True), connection.cursor() as cursor:
        bad_book = _find(connection, cursor, store_book, book)
        bad_trades = _find(connection, cursor, store_trades, trades)
        ended = _end_runs(cursor, segment, book, bad_book)
    file = _path(segment, directory)
    kept: list[_Kept] = []
    rejected: list[Rejected] = []
    good_book: list[bytes] = []
    for number, line in enumerate(book):
        row = _BookLine.parse(line)
        end = ended.get(row.run)
        if number not in bad_book and (end is None or row.seq < end.rows):
            good_book.append(line)
            continue
        kept.append(_Kept("kraken_orderbook", bad_book.get(number, END_REASON), line.decode()))
        if number in bad_book:
            rejected.append(Rejected(row.run[0].decode(), row.run[1], bad_book[number], file))
    for number, error in bad_trades.items():
        kept.append(_Kept("kraken_trades", error, trades[number].decode()))
        rejected.append(Rejected(trades[number].split(b"\t")[1].decode(), None, error, file))
    _keep(segment, directory, kept)
    coverage: list[Proof] = [record for record in segment.coverage if not _is_of(record, set(ended))]
    coverage += ended.values()
    good_trades = [line for number, line in enumerate(trades) if number not in bad_trades]
    return msgspec.structs.replace(segment, book=good_book, trades=good_trades, coverage=coverage), rejected


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


def _end_runs(cursor: Cursor, segment: Segment, book: list[bytes], bad: dict[int, str]) -> dict[Run, Coverage]:
    """How each run that has a rejected row ends before the first of them."""
    first_bad: dict[Run, int] = {}
    for number in sorted(bad):
        row = _BookLine.parse(book[number])
        first_bad.setdefault(row.run, row.seq)
    states = {
        (escape(record.pair), record.chain): record for record in segment.coverage if isinstance(record, Coverage)
    }
    ended = {}
    for run, seq in first_bad.items():
        state = states.get(run)
        if state is None:  # the segment was cut between the rows of an append and their coverage
            continue
        good = [row for row in map(_BookLine.parse, book) if row.run == run and row.seq < seq]
        stored = cursor.execute(_STORED_RUN, [state.pair, state.chain]).fetchone()
        updates, last_at = stored or (0, state.started_at)
        if good:
            updates = int(str(updates)) + sum(row.type == "update" for row in good)
            last_at = good[-1].event_time
        ended[run] = Coverage(
            state.pair,
            "book",
            state.chain,
            state.started_at,
            str(last_at),
            int(str(updates)),
            seq,
            str(last_at),
            END_REASON,
        )
    return ended


def _lines(blocks: list[bytes]) -> list[bytes]:
    return b"".join(blocks).splitlines(keepends=True)


def _is_of(record: Proof, runs: set[Run]) -> bool:
    return isinstance(record, Coverage) and record.channel == "book" and (escape(record.pair), record.chain) in runs


def _path(segment: Segment, directory: Path) -> Path:
    return directory / FOLDER / f"{segment.header.spool}-{segment.header.number}.jsonl"


def _keep(segment: Segment, directory: Path, rows: list[_Kept]) -> None:
    """Add rejected rows to the segment's file, each once: shipping the segment may be tried many times."""
    path = _path(segment, directory)
    path.parent.mkdir(exist_ok=True)
    known = path.read_bytes() if path.exists() else b""
    lines = [line for line in (msgspec.json.encode(row) + b"\n" for row in rows) if line not in known]
    with path.open("ab") as file:
        file.write(b"".join(lines))
        file.flush()
        os.fsync(file.fileno())
