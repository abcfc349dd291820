"""What a database tells of how collecting goes now, read in a moment however much is stored.

Invariant: one transaction that reads only, and no statement that grows with the order book (see row_counts.py).
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import psycopg

from collector.errors import UnusableDatabase
from collector.kraken.requests import Channel
from collector.storage.database import Connection, translated
from collector.storage.members import CollectorState, living_collectors
from collector.storage.partitions import PARENT, day_partitions
from collector.storage.row_counts import DAY, PairCounts, count_rows
from collector.storage.stored_trades import stored_pairs

SPOOLS = 5  # spools, the latest, that are told: each collector has one, and each new disk or database begins another
AUDITS_SINCE = timedelta(days=8)  # AUDIT_INTERVAL is at most 7

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
    collectors: list[CollectorState]
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
        "day": now - DAY,
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
        count_rows(connection, now, pairs),
        living_collectors(connection),
        [SpoolState(*row) for row in connection.execute(_SPOOLS, given)],
        _sizes(connection, now),
        sorted(set(stored_pairs(connection)) - set(pairs)),
    )


def _sizes(connection: Connection, now: datetime) -> Sizes:
    yesterday = now.date() - DAY
    days: set[date] = {yesterday, now.date()}
    names = [partition.name for partition in day_partitions(connection) if partition.day in days]
    (book,) = connection.execute(_DAY_SIZES, [PARENT, names]).fetchone() or (0,)
    database, trades, rows = connection.execute(_SIZES).fetchone() or (0, 0, -1.0)
    since = datetime.combine(yesterday, datetime.min.time())
    return Sizes(int(database), int(book), since, trades / rows if rows > 0 else None)
