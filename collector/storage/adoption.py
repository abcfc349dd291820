"""Takes over the tables of an earlier collector where they stand: plain tables with our names and fixed columns.

Nothing is rewritten and no row is dropped. Columns that are missing are added as nullable, which changes the catalog
alone; the book table, under a new name, becomes the partition of all time before the first free midnight. It begins at
MINVALUE, as no day does, and by that retention never touches it. Any other table is refused, before anything has been
changed, with the SQL statement that mends each fault (table_faults.py): what the data can bear is for its owner to say.
"""

from psycopg import sql

from collector.errors import UnusableDatabase
from collector.storage import schema, table_faults
from collector.storage.database import Connection
from collector.storage.partitions import free_name
from collector.storage.table_faults import BOOK, TRADES

INDEXES = """
SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE indrelid = to_regclass(%s)
"""
# Today's rows may be in the table already, and a later day's if a clock was wrong: none of them can be moved.
FIRST_FREE_MIDNIGHT = """
SELECT (date_trunc('day', greatest(max(event_time), now() AT TIME ZONE 'UTC')) + interval '1 day')::text FROM {}
"""


def find(connection: Connection) -> list[str]:
    """Return which of the two data tables are there as something that this collector did not make."""
    legacy = []
    if table_faults.exists(connection, TRADES) and "kraken_trades_pair_trade_id" not in _indexes(connection, TRADES):
        legacy.append(TRADES)
    if (
        table_faults.exists(connection, BOOK)
        and table_faults.partitioning(connection) != table_faults.BOOK_PARTITIONING
    ):
        legacy.append(BOOK)
    return legacy


def prepare(connection: Connection, tables: list[str]) -> str | None:
    """Check the legacy `tables` and make way for the migrations; return the new name of the book table.

    The migrations give the trades table what it lacks, and make the partitioned book, to which `attach` then joins the
    old one. All of it belongs in one transaction, for which the tables stay locked.

    Raises:
        UnusableDatabase: a table can't be adopted.

    """
    for table in tables:
        _run(connection, "LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", sql.Identifier(table))
    found = [fault for table in tables for fault in table_faults.adoption_faults(connection, table)]
    if found:
        raise UnusableDatabase("\n".join(found))
    for table in tables:
        _run(connection, "ALTER TABLE {} ALTER COLUMN event_time SET NOT NULL", sql.Identifier(table))
        for index in _indexes(connection, table) & schema.INDEXES.keys():  # the migrations make their own
            name = free_name(connection, table, f"{index}_adopted")
            _run(connection, "ALTER INDEX {} RENAME TO {}", sql.Identifier(index), sql.Identifier(name))
    if BOOK not in tables:
        return None
    missing = schema.TABLES[BOOK].keys() - table_faults.columns(connection, BOOK).keys()
    for column, kind in schema.TABLES[BOOK].items():
        if column in missing:
            _run(connection, "ALTER TABLE {} ADD COLUMN {} " + kind, sql.Identifier(BOOK), sql.Identifier(column))
    name = free_name(connection, BOOK, f"{BOOK}_adopted")
    _run(connection, "ALTER TABLE {} RENAME TO {}", sql.Identifier(BOOK), sql.Identifier(name))
    return name


def attach(connection: Connection, name: str) -> None:
    """Make the book table that is called `name` now the partition of all time before the first free midnight."""
    table = sql.Identifier(name)
    row = connection.execute(sql.SQL(FIRST_FREE_MIDNIGHT).format(table)).fetchone()
    midnight = sql.Literal(row[0] if row else None)
    _run(
        connection,
        "ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM (MINVALUE) TO ({})",
        sql.Identifier(BOOK),
        table,
        midnight,
    )
    comment = "Order books up to the day on which an earlier collector's table was adopted; never dropped."
    _run(connection, "COMMENT ON TABLE {} IS {}", table, sql.Literal(comment))


def _indexes(connection: Connection, table: str) -> set[str]:
    return {index for (index,) in connection.execute(INDEXES, [table])}


def _run(connection: Connection, statement: str, *parts: sql.Composable) -> None:
    connection.execute(sql.SQL(statement).format(*parts))
