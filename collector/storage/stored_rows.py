"""Rows of the order book read back, chain by chain, from a table that has no index to read them by.

The range is cut into windows of time, each of which the server reads through the index on event_time and sorts: what
it sorts at a time is about `WINDOW_BYTES`, however long the range, and nothing is held here. Each window is a
statement of its own, so that no snapshot is held for long: that would keep vacuum and retention from their work.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

from collector.storage.copy_text import BOOK_COLUMNS
from collector.storage.database import Connection, translated
from collector.storage.partitions import BOUNDS, ONE_DAY, PARENT

# Bytes of the table in a window: some 300,000 rows, which the server sorts in memory in well under a second.
WINDOW_BYTES = 64 * 2**20
SHORTEST_WINDOW = timedelta(minutes=1)
# Reading back may take its time. What it must not take is other sessions' work: one process, and its sort in memory.
READ_SETTINGS = {
    "statement_timeout": "0",
    "work_mem": "128MB",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",  # it compiles for longer than a window takes
}

_PARTITIONS = """
SELECT pg_get_expr(relpartbound, pg_class.oid), pg_relation_size(pg_class.oid)
FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = to_regclass(%s)
"""
# The arguments of COPY are put into its text, where the server folds a NULL bound away.
_IN_RANGE = """
    (%(pairs)s::text[] IS NULL OR book.pair = ANY(%(pairs)s::text[]))
    AND (%(since)s::timestamp IS NULL OR event_time >= %(since)s::timestamp)
    AND (%(until)s::timestamp IS NULL OR event_time < %(until)s::timestamp)
"""
_COLUMNS = ", ".join(f"book.{column}" for column in BOOK_COLUMNS.split(", "))
_COPY = f"""
COPY (
    SELECT {_COLUMNS} FROM kraken_orderbook AS book
    WHERE {_IN_RANGE} AND chain IS NOT NULL
    ORDER BY chain, seq
) TO STDOUT
"""  # noqa: S608 - the columns are constants
_COPY_BEFORE = f"""
COPY (
    SELECT {_COLUMNS} FROM kraken_orderbook AS book
    JOIN unnest(%(of)s::text[], %(chains)s::bigint[], %(seqs)s::integer[]) AS start (pair, chain, seq)
         ON book.pair = start.pair AND book.chain = start.chain AND book.seq >= start.seq
    WHERE {_IN_RANGE}
    ORDER BY book.chain, book.seq
) TO STDOUT
"""  # noqa: S608 - likewise
_LAST_SNAPSHOTS = """
SELECT run.pair, run.chain, latest.seq, latest.event_time
FROM unnest(%(pairs)s::text[], %(chains)s::bigint[], %(started)s::timestamp[]) AS run (pair, chain, started_at)
CROSS JOIN LATERAL (
    SELECT seq, event_time FROM kraken_orderbook AS book
    WHERE type = 'snapshot' AND book.pair = run.pair AND book.chain = run.chain
          AND event_time >= run.started_at AND event_time < %(before)s
    ORDER BY event_time DESC, seq DESC LIMIT 1
) AS latest
"""
_WITHOUT_CHAIN = f"""
SELECT coalesce(book.pair, ''), count(*) FROM kraken_orderbook AS book
WHERE {_IN_RANGE} AND event_time < %(adopted_until)s AND chain IS NULL
GROUP BY book.pair
"""  # noqa: S608 - likewise
_HAS_SNAPSHOT = "SELECT EXISTS (SELECT FROM kraken_orderbook WHERE type = 'snapshot' AND pair = %s)"


# Kraken writes each number with all the decimals of its pair, so that one level of each side shows them.
_SHAPES = """
SELECT run.pair, run.chain, max(shape.levels), max(shape.price_decimals), max(shape.size_decimals)
FROM unnest(%(pairs)s::text[], %(chains)s::bigint[], %(started)s::timestamp[], %(last)s::timestamp[])
     AS run (pair, chain, started_at, last_at)
CROSS JOIN LATERAL (
    (SELECT bids, asks FROM kraken_orderbook AS book
     WHERE type = 'snapshot' AND book.pair = run.pair AND book.chain = run.chain
           AND event_time BETWEEN run.started_at AND run.last_at ORDER BY event_time LIMIT 1)
    UNION ALL
    (SELECT bids, asks FROM kraken_orderbook AS book
     WHERE type = 'snapshot' AND book.pair = run.pair AND book.chain = run.chain
           AND event_time BETWEEN run.started_at AND run.last_at ORDER BY event_time DESC LIMIT 1)
) AS snapshot
CROSS JOIN LATERAL (
    SELECT greatest(jsonb_array_length(bids), jsonb_array_length(asks)) AS levels,
           greatest(scale((bids #>> '{0,0}')::numeric), scale((asks #>> '{0,0}')::numeric)) AS price_decimals,
           greatest(scale((bids #>> '{0,1}')::numeric), scale((asks #>> '{0,1}')::numeric)) AS size_decimals
) AS shape
GROUP BY run.pair, run.chain
"""


class BookShape(NamedTuple):
    """What the first and the last snapshot of a chain show: levels of its fuller side, and decimals of its numbers.

    The decimals are None of a book without a level.
    """

    pair: str
    chain: int
    levels: int
    price_decimals: int | None
    size_decimals: int | None


class Snapshot(NamedTuple):
    """Where a replay of a chain can begin."""

    pair: str
    chain: int
    seq: int
    event_time: datetime


class Window(NamedTuple):
    """A part of a range of time; None is without a bound."""

    since: datetime | None
    until: datetime | None


def prepare_reading(connection: Connection) -> None:
    """Ready a connection for statements that run for long."""
    with translated():
        for name, value in READ_SETTINGS.items():
            connection.execute("SELECT set_config(%s, %s, false)", [name, value])


def windows(connection: Connection, since: datetime | None, until: datetime | None) -> list[Window]:
    """A range of time in parts that are read one at a time; together they are the whole range."""
    cuts: set[datetime] = set()
    for start, end, size in _partitions(connection):
        # Of an adopted table's time without beginning, only the last day can have rows of this collector.
        first = end - ONE_DAY if start is None else start
        count = max(1, min(-(-size // WINDOW_BYTES), (end - first) // SHORTEST_WINDOW))
        cuts.update(first + number * (end - first) / count for number in range(count))
    inside = sorted(cut for cut in cuts if (since is None or cut > since) and (until is None or cut < until))
    return [Window(*bounds) for bounds in pairwise([since, *inside, until])]


def book_rows(connection: Connection, window: Window, pairs: Sequence[str] | None) -> Iterator[list[bytes]]:
    """The rows of some pairs (None: of all) in a window, by chain and seq.

    A row is its fields as PostgreSQL writes them, in the order of `BOOK_COLUMNS`. Rows of an earlier collector, which
    belong to no chain, are left out.
    """
    return _copy(connection, _COPY, _range(window, pairs))


def last_snapshots(connection: Connection, runs: Sequence[tuple[str, int, str]], before: datetime) -> list[Snapshot]:
    """The last snapshot before a time of each run (pair, chain, when it began) that has one."""
    arguments = {
        "pairs": [pair for pair, _, _ in runs],
        "chains": [chain for _, chain, _ in runs],
        "started": [started_at for _, _, started_at in runs],
        "before": before,
    }
    with translated():
        return [Snapshot(*row) for row in connection.execute(_LAST_SNAPSHOTS, arguments)]


def book_shapes(connection: Connection, runs: Sequence[tuple[str, int, str, str]]) -> list[BookShape]:
    """The shape of each run (pair, chain, when it began, until when it goes) of which a snapshot is stored."""
    pairs, chains, started, last = zip(*runs, strict=True) if runs else ((), (), (), ())
    arguments = {"pairs": list(pairs), "chains": list(chains), "started": list(started), "last": list(last)}
    with translated():
        return [BookShape(*row) for row in connection.execute(_SHAPES, arguments)]


def rows_since(connection: Connection, snapshots: Sequence[Snapshot], until: datetime | None) -> Iterator[list[bytes]]:
    """The rows of some chains from a snapshot of each up to a time, by chain and seq, as `book_rows` has them."""
    if not snapshots:
        return
    of = {
        "of": [snapshot.pair for snapshot in snapshots],
        "chains": [snapshot.chain for snapshot in snapshots],
        "seqs": [snapshot.seq for snapshot in snapshots],
    }
    for window in windows(connection, min(snapshot.event_time for snapshot in snapshots), until):
        yield from _copy(connection, _COPY_BEFORE, _range(window, None) | of)


def rows_without_chain(connection: Connection, window: Window, pairs: Sequence[str] | None) -> dict[str, int]:
    """How many rows of each pair an earlier collector left in a window: nothing tells whether they are right."""
    adopted_until = [end for start, end, _ in _partitions(connection) if start is None]
    if not adopted_until:
        return {}
    arguments = _range(window, pairs) | {"adopted_until": max(adopted_until)}
    with translated():
        return {str(pair): int(count) for pair, count in connection.execute(_WITHOUT_CHAIN, arguments)}


def has_book(connection: Connection, pair: str) -> bool:
    """Whether any book of a pair is stored."""
    with translated():
        return connection.execute(_HAS_SNAPSHOT, [pair]).fetchone() == (True,)


def _range(window: Window, pairs: Sequence[str] | None) -> dict[str, object]:
    return {"since": window.since, "until": window.until, "pairs": None if pairs is None else list(pairs)}


def _copy(connection: Connection, statement: str, arguments: dict[str, object]) -> Iterator[list[bytes]]:
    with translated(), connection.cursor() as cursor, cursor.copy(statement, arguments) as copy:
        for line in copy:
            yield bytes(line[:-1]).split(b"\t")


def _partitions(connection: Connection) -> list[tuple[datetime | None, datetime, int]]:
    """The bounds of the days, and the sizes of their tables; what was adopted has no beginning."""
    partitions = []
    with translated():
        rows = connection.execute(_PARTITIONS, [PARENT]).fetchall()
    for expression, size in rows:
        bounds = BOUNDS.fullmatch(expression)
        if bounds is not None and bounds[2] != "MAXVALUE":
            start = None if bounds[1] == "MINVALUE" else datetime.fromisoformat(bounds[1].strip("'"))
            partitions.append((start, datetime.fromisoformat(bounds[2].strip("'")), int(size)))
    return partitions
