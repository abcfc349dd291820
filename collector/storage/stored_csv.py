"""Trades and candles as CSV: the lines of COPY, which keep every digit and cost this side next to nothing.

One statement reads a day at most, so that no snapshot is held for long and the server sorts no more than that. Times
come in one width, `2026-01-31T12:00:00.000000Z`.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

from collector.storage.database import Connection, translated

_TIME = """to_char({}, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
_IN_RANGE = "pair = %(pair)s AND event_time >= %(since)s::timestamp AND event_time < %(until)s::timestamp"
_TRADES = f"""
COPY (
    SELECT {_TIME.format("event_time")}, price, volume, side, order_type, trade_id
    FROM kraken_trades WHERE {_IN_RANGE}
    ORDER BY event_time, trade_id
) TO STDOUT (FORMAT csv)
"""  # noqa: S608 - the parts are constants
_CANDLES = f"""
COPY (
    SELECT {_TIME.format("bucket")}, open, high, low, close, volume, trades
    FROM kraken_candles(%(pair)s, %(width)s::interval, %(since)s::timestamp, %(until)s::timestamp)
    ORDER BY bucket
) TO STDOUT (FORMAT csv)
"""  # noqa: S608 - likewise
_COUNT = f"SELECT count(*) FROM kraken_trades WHERE {_IN_RANGE}"  # noqa: S608 - likewise
# Through the indexes on (pair, trade_id), and on (pair, event_time) of those that have no id. An id of 0 says nothing
# of the time: REST had such rows until 2024.
_SPAN = """
SELECT min(event_time), max(event_time) FROM (
    (SELECT event_time FROM kraken_trades WHERE pair = %(pair)s AND trade_id > 0 ORDER BY trade_id LIMIT 1)
    UNION ALL
    (SELECT event_time FROM kraken_trades WHERE pair = %(pair)s AND trade_id > 0 ORDER BY trade_id DESC LIMIT 1)
    UNION ALL
    (SELECT event_time FROM kraken_trades WHERE pair = %(pair)s AND trade_id = 0)
    UNION ALL
    (SELECT min(event_time) FROM kraken_trades WHERE pair = %(pair)s AND trade_id IS NULL)
    UNION ALL
    (SELECT max(event_time) FROM kraken_trades WHERE pair = %(pair)s AND trade_id IS NULL)
) AS ends
"""


def trade_lines(connection: Connection, pair: str, since: datetime, until: datetime) -> Iterator[bytes]:
    """Lines of event_time, price, volume, side, order_type and trade_id, by time and then by id.

    From `since` up to before `until`, in UTC without a zone.
    """
    return _copy(connection, _TRADES, {"pair": pair, "since": since, "until": until})


def candle_lines(
    connection: Connection, pair: str, width: timedelta, since: datetime, until: datetime
) -> Iterator[bytes]:
    """Lines of bucket, open, high, low, close, volume and number of trades, by bucket; see `kraken_candles`."""
    return _copy(connection, _CANDLES, {"pair": pair, "width": width, "since": since, "until": until})


def count_trades(connection: Connection, pair: str, since: datetime, until: datetime) -> int:
    """How many trades of a pair a range has, those of an earlier collector included."""
    with translated():
        row = connection.execute(_COUNT, {"pair": pair, "since": since, "until": until}).fetchone()
    return 0 if row is None else int(row[0])


def trade_times(connection: Connection, pair: str) -> tuple[datetime, datetime] | None:
    """When the first and the last stored trade of a pair were; None without any."""
    with translated():
        row = connection.execute(_SPAN, {"pair": pair}).fetchone()
    return None if row is None or row[0] is None else (row[0], row[1])


def _copy(connection: Connection, statement: str, arguments: dict[str, object]) -> Iterator[bytes]:
    with translated(), connection.cursor() as cursor, cursor.copy(statement, arguments) as copy:
        for line in copy:
            yield bytes(line)
