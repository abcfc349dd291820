"""Which trades the database lacks, and which of them Kraken does not have either.

Kraken numbers the trades of a pair without holes, so whatever id lies between two stored ones belongs to a trade that
is missing. The statements read a bounded part of an index each, and neither wait for a writer nor keep one waiting.
Rows of an earlier collector have no id and are no part of the numbering.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from collector.id_ranges import IdRange
from collector.storage.database import Connection

SLICE_ROWS = 50_000  # rows that one statement looks at: 70 ms, or 0.2 s where no vacuum has been yet (measured)
# Seconds to find the first id behind an earlier collector's rows. It is the first one looked at, unless that collector
# was brought back for a while: then the rows from before it are read through.
FIRST_ID_TIMEOUT = 600.0

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - UTC without zone, like the column
_LOOK = """
WITH stored AS MATERIALIZED (
    SELECT trade_id FROM kraken_trades
    WHERE pair = %(pair)s AND trade_id >= %(first)s ORDER BY trade_id LIMIT %(limit)s
), known AS (
    SELECT %(first)s::bigint AS first_id, %(first)s::bigint AS last_id
    UNION ALL
    SELECT trade_id, trade_id FROM stored
    UNION ALL
    SELECT first_id, last_id FROM kraken_absent_trades
    WHERE pair = %(pair)s AND last_id > %(first)s AND first_id <= (SELECT max(trade_id) FROM stored)
), neighbours AS (
    SELECT max(last_id) OVER ascending AS known_to, lead(first_id) OVER ascending AS next_id
    FROM known WINDOW ascending AS (ORDER BY first_id, last_id)
)
SELECT known_to, next_id, (SELECT count(*) FROM stored) FROM neighbours
WHERE next_id IS NULL OR next_id > known_to + 1 ORDER BY known_to
"""
_ADOPTED_UNTIL = "SELECT max(event_time) FROM kraken_trades WHERE pair = %s AND trade_id IS NULL"
_FIRST_ID = """
SELECT trade_id FROM kraken_trades
WHERE pair = %s AND trade_id > 0 AND event_time > coalesce(%s, '-infinity'::timestamp) ORDER BY trade_id LIMIT 1
"""
_NEIGHBOUR = """
SELECT trade_id, event_time FROM kraken_trades WHERE pair = %s AND trade_id < %s ORDER BY trade_id DESC LIMIT 1
"""
_RECORD_ABSENT = """
INSERT INTO kraken_absent_trades AS known (pair, first_id, last_id) VALUES (%s, %s, %s)
ON CONFLICT (pair, first_id) DO UPDATE SET last_id = greatest(known.last_id, excluded.last_id)
"""


class Look(NamedTuple):
    """What a look at a slice of the ids found: the missing ones, and up to where; `is_last` when nothing follows."""

    missing: list[IdRange]
    known_to: int
    is_last: bool


def look(connection: Connection, pair: str, first_id: int, limit: int = SLICE_ROWS) -> Look:
    """Find the ids that are missing among the next `limit` stored ones from `first_id` on.

    That one is known: stored, or the end of a range that Kraken does not have.
    Ids that Kraken does not have either are not missing. Ids below `first_id`, and above the last stored one, are not
    looked for. A `limit` of at least 2 makes every slice but the last lead on.
    """
    rows = connection.execute(_LOOK, {"pair": pair, "first": first_id, "limit": limit}).fetchall()
    missing = [IdRange(known_to + 1, next_id - 1) for known_to, next_id, _ in rows if next_id is not None]
    known_to, _, count = rows[-1]
    return Look(missing, known_to, is_last=count < limit)


def adopted_until(connection: Connection, pair: str) -> datetime | None:
    """The time of the last row that an earlier collector wrote of a pair, in UTC without zone; None without any."""
    row = connection.execute(_ADOPTED_UNTIL, [pair]).fetchone()
    return None if row is None else row[0]


def first_id(connection: Connection, pair: str, after: datetime | None) -> int | None:
    """The lowest stored id of a pair of a trade later than `after`; None without any.

    An id of 0 is none: REST had such rows until 2024, and all ids would follow it.
    """
    with connection.transaction():
        connection.execute("SELECT set_config('statement_timeout', %s, true)", [f"{FIRST_ID_TIMEOUT:g}s"])
        row = connection.execute(_FIRST_ID, [pair, after]).fetchone()
    return None if row is None else row[0]


def neighbour(connection: Connection, pair: str, trade_id: int) -> tuple[int, datetime] | None:
    """Id and time of the last stored trade below an id; None without any."""
    return connection.execute(_NEIGHBOUR, [pair, trade_id]).fetchone()


def record_absent(connection: Connection, pair: str, ranges: Iterable[IdRange]) -> None:
    """Note ids that Kraken does not have either, all or none, so that nobody looks for them again."""
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(_RECORD_ABSENT, [(pair, ids.first, ids.last) for ids in ranges])


def nanoseconds(time: datetime) -> int:
    """A stored time as nanoseconds since 1970."""
    return (time - _EPOCH) // timedelta(microseconds=1) * 1000
