"""How many rows came within the last minute, hour and day, without reading a table for it.

Invariant: no statement grows with the order book beyond one minute of it. Trades are counted through the index on
their ids, which rise with time. Rows of the book within an hour or a day are an estimate: a run's `seq` counts its rows
without holes, so that two checkpoints around a moment tell how many came before it, give or take what changed unevenly
between the two.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, TypeAlias

from collector.storage.database import Connection
from collector.storage.partitions import PARENT

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)

Moment: TypeAlias = tuple[str, datetime]  # a pair, and since when its rows are counted

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


def count_rows(connection: Connection, now: datetime, pairs: Sequence[str]) -> dict[str, PairCounts]:
    """Count the rows of some pairs up to `now`, in UTC without zone."""
    moments = [now - MINUTE, now - HOUR, now - DAY]
    given: dict[str, object] = {
        "pairs": list(pairs),
        "minute": now - MINUTE,
        "before": now - 2 * DAY,  # each day of a run has a checkpoint of its own
        "ahead": now + DAY,  # no row's time is further ahead of the clock
    }
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
