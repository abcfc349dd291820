"""The days of kraken_orderbook: made ahead, listed, and dropped whole when they are too old.

A long reader never blocks the writer: a day is made as a table of its own and then attached, which neither readers
nor writers of the parent hinder, and it is detached concurrently. What has to wait for a lock gives up after the
connection's `lock_timeout` with `StorageUnavailable`, and the next call takes up where that one stopped. Which day a
table holds is read from its bounds in the catalog; a name alone never makes a table one that may be dropped.
(PostgreSQL 13 cannot detach concurrently: there, writers wait along with a detach, for `lock_timeout` at most.)

Use a connection that does nothing else, since some of this waits.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import count
from typing import Literal

from psycopg import sql

from collector.earliest import EARLIEST
from collector.errors import StorageUnavailable, UnusableDatabase
from collector.storage.database import Connection, translated
from collector.storage.distribution import is_distributing
from collector.storage.schema import SCHEMA_LOCK

PARENT = "kraken_orderbook"
FIRST_DAY = EARLIEST.date()
DAYS_AHEAD = 2  # days that are made before they come; each is tried for many times
ONE_DAY = timedelta(days=1)
# What every row of this collector has; the parent is less strict for the sake of adopted tables.
REQUIRED = ("pair", "bids", "asks", "type", "checksum", "chain", "seq")
RETENTION_LOCK = SCHEMA_LOCK + 1  # an advisory lock: one session at a time removes days
CONCURRENT_DETACH = 140000  # the server version that brought DETACH PARTITION CONCURRENTLY
RETIRED = "A day that was detached because of its age; the collector drops it."

# Read through jsonb, since PostgreSQL 13 has no column inhdetachpending.
ATTACHED = """
SELECT class.relname, pg_get_expr(class.relpartbound, class.oid),
       coalesce((to_jsonb(pg_inherits) ->> 'inhdetachpending')::boolean, false)
FROM pg_inherits JOIN pg_class AS class ON class.oid = inhrelid
WHERE inhparent = to_regclass(%s)
"""
# Tables beside the parent that carry our name and our comment, which is set before a day is detached: a table that
# somebody detached by hand, to keep it, is none of these.
DETACHED = """
SELECT class.relname FROM pg_class AS class JOIN pg_class AS parent USING (relnamespace)
WHERE parent.oid = to_regclass(%s) AND class.relkind = 'r' AND NOT class.relispartition
      AND class.relname ~ '^kraken_orderbook_[0-9]{8}(_[0-9]+)?$' AND obj_description(class.oid, 'pg_class') = %s
"""
NEIGHBOURS = """
SELECT class.relname FROM pg_class AS class JOIN pg_class AS beside USING (relnamespace)
WHERE beside.oid = to_regclass(%s)
"""
NAMESPACE = """
SELECT nspname FROM pg_namespace JOIN pg_class ON relnamespace = pg_namespace.oid
WHERE pg_class.oid = to_regclass(%s)
"""
BOUNDS = re.compile(r"FOR VALUES FROM \((MINVALUE|'.+')\) TO \((MAXVALUE|'.+')\)")


@dataclass(frozen=True, slots=True, order=True)
class DayPartition:
    """A table that holds one day of the book; `state` says how far its removal has come."""

    day: date
    name: str
    state: Literal["attached", "detaching", "detached"]


@dataclass(frozen=True, slots=True)
class _Partition:
    """What the catalog says of an attached partition: it holds `start` <= event_time < `end`."""

    name: str
    start: datetime
    end: datetime
    detaching: bool


def ensure_day(connection: Connection, day: date) -> bool:
    """Make the partition for `day`, unless one holds that day already; return whether one was made.

    Any number of workers may do so at once.

    Raises:
        StorageUnavailable: a lock was not to be had in time, or the day's partition is just being removed.
        ValueError: no row can be of that day.

    """
    if day < FIRST_DAY:
        raise ValueError(f"{day} is before {FIRST_DAY}, the first day that a row can be of")
    with translated():
        if _is_covered(connection, day):
            return False
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [SCHEMA_LOCK])
            if _is_covered(connection, day):
                return False
            _make_day(connection, day)
    return True


def ensure_ahead(connection: Connection, today: date, days: int = DAYS_AHEAD) -> list[date]:
    """Make the partitions for `today` and the `days` after it; return the days that were made."""
    ahead = (today + offset * ONE_DAY for offset in range(days + 1))
    return [day for day in ahead if ensure_day(connection, day)]


def day_partitions(connection: Connection) -> list[DayPartition]:
    """All tables that hold one day of the book, in order, those included whose removal was interrupted.

    An adopted table holds all time before its end, so that it is never one of them.
    """
    with translated():
        days = [
            DayPartition(partition.start.date(), partition.name, "detaching" if partition.detaching else "attached")
            for partition in _attached(connection)
            if (partition.start, partition.end) == _bounds(partition.start.date())
        ]
        days += [DayPartition(day, name, "detached") for name, day in _detached(connection)]
    return sorted(days)


def detach_and_drop(connection: Connection, day: date) -> bool:
    """Remove a day of the book with all its rows; return whether there was anything to remove.

    Waits for the readers that use the day, up to the connection's `lock_timeout`; the day is out of sight for new
    readers then, and the next call finishes its removal.

    Raises:
        StorageUnavailable: a reader is using the day, or another session is removing days.

    """
    with translated(), _retention_lock(connection):
        namespace = _namespace(connection)
        parent = sql.Identifier(namespace, PARENT)
        for partition in day_partitions(connection):
            table = sql.Identifier(namespace, partition.name)
            if partition.state == "detaching":  # of whatever day: PostgreSQL detaches one partition at a time
                _execute(connection, "ALTER TABLE {} DETACH PARTITION {} FINALIZE", parent, table)
            elif partition.state == "attached" and partition.day == day:
                _execute(connection, "COMMENT ON TABLE {} IS {}", table, sql.Literal(RETIRED))
                concurrently = "CONCURRENTLY" if _detaches_concurrently(connection) else ""
                _execute(connection, "ALTER TABLE {} DETACH PARTITION {} " + concurrently, parent, table)
        detached = [name for name, of in _detached(connection) if of == day]
        for name in detached:
            _execute(connection, "DROP TABLE {}", sql.Identifier(namespace, name))
    return bool(detached)


def _detaches_concurrently(connection: Connection) -> bool:
    """Whether a partition can be detached without waiting for its readers; Citus refuses that."""
    return connection.info.server_version >= CONCURRENT_DETACH and not is_distributing(connection)


def free_name(connection: Connection, beside: str, name: str) -> str:
    """Return `name`, numbered when a relation in the schema of the table `beside` has it already."""
    taken = {taken for (taken,) in connection.execute(NEIGHBOURS, [beside])}
    candidates = (f"{name}_{number}" if number > 1 else name for number in count(1))
    return next(candidate for candidate in candidates if candidate not in taken)


def _make_day(connection: Connection, day: date) -> None:
    namespace = _namespace(connection)
    name = free_name(connection, PARENT, f"{PARENT}_{day:%Y%m%d}")
    table, parent = sql.Identifier(namespace, name), sql.Identifier(namespace, PARENT)
    start, end = (sql.Literal(bound.isoformat(" ")) for bound in _bounds(day))
    _execute(connection, "CREATE TABLE {} (LIKE {} INCLUDING ALL)", table, parent)
    for column in REQUIRED:
        _execute(connection, "ALTER TABLE {} ALTER COLUMN {} SET NOT NULL", table, sql.Identifier(column))
    # Proves the bounds, so that attaching scans nothing, now and when a detached day is put back by hand.
    _execute(
        connection,
        "ALTER TABLE {} ADD CONSTRAINT {} CHECK (event_time >= {} AND event_time < {})",
        table,
        sql.Identifier(f"{name}_day"),
        start,
        end,
    )
    _execute(connection, "COMMENT ON TABLE {} IS {}", table, sql.Literal(f"The order books of {day}."))
    _execute(connection, "ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})", parent, table, start, end)


def _is_covered(connection: Connection, day: date) -> bool:
    start, end = _bounds(day)
    for partition in _attached(connection):
        if partition.start <= start and end <= partition.end:
            if partition.detaching:
                raise StorageUnavailable(f"{partition.name}, which holds {day}, is just being removed")
            return True
    return False


def _attached(connection: Connection) -> list[_Partition]:
    partitions = []
    for name, expression, detaching in connection.execute(ATTACHED, [PARENT]).fetchall():
        bounds = BOUNDS.fullmatch(expression)
        if bounds is not None:  # else a default partition, which holds no day for good
            start = datetime.min if bounds[1] == "MINVALUE" else datetime.fromisoformat(bounds[1].strip("'"))  # noqa: DTZ901 - UTC without zone, like the column
            end = datetime.max if bounds[2] == "MAXVALUE" else datetime.fromisoformat(bounds[2].strip("'"))  # noqa: DTZ901 - likewise
            partitions.append(_Partition(name, start, end, detaching))
    return partitions


def _detached(connection: Connection) -> list[tuple[str, date]]:
    """The tables that only wait to be dropped, each with its day."""
    names = [str(name) for (name,) in connection.execute(DETACHED, [PARENT, RETIRED])]
    return [(name, date.fromisoformat(name.removeprefix(f"{PARENT}_")[:8])) for name in names]


def _bounds(day: date) -> tuple[datetime, datetime]:
    start = datetime.combine(day, time.min)
    return start, start + ONE_DAY


def _namespace(connection: Connection) -> str:
    """The schema that the parent is in; its partitions are made beside it, whatever the search path."""
    row = connection.execute(NAMESPACE, [PARENT]).fetchone()
    if row is None:
        raise UnusableDatabase(f"table {PARENT} is gone: run the collector's migrate command")
    return str(row[0])


def _execute(connection: Connection, statement: str, *parts: sql.Composable) -> None:
    connection.execute(sql.SQL(statement).format(*parts))


@contextmanager
def _retention_lock(connection: Connection) -> Iterator[None]:
    """Let one session at a time remove days.

    Tried, never waited for: a session that waits here would hold a snapshot, for which the holder's detach waits.
    """
    if connection.execute("SELECT pg_try_advisory_lock(%s)", [RETENTION_LOCK]).fetchone() != (True,):
        raise StorageUnavailable("another session is removing days of the order book")
    try:
        yield
    finally:
        if not connection.closed:  # a lost session has lost its lock
            connection.execute("SELECT pg_advisory_unlock(%s)", [RETENTION_LOCK])
