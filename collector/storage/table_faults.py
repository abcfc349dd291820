"""What keeps a table from being one of ours, read from the catalog, each fault with the SQL statement that mends it.

Two questions are asked of a table. Has it our columns, and are they of our types? That must hold for all of them, at
every start. And can a table that somebody else made take our rows from now on? Then it also must have no columns that
we would leave empty, no rows without a time, and no unique index that would turn rows of the market away.
"""

import re
from collections.abc import Set as AbstractSet

from psycopg import sql

from collector.storage import schema
from collector.storage.database import Connection
from collector.storage.partitions import free_name

TRADES, BOOK = "kraken_trades", "kraken_orderbook"
MAY_LACK = {TRADES: {"trade_id"}, BOOK: {"type", "checksum", "chain", "seq", "evicted"}}
TRADES_KEY = ["pair", "trade_id"]
BOOK_PARTITIONING = "RANGE (event_time)"

IS_PLAIN_TABLE = """
SELECT relkind = 'r' AND NOT relispartition
       AND NOT EXISTS (SELECT FROM pg_inherits WHERE pg_class.oid IN (inhparent, inhrelid))
FROM pg_class WHERE oid = to_regclass(%s)
"""
PARTITIONING = "SELECT pg_get_partkeydef(oid) FROM pg_class WHERE oid = to_regclass(%s) AND relkind = 'p'"
COLUMNS = """
SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
UNIQUE_INDEXES = """
SELECT relname, conname, ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = indexrelid ORDER BY attname)
FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
LEFT JOIN pg_constraint ON conindid = indexrelid AND conrelid = indrelid
WHERE indrelid = to_regclass(%s) AND indisunique ORDER BY relname
"""
IS_VIEW = "SELECT relkind = 'v' FROM pg_class WHERE oid = to_regclass(%s)"
FUNCTION = """
SELECT pg_get_function_result(oid), proname FROM pg_proc WHERE oid = to_regprocedure(%s)
"""
# Infinite times, and those that Python's calendar does not have, are as bad as none.
WITHOUT_TIME = "FROM {table} WHERE event_time IS NULL OR event_time NOT BETWEEN '0001-01-01' AND '9999-12-30'"
REPEATED = "FROM {table} WHERE trade_id IS NOT NULL GROUP BY pair, trade_id HAVING count(*) > 1"
REPETITIONS = (
    "FROM {table} AS one USING {table} AS other"
    " WHERE one.pair = other.pair AND one.trade_id = other.trade_id AND one.ctid > other.ctid"
)


def table_faults(connection: Connection) -> list[str]:
    """All faults of the tables that are there; columns beyond the schema's are those of a newer collector."""
    faults = []
    for table, needed in schema.TABLES.items():
        if exists(connection, table):
            found = _column_faults(connection, table, needed.keys())
            if table == BOOK and partitioning(connection) != BOOK_PARTITIONING:
                found.append(f"{table} is not partitioned by {BOOK_PARTITIONING}")
            faults += _with_way_out(connection, table, found)
    return faults


def reader_faults(connection: Connection) -> list[str]:
    """What stands, as something else, under the name of a view or a function of ours, so that it can't be made."""
    faults = []
    for view, expected in schema.VIEWS.items():
        is_view = connection.execute(IS_VIEW, [view]).fetchone() in (None, (True,))
        if exists(connection, view) and (not is_view or columns(connection, view) != expected):
            faults += _with_way_out(connection, view, [f"{view} is not the view that this collector makes"])
    for function, result in schema.FUNCTIONS.items():
        for returns, name in connection.execute(FUNCTION, [function]).fetchall():
            if returns != result:
                mend = f"run: ALTER FUNCTION {function} RENAME TO {name}_aside;"
                faults.append(f"{function} returns {returns} and must return {result}; {mend}")
    return faults


def adoption_faults(connection: Connection, table: str) -> list[str]:
    """All that keeps one of the two data tables, made by an earlier collector, from taking our rows from now on."""
    if connection.execute(IS_PLAIN_TABLE, [table]).fetchone() != (True,):
        return _with_way_out(connection, table, [f"{table} is no plain table"])
    present = columns(connection, table)
    faults = []
    for index, constraint, key in connection.execute(UNIQUE_INDEXES, [table]).fetchall():
        if key != TRADES_KEY:
            drop = "ALTER TABLE {table} DROP CONSTRAINT {constraint}" if constraint else "DROP INDEX {index}"
            mend = _mend(connection, drop, table=table, constraint=constraint or "", index=index)
            faults.append(f"{table} has the unique index {index}, which would turn away rows of the market; {mend}")
    # After the indexes: with a column, PostgreSQL drops those that it is part of.
    faults += _column_faults(connection, table, schema.TABLES[table].keys() - MAY_LACK[table])
    for column in present.keys() - schema.TABLES[table].keys():
        mend = _mend(connection, "ALTER TABLE {table} DROP COLUMN {column}", table=table, column=column)
        faults.append(f"{table}.{column} is a column that this collector has nothing to fill with; {mend}")
    if present.get("event_time") == schema.TIMESTAMP and _any(connection, WITHOUT_TIME, table):
        mend = _mend(connection, "DELETE " + WITHOUT_TIME, table=table)
        faults.append(f"{table}.event_time is NULL or no time in some rows; {mend}")
    if {"pair", "trade_id"} <= present.keys() and _any(connection, REPEATED, table):
        mend = _mend(connection, "DELETE " + REPETITIONS, table=table)
        faults.append(f"{table}.trade_id is the same in several rows of a pair; {mend}")
    return _with_way_out(connection, table, faults)


def exists(connection: Connection, name: str) -> bool:
    """Whether the search path leads to a relation of that name."""
    return connection.execute("SELECT to_regclass(%s) IS NOT NULL", [name]).fetchone() == (True,)


def partitioning(connection: Connection) -> str | None:
    """How the book is partitioned, in PostgreSQL's words; None when it is not."""
    row = connection.execute(PARTITIONING, [BOOK]).fetchone()
    return row[0] if row else None


def columns(connection: Connection, table: str) -> dict[str, str]:
    """The columns of a table, with their types as `format_type` writes them."""
    return dict(connection.execute(COLUMNS, [table]).fetchall())


def _column_faults(connection: Connection, table: str, needed: AbstractSet[str]) -> list[str]:
    """Columns of ours that have another type, and those of `needed` that are missing."""
    present = columns(connection, table)
    faults = []
    for column, kind in schema.TABLES[table].items():
        holds = present.get(column)
        if holds is None and column in needed:
            mend = _mend(connection, "ALTER TABLE {table} ADD COLUMN {column} " + kind, table=table, column=column)
            faults.append(f"{table}.{column} is missing; {mend}")
        elif holds is not None and holds != kind:
            change = "ALTER TABLE {table} ALTER COLUMN {column} TYPE " + kind + _conversion(holds, kind)
            mend = _mend(connection, change, table=table, column=column)
            faults.append(f"{table}.{column} is {holds} and must be {kind}; {mend}")
    return faults


def _conversion(holds: str, kind: str) -> str:
    """How ALTER COLUMN … TYPE gets from one type to another without losing a digit or shifting a time."""
    if kind == schema.TIMESTAMP and holds.endswith("with time zone"):
        return " USING {column} AT TIME ZONE 'UTC'"
    if kind == "text" or re.sub(r"\(.*?\)", "", holds) == kind:
        return ""  # PostgreSQL's own way; most limits are lifted without rewriting the table
    return " USING {column}::text::" + kind  # a binary fraction with the digits that tell it apart, not with 15


def _with_way_out(connection: Connection, table: str, faults: list[str]) -> list[str]:
    if not faults:
        return []
    name = free_name(connection, table, f"{table}_aside")
    mend = _mend(connection, "ALTER TABLE {table} RENAME TO {name}", table=table, name=name)
    return [*faults, f"or put {table} aside and begin with an empty one; {mend}"]


def _mend(connection: Connection, statement: str, **names: str) -> str:
    """The end of a fault's line: an SQL statement that a person can run as it is, its identifiers quoted."""
    parts = {field: sql.Identifier(name) for field, name in names.items()}
    return "run: " + sql.SQL(statement).format(**parts).as_string(connection) + ";"


def _any(connection: Connection, rows: str, table: str) -> bool:
    query = sql.SQL("SELECT EXISTS (SELECT " + rows + ")").format(table=sql.Identifier(table))
    return connection.execute(query).fetchone() == (True,)
