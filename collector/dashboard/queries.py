"""What the dashboard asks the database. Every query is bounded in time, in rows, or by an index.

Each function takes a connection inside a transaction that the caller has opened; times are UTC without a zone, as the
tables have them. Errors of PostgreSQL pass through: the reader translates them.
"""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from collector.dashboard.live_book import BookRow
from collector.rows import MAX_STEP_BACK
from collector.storage.database import Connection

# Without news for so long nobody may be collecting. Runs are reported every 5 s, then wait for the spool to be shipped.
SILENT_AFTER = timedelta(seconds=15)
MAX_GAPS = 500  # the latest of a channel: more would not be told apart in a picture
PAST_TRADES_WITHIN = timedelta(hours=1)  # before a time, so that few blocks of the index on time are looked at
# Checkpoints that a replay goes back at most, so that it takes in 30,000 rows or so: about a second.
REPLAY_CHECKPOINTS = 3

_PAIRS = "SELECT DISTINCT pair FROM kraken_coverage ORDER BY pair"
_ORIGIN = "SELECT origin FROM collector_database"
_RUN = """
SELECT chain, started_at, last_at, ended_at, end_reason, suspect_since, (now() AT TIME ZONE 'UTC')
FROM kraken_coverage
WHERE pair = %(pair)s AND channel = 'book'
ORDER BY last_at + CASE WHEN chain = %(chain)s AND ended_at IS NULL THEN %(loyalty)s ELSE interval '0' END DESC,
         chain DESC
LIMIT 1
"""
_CHECKPOINTS = """
SELECT seq, event_time FROM kraken_orderbook
WHERE pair = %(pair)s AND type = 'snapshot' AND chain = %(chain)s AND event_time >= %(since)s
ORDER BY event_time DESC, seq DESC LIMIT %(count)s
"""
_ROWS = """
SELECT event_time, seq, type, bids::text, asks::text, checksum, evicted::text FROM kraken_orderbook
WHERE pair = %(pair)s AND chain = %(chain)s AND seq BETWEEN %(first)s AND %(last)s AND event_time >= %(since)s
ORDER BY seq
"""
_TRADE = "trade_id, event_time, side, price, volume, order_type"
_NEW_TRADES = f"""
SELECT {_TRADE} FROM kraken_trades WHERE pair = %(pair)s AND trade_id > %(after)s ORDER BY trade_id DESC LIMIT %(count)s
"""  # noqa: S608 - the columns are constants
_PAST_TRADES = f"""
SELECT {_TRADE} FROM kraken_trades
WHERE pair = %(pair)s AND event_time BETWEEN %(since)s AND %(at)s
ORDER BY event_time DESC, trade_id DESC LIMIT %(count)s
"""  # noqa: S608 - likewise
_CANDLES = """
SELECT bucket, open, high, low, close, volume, trades FROM kraken_candles(%s, %s, %s::timestamp, %s::timestamp)
"""
_ENDS = """
SELECT channel, min(started_at), max(last_at), (array_agg(end_reason ORDER BY last_at DESC, chain DESC))[1]
FROM kraken_coverage WHERE pair = %s GROUP BY channel
"""
_GAPS = """
SELECT started_at, ended_at, reason FROM kraken_gaps
WHERE pair = %(pair)s AND channel = %(channel)s AND ended_at > %(since)s AND started_at < %(until)s
ORDER BY started_at DESC LIMIT %(count)s
"""
_SHARE = "SELECT share FROM kraken_completeness(%s, %s::timestamp, %s::timestamp) WHERE channel = %s"


class Run(NamedTuple):
    """The run of a pair's book that goes on, or ended last; `now` is the database's clock."""

    chain: int
    started_at: datetime
    last_at: datetime
    ended_at: datetime | None
    end_reason: str | None
    suspect_since: datetime | None
    now: datetime


class Checkpoint(NamedTuple):
    """A snapshot, from which a replay can begin."""

    seq: int
    event_time: datetime


class StoredTrade(NamedTuple):
    """A row of kraken_trades; the id is NULL in rows of an earlier collector."""

    trade_id: int | None
    event_time: datetime
    side: str
    price: Decimal
    volume: Decimal
    order_type: str


class Candle(NamedTuple):
    """A row of kraken_candles."""

    bucket: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    trades: int


class Gap(NamedTuple):
    """A time of which there is no verified data; `ended_at` is None while it goes on."""

    started_at: datetime
    ended_at: datetime | None
    reason: str | None


class Channel(NamedTuple):
    """The coverage of one channel of a pair: from when to when it was watched at all, and the gaps, latest first.

    `end_reason` is why the last run ended, None while it goes on. `share`, from 0 to 1, is how much was seen of the
    time asked for, from the first run on; None where that is no time at all.
    """

    name: str
    started_at: datetime
    last_at: datetime
    end_reason: str | None
    share: Decimal | None
    gaps: list[Gap]


def known_pairs(connection: Connection) -> list[str]:
    """The pairs that were ever watched."""
    return [pair for (pair,) in connection.execute(_PAIRS)]


def origin(connection: Connection) -> str | None:
    """The host of the feed that is stored; None while no collector has claimed the database."""
    row = connection.execute(_ORIGIN).fetchone()
    return None if row is None else row[0]


def latest_run(connection: Connection, pair: str, followed: int | None, loyalty: timedelta) -> Run | None:
    """The run that reaches furthest; None where nobody has ever watched the pair's book.

    One that is followed and still open keeps its place until another is ahead by more than `loyalty`.
    """
    arguments = {"pair": pair, "chain": followed, "loyalty": loyalty}
    row = connection.execute(_RUN, arguments).fetchone()
    return None if row is None else Run(*row)


def replay_start(connection: Connection, pair: str, run: Run, since: datetime) -> Checkpoint | None:
    """The latest snapshot of a run that is not after `since`, else the earliest near it; None where there is none."""
    arguments = {"pair": pair, "chain": run.chain, "since": run.started_at, "count": REPLAY_CHECKPOINTS}
    checkpoints = [Checkpoint(*row) for row in connection.execute(_CHECKPOINTS, arguments)]
    return next((found for found in checkpoints if found.event_time <= since), checkpoints[-1] if checkpoints else None)


def book_rows(connection: Connection, pair: str, chain: int, first: int, count: int, after: datetime) -> list[BookRow]:
    """At most `count` rows of a chain from seq `first` on, none of which can be of before `after`."""
    arguments = {"pair": pair, "chain": chain, "first": first, "last": first + count - 1}
    # Times need not rise with seq, and it is by time that the rows are found.
    return [BookRow(*row) for row in connection.execute(_ROWS, arguments | {"since": after - MAX_STEP_BACK})]


def new_trades(connection: Connection, pair: str, after: int, count: int) -> list[StoredTrade]:
    """The last `count` trades with an id above `after`, latest first."""
    arguments = {"pair": pair, "after": after, "count": count}
    return [StoredTrade(*row) for row in connection.execute(_NEW_TRADES, arguments)]


def past_trades(connection: Connection, pair: str, at: datetime, count: int) -> list[StoredTrade]:
    """The last `count` trades in the hour before a time, latest first."""
    arguments = {"pair": pair, "at": at, "since": at - PAST_TRADES_WITHIN, "count": count}
    return [StoredTrade(*row) for row in connection.execute(_PAST_TRADES, arguments)]


def candles(connection: Connection, pair: str, width: timedelta, since: datetime, until: datetime) -> list[Candle]:
    """Candles of a width over a range; where nothing was traded there is none."""
    return [Candle(*row) for row in connection.execute(_CANDLES, [pair, width, since, until])]


def coverage(connection: Connection, pair: str, since: datetime, until: datetime) -> list[Channel]:
    """The coverage of a pair's channels in a range of time."""
    channels = []
    for name, started_at, last_at, end_reason in connection.execute(_ENDS, [pair]).fetchall():
        arguments = {"pair": pair, "channel": name, "since": since, "until": until, "count": MAX_GAPS}
        gaps = [Gap(*row) for row in connection.execute(_GAPS, arguments)]
        channel = Channel(name, started_at, last_at, end_reason, None, gaps)
        channels.append(channel._replace(share=_share(connection, pair, channel, since, until)))
    return sorted(channels)


def _share(connection: Connection, pair: str, channel: Channel, since: datetime, until: datetime) -> Decimal | None:
    # What was before the first run is not missing, nor is what a run that goes on has not told of yet.
    begun = max(since, channel.started_at)
    end = channel.last_at if channel.end_reason is None and until - channel.last_at < SILENT_AFTER else until
    if begun >= end:
        return None
    row = connection.execute(_SHARE, [pair, begun, end, channel.name]).fetchone()
    return None if row is None else row[0]
