"""What a bench asks its database."""

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime

import psycopg
import trio

LAST_TIMES = """SELECT pair, to_char(max(event_time), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') FROM kraken_orderbook
GROUP BY pair"""


async def query(url: str, statement: str) -> list[tuple[object, ...]]:
    """Run SQL as one transaction; on the way to its locks it may meet a worker that waits for another of them."""
    while True:
        with suppress(psycopg.errors.DeadlockDetected):
            return await trio.to_thread.run_sync(_query, url, statement)


async def stored_until(url: str, pairs: Iterable[str]) -> dict[str, str]:
    """By pair, the time of the last book row; of these pairs it is empty while there is none, or no database."""
    rows: list[tuple[object, ...]] = []
    with suppress(psycopg.OperationalError, psycopg.errors.UndefinedTable):
        rows = await query(url, LAST_TIMES)
    return dict.fromkeys(pairs, "") | {str(pair): str(last) for pair, last in rows}


def timestamp(moment: datetime) -> str:
    """A time as the wire and the accounting write it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _query(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True, options="-c default_transaction_read_only=off") as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []
