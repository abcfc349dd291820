"""What a database tells of how collecting goes now, read in a moment however much is stored.

Invariant: one transaction that reads only, and no statement that grows with the order book beyond one minute of it.
Trades are counted through the index on their ids, which rise with time. Rows of the book within an hour or a day are
an estimate: a run's `seq` counts its rows without holes, so that two checkpoints around a moment tell how many came
before it, give or take what changed unevenly between the two.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import NamedTuple, TypeAlias
from uuid import UUID

import psycopg

from collector.errors import UnusableDatabase
from collector.kraken.requests import Channel
from collector.storage.database import Connection, translated
from collector.storage.partitions import PARENT, day_partitions
from collector.storage.stored_trades import stored_pairs

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
SPOOLS = 5  # spools, the latest, that are told: each collector has one, and each new disk or database begins another
AUDITS_SINCE = timedelta(days=8)  # AUDIT_INTERVAL is at most 7

Moment: TypeAlias = tuple[str, datetime]  # a pair, and since when its rows are counted

_NOW = "SELECT now() AT TIME ZONE 'UTC'"
_ORIGIN = "SELECT origin FROM collector_database"
_CHANNELS = """
SELECT pair, channel, min(started_at) AS first_at, max(last_at) AS last_at,
       (array_agg(end_reason ORDER BY last_at DESC, chain DESC))[1] AS end_reason,
       max(last_at) FILTER (WHERE last_at <= %(day)s) AS earlier_at,
       (array_agg(end_reason ORDER BY last_at DESC, chain DESC) FILTER (WHERE last_at <= %(day)s))[1] AS earlier_reason,
       count(*) FILTER (WHERE channel = 'book' AND end_reason = 'checksum' AND ended_at > %(day)s) AS checksum_failures
FROM kraken_coverage GROUP BY pair, channel
"""
_PERIODS = """
SELECT pair, channel, started_at, last_at, chain, end_reason
FROM kraken_coverage WHERE pair = ANY(%(pairs)s) AND last_at > %(day)s
"""
_AUDITS = """
SELECT DISTINCT ON (pair) pair, audited_at, passed, jsonb_array_length(differences) AS differences,
       count(*) FILTER (WHERE NOT passed AND audited_at > %(day)s) OVER (PARTITION BY pair) AS failed
FROM kraken_audits WHERE pair = ANY(%(pairs)s) AND audited_at > %(audits)s ORDER BY pair, audited_at DESC
"""
_LAST_TRADES = """
SELECT wanted.pair, trade.event_time, trade.price::text AS price
FROM unnest(%(pairs)s::text[]) AS wanted (pair), LATERAL (
    SELECT event_time, price FROM kraken_trades AS trade
    WHERE trade.pair = wanted.pair AND trade_id IS NOT NULL ORDER BY trade_id DESC LIMIT 1
) AS trade
"""
# By halving, for all pairs and moments at once: `low` ends as the first id whose trade is not before the moment.
_TRADES = """
WITH RECURSIVE bounds AS (
    SELECT pair, (SELECT min(trade_id) FROM kraken_trades WHERE pair = wanted.pair AND trade_id > 0) AS first_id,
           (SELECT max(trade_id) FROM kraken_trades WHERE pair = wanted.pair) AS last_id
    FROM unnest(%(pairs)s::text[]) AS wanted (pair)
), search (pair, since, low, high) AS (
    SELECT pair, since, first_id, last_id + 1
    FROM bounds, unnest(%(moments)s::timestamp[]) AS since WHERE first_id IS NOT NULL
    UNION ALL
    SELECT pair, since,
           CASE WHEN is_before THEN trade_id + 1 ELSE low END, CASE WHEN is_before THEN high ELSE middle END
    FROM search, LATERAL (SELECT (low + high) / 2 AS middle) AS half, LATERAL (
        SELECT trade_id, event_time < since AS is_before FROM kraken_trades AS trade
        WHERE trade.pair = search.pair AND trade_id >= middle ORDER BY trade_id LIMIT 1
    ) AS found
    WHERE low < high
)
SELECT pair, since, last_id - low + 1 AS ids,
       (SELECT count(*) FROM kraken_trades AS trade WHERE trade.pair = search.pair AND trade_id >= low) AS rows,
       (
           SELECT coalesce(sum(least(absent.last_id, bounds.last_id) - greatest(first_id, low) + 1), 0)::bigint
           FROM kraken_absent_trades AS absent
           WHERE absent.pair = search.pair AND absent.last_id >= low AND first_id <= bounds.last_id
       ) AS absent
FROM search JOIN bounds USING (pair) WHERE low >= high
"""
_BOOK_MINUTE = f"""
SELECT pair, count(*) AS rows FROM {PARENT}
WHERE event_time > %(minute)s AND event_time <= %(ahead)s GROUP BY pair
"""  # noqa: S608 - the table's name is a constant
_CHECKPOINT = f"""
SELECT event_time, seq FROM {PARENT} AS book
WHERE type = 'snapshot' AND book.pair = run.pair AND book.chain = run.chain
      AND event_time BETWEEN run.started_at AND run.last_at AND event_time BETWEEN %(before)s AND %(ahead)s
"""  # noqa: S608 - likewise
_BOOK_ROWS = f"""
SELECT run.pair, since, sum(run.rows - CASE WHEN run.started_at >= since THEN 0 ELSE round(
           low_rows + (high_rows - low_rows)
           * extract(epoch FROM since - low_at) / nullif(extract(epoch FROM high_at - low_at), 0)
       ) END)::bigint AS rows
FROM kraken_coverage AS run JOIN unnest(%(moments)s::timestamp[]) AS since ON run.last_at > since
     LEFT JOIN LATERAL ({_CHECKPOINT} AND event_time <= since ORDER BY event_time DESC, seq DESC LIMIT 1) AS low ON true
     LEFT JOIN LATERAL ({_CHECKPOINT} AND event_time > since ORDER BY event_time, seq LIMIT 1) AS high ON true,
     LATERAL (
         SELECT coalesce(low.event_time, run.started_at) AS low_at, coalesce(low.seq, 0) AS low_rows,
                coalesce(high.event_time, run.last_at) AS high_at, coalesce(high.seq, run.rows) AS high_rows
     ) AS around
WHERE run.channel = 'book' AND run.pair = ANY(%(pairs)s)
GROUP BY run.pair, since
"""  # noqa: S608 - likewise
_SPOOLS = "SELECT spool, last_segment, shipped_at FROM collector_spools ORDER BY shipped_at DESC LIMIT %(spools)s"
_SIZES = """
SELECT pg_database_size(current_database()) AS database, pg_total_relation_size(class.oid) AS trades, reltuples
FROM pg_class AS class WHERE class.oid = to_regclass('kraken_trades')
"""
_DAY_SIZES = """
SELECT coalesce(sum(pg_total_relation_size(class.oid)), 0)::bigint
FROM pg_class AS class JOIN pg_class AS parent USING (relnamespace)
WHERE parent.oid = to_regclass(%s) AND class.relname = ANY(%s)
"""


class ChannelSpan(NamedTuple):
    """What the runs of a pair's channel amount to.

    Attributes:
        pair: the pair.
        channel: its channel.
        first_at: when the first of them began.
        last_at: until when the newest is known to be complete.
        end_reason: why that one ended, None while it goes on.
        earlier_at: until when the newest that ended before the last day was complete, None where there is none.
        earlier_reason: why that one ended.
        checksum_failures: runs of the last day that ended by a wrong checksum.

    """

    pair: str
    channel: Channel
    first_at: datetime
    last_at: datetime
    end_reason: str | None
    earlier_at: datetime | None
    earlier_reason: str | None
    checksum_failures: int


class Period(NamedTuple):
    """A time in which a pair's channel was watched, by the run `chain`; `reason` is why it ended, None if untold."""

    started_at: datetime
    ended_at: datetime
    chain: int
    reason: str | None


class LastAudit(NamedTuple):
    """A pair's latest audit, how many levels differed in it, and how many audits failed within the last day."""

    audited_at: datetime
    passed: bool
    differences: int
    failed: int


class LastTrade(NamedTuple):
    """The latest trade of a pair, its price with the digits that Kraken sent."""

    event_time: datetime
    price: str


class SpoolState(NamedTuple):
    """How far a spool has been shipped."""

    spool: UUID
    last_segment: int
    shipped_at: datetime


class RowCounts(NamedTuple):
    """Rows within the last minute, hour and day."""

    minute: int
    hour: int
    day: int


class PairCounts(NamedTuple):
    """Rows of a pair. Those of the book within hour and day are estimates; `missing_trades` are of the last day."""

    trades: RowCounts
    book: RowCounts
    missing_trades: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes on disk.

    Attributes:
        database: all of the database.
        book_since: what the days of the order book from `since` on take.
        since: the beginning of yesterday.
        bytes_per_trade: with indexes; None until PostgreSQL has counted them.

    """

    database: int
    book_since: int
    since: datetime
    bytes_per_trade: float | None


@dataclass(frozen=True, slots=True)
class StoredStatus:
    """What is told of a database at `now`, its own clock's time in UTC; dictionaries are by pair.

    `periods` are the runs that reach into the last day. What was not watched follows from them, as in kraken_gaps,
    which reads the coverage of all years: with a thousand pairs and a year it takes longer than a person waits.
    """

    now: datetime
    origin: str | None
    channels: list[ChannelSpan]
    pairs: list[str]
    periods: dict[tuple[str, Channel], list[Period]]
    audits: dict[str, LastAudit]
    last_trades: dict[str, LastTrade]
    counts: dict[str, PairCounts]
    spools: list[SpoolState]
    sizes: Sizes
    former_pairs: list[str]


def read_status(connection: Connection, choose: Callable[[Sequence[ChannelSpan]], Sequence[str]]) -> StoredStatus:
    """Read it all, of the pairs that `choose` picks by what has been watched.

    Raises:
        StorageUnavailable: the database cannot be had now, or one statement took longer than its timeout.
        UnusableDatabase: it has not got this collector's schema.

    """
    try:
        with translated(), connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            return _read(connection, choose)
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        raise UnusableDatabase("the database has not got this collector's schema: run its migrate command") from error


def _read(connection: Connection, choose: Callable[[Sequence[ChannelSpan]], Sequence[str]]) -> StoredStatus:
    (now,) = connection.execute(_NOW).fetchone() or (datetime.min,)  # noqa: DTZ901 - UTC without zone; always a row
    origin = connection.execute(_ORIGIN).fetchone()
    channels = [ChannelSpan(*row) for row in connection.execute(_CHANNELS, {"day": now - DAY})]
    pairs = list(choose(channels))
    given = {
        "pairs": pairs,
        "minute": now - MINUTE,
        "day": now - DAY,
        "before": now - 2 * DAY,  # each day of a run has a checkpoint of its own
        "ahead": now + DAY,  # no row's time is further ahead of the clock
        "audits": now - AUDITS_SINCE,
        "spools": SPOOLS,
    }
    periods: dict[tuple[str, Channel], list[Period]] = defaultdict(list)
    for pair, channel, *period in connection.execute(_PERIODS, given):
        periods[pair, channel].append(Period(*period))
    return StoredStatus(
        now,
        None if origin is None else str(origin[0]),
        channels,
        pairs,
        dict(periods),
        {pair: LastAudit(*audit) for pair, *audit in connection.execute(_AUDITS, given)},
        {pair: LastTrade(*trade) for pair, *trade in connection.execute(_LAST_TRADES, given)},
        _count(connection, now, pairs, given),
        [SpoolState(*row) for row in connection.execute(_SPOOLS, given)],
        _sizes(connection, now),
        sorted(set(stored_pairs(connection)) - set(pairs)),
    )


def _count(
    connection: Connection, now: datetime, pairs: Sequence[str], given: dict[str, object]
) -> dict[str, PairCounts]:
    moments = [now - MINUTE, now - HOUR, now - DAY]
    trades, book, missing = Counter[Moment](), Counter[Moment](), Counter[str]()
    for pair, since, ids, rows, absent in connection.execute(_TRADES, given | {"moments": moments}):
        trades[pair, since] = rows
        missing[pair] = max(missing[pair], ids - rows - absent)  # the day's, of which the others are parts
    book.update({(pair, moments[0]): rows for pair, rows in connection.execute(_BOOK_MINUTE, given)})
    for pair, since, rows in connection.execute(_BOOK_ROWS, given | {"moments": moments[1:]}):
        book[pair, since] = rows
    return {
        pair: PairCounts(
            RowCounts(*(trades[pair, since] for since in moments)),
            RowCounts(*(book[pair, since] for since in moments)),
            missing[pair],
        )
        for pair in pairs
    }


def _sizes(connection: Connection, now: datetime) -> Sizes:
    yesterday = now.date() - DAY
    days: set[date] = {yesterday, now.date()}
    names = [partition.name for partition in day_partitions(connection) if partition.day in days]
    (book,) = connection.execute(_DAY_SIZES, [PARENT, names]).fetchone() or (0,)
    database, trades, rows = connection.execute(_SIZES).fetchone() or (0, 0, -1.0)
    since = datetime.combine(yesterday, datetime.min.time())
    return Sizes(int(database), int(book), since, trades / rows if rows > 0 else None)
