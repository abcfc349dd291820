"""Trades and their ids read back in order, through the index on (pair, trade_id)."""

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from collector.id_ranges import IdRange
from collector.storage.database import Connection, translated
from collector.storage.missing_trades import adopted_until, first_id, neighbour

# The pairs, each found by one step through the index, instead of by reading all trades.
_PAIRS = """
WITH RECURSIVE pairs AS (
    SELECT min(pair) AS pair FROM kraken_trades
    UNION ALL
    SELECT (SELECT min(pair) FROM kraken_trades WHERE pair > pairs.pair) FROM pairs WHERE pairs.pair IS NOT NULL
)
SELECT pair FROM pairs WHERE pair IS NOT NULL
UNION
SELECT pair FROM kraken_coverage
ORDER BY pair
"""
_HIGHEST = "SELECT max(trade_id) FROM kraken_trades WHERE pair = %s"
_FROM = """
SELECT trade_id, event_time FROM kraken_trades WHERE pair = %s AND trade_id >= %s ORDER BY trade_id LIMIT 1
"""
_IDS = """
COPY (
    SELECT trade_id FROM kraken_trades
    WHERE pair = %s AND trade_id >= %s AND trade_id <= %s
    ORDER BY trade_id
) TO STDOUT
"""
_ABSENT = "SELECT first_id, last_id FROM kraken_absent_trades WHERE pair = %s ORDER BY first_id"
_TRADE = "SELECT event_time::text, pair, price::text, volume::text, side, order_type, trade_id FROM kraken_trades"
_TRADES = f"{_TRADE} WHERE pair = %s AND trade_id >= %s AND trade_id < %s ORDER BY trade_id LIMIT %s"
_LAST_TRADES = f"{_TRADE} WHERE pair = %s AND trade_id < %s ORDER BY trade_id DESC LIMIT %s"
_WITHOUT_ID = """
SELECT count(*) FROM kraken_trades
WHERE pair = %(pair)s AND trade_id IS NULL
      AND (%(since)s::timestamp IS NULL OR event_time >= %(since)s)
      AND (%(until)s::timestamp IS NULL OR event_time < %(until)s)
"""


class TradeSpan(NamedTuple):
    """Ids of a range of time: those in it are `first` <= id < `end`, its stored neighbours `before` and `after`.

    Where there is no neighbour, it is the first or the last id itself.
    """

    before: int
    first: int
    end: int
    after: int


class StoredTrade(NamedTuple):
    """A row of kraken_trades, its time and its numbers as PostgreSQL writes them."""

    event_time: str
    pair: str
    price: str
    volume: str
    side: str
    order_type: str
    trade_id: int


def stored_pairs(connection: Connection) -> list[str]:
    """The pairs of which trades or runs are stored."""
    with translated():
        return [str(pair) for (pair,) in connection.execute(_PAIRS)]


def trade_span(connection: Connection, pair: str, since: datetime | None, until: datetime | None) -> TradeSpan | None:
    """The ids of a pair's trades from `since` up to before `until`; None where no trade of the pair has an id."""
    with translated():
        # Ids count from behind an earlier collector's rows: before, holes are what that one did not see.
        lowest = first_id(connection, pair, adopted_until(connection, pair))
        (highest,) = connection.execute(_HIGHEST, [pair]).fetchone() or (None,)
        if lowest is None or highest is None:
            return None
        first = lowest if since is None else _first_at(connection, pair, lowest, highest, since)
        end = highest + 1 if until is None else _first_at(connection, pair, lowest, highest, until)
        before = neighbour(connection, pair, first) if first > lowest else None
    return TradeSpan(first if before is None else before[0], first, end, min(end, highest))


def _first_at(connection: Connection, pair: str, lowest: int, highest: int, moment: datetime) -> int:
    """The first id whose trade happened at `moment` or later: Kraken numbers trades in the order of their times."""
    low, high = lowest, highest + 1
    while low < high:
        middle = (low + high) // 2
        row = connection.execute(_FROM, [pair, middle]).fetchone()
        if row is None or row[1] >= moment:
            high = middle
        else:
            low = row[0] + 1
    row = connection.execute(_FROM, [pair, low]).fetchone()
    return highest + 1 if row is None else int(row[0])


def trade_ids(connection: Connection, pair: str, span: TradeSpan) -> Iterator[int]:
    """The ids of a span and of its neighbours, in order."""
    with translated(), connection.cursor() as cursor, cursor.copy(_IDS, [pair, span.before, span.after]) as copy:
        for line in copy:
            yield int(line)


def trades_from(connection: Connection, pair: str, first: int, end: int, count: int) -> list[StoredTrade]:
    """At most `count` trades of a pair with ids from `first` up to before `end`, in order."""
    with translated():
        return [StoredTrade(*row) for row in connection.execute(_TRADES, [pair, first, end, count])]


def trades_before(connection: Connection, pair: str, end: int, count: int) -> list[StoredTrade]:
    """The last `count` trades of a pair with ids below `end`, in order."""
    with translated():
        return [StoredTrade(*row) for row in connection.execute(_LAST_TRADES, [pair, end, count])][::-1]


def time_at(connection: Connection, pair: str, trade_id: int) -> str | None:
    """When a trade happened; of one that is not stored, when the last one before it did."""
    with translated():
        found = neighbour(connection, pair, trade_id + 1)
    return None if found is None else str(found[1])


def absent_trades(connection: Connection, pair: str) -> list[IdRange]:
    """The ranges of ids that Kraken does not have either."""
    with translated():
        return [IdRange(*row) for row in connection.execute(_ABSENT, [pair])]


def trades_without_id(connection: Connection, pair: str, since: datetime | None, until: datetime | None) -> int:
    """How many trades an earlier collector left in a range: nothing tells whether one is missing."""
    with translated():
        row = connection.execute(_WITHOUT_ID, {"pair": pair, "since": since, "until": until}).fetchone()
    return 0 if row is None else int(row[0])
