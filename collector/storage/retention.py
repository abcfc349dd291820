"""Retention: whole days of the order book are dropped when they are old enough; trades are kept for ever.

A day is marked in kraken_coverage before it is dropped, so that coverage never claims what is not stored, wherever the
removal is interrupted; calling again finishes it. Only tables that hold one day can be dropped at all: an adopted
table holds all time before its end.
"""

from datetime import date, datetime, time, timedelta

from collector.storage.database import Connection, translated
from collector.storage.partitions import day_partitions, detach_and_drop

TODAY = "SELECT (now() AT TIME ZONE 'UTC')::date"
# Runs of which nothing is left keep the mark that said so: else each day would rewrite the coverage of all years.
MARK = """
UPDATE kraken_coverage SET dropped_before = %(kept_from)s
WHERE channel = 'book' AND started_at < %(kept_from)s
      AND (dropped_before IS NULL OR dropped_before < least(last_at, %(kept_from)s))
"""


def old_days(connection: Connection, today: date, keep_days: int) -> list[date]:
    """The days of the book that are more than `keep_days` before today, in order.

    Dropping cannot be undone, so two clocks must agree that a day is old: of `today`, the caller's, and the
    database's, the earlier one counts.
    """
    with translated():
        (database_today,) = connection.execute(TODAY).fetchone() or (today,)
    kept_from = min(today, database_today) - timedelta(days=keep_days)
    return sorted({partition.day for partition in day_partitions(connection) if partition.day < kept_from})


def drop_day(connection: Connection, day: date) -> bool:
    """Drop a day of the book, and say so in the coverage of its runs; return whether there was anything to drop.

    The connection must do nothing else (see partitions.py).

    Raises:
        StorageUnavailable: a reader is using the day, or another session is dropping days; call again later.

    """
    kept_from = datetime.combine(day, time.min) + timedelta(days=1)
    with translated():
        connection.execute(MARK, {"kept_from": kept_from})
    return detach_and_drop(connection, day)
