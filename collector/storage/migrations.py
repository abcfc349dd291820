"""Brings a database to this collector's schema, from whatever it holds: nothing, an older schema, parts of it.

Start-up and mending are one path: what is not recorded is run, and when something that was recorded is gone (a table
dropped by hand), everything is run again, since every migration is idempotent. Nothing that is as it should be is
locked, so that workers that start beside a writer don't disturb it.

A database that a newer collector migrated is no reason to stop: a deployment is rolled back when something is wrong,
and collection must outlive that. Migrations only add, writers name their columns, and the check at the end refuses a
schema in which something that this collector needs has become different.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from collector.errors import StorageUnavailable, UnusableDatabase
from collector.storage import adoption, schema, table_faults
from collector.storage.database import Connection, translated
from collector.storage.distribution import distribute, is_distributing

# An index over years of an adopted table's trades takes minutes, and is made once.
MIGRATION_TIMEOUT = "1h"

MIGRATIONS_TABLE = """
CREATE TABLE IF NOT EXISTS collector_migrations (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    applied_at TIMESTAMP NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')
);
COMMENT ON TABLE collector_migrations IS 'The changes that brought this database to its present schema.';
COMMENT ON COLUMN collector_migrations.number IS 'The place of the change in their order.';
COMMENT ON COLUMN collector_migrations.name IS 'The file of the collector that holds the change.';
COMMENT ON COLUMN collector_migrations.applied_at IS 'When the change was last applied, in UTC.';
"""
RECORD = """
INSERT INTO collector_migrations (number, name) VALUES (%s, %s)
ON CONFLICT (number) DO UPDATE SET name = excluded.name, applied_at = excluded.applied_at
"""
INDEXES_OF = (
    "SELECT relname FROM pg_index JOIN pg_class ON oid = indexrelid WHERE indrelid = to_regclass(%s) AND indisvalid"
)
FUNCTIONS_THERE = "SELECT count(to_regprocedure(signature)) FROM unnest(%s::text[]) AS signature"


def migrate(connection: Connection) -> list[str]:
    """Bring the database to this collector's schema, and return the names of the migrations that were applied.

    Where Citus is installed, the data tables are distributed, too (distribution.py), under names of their own.

    Tables that an earlier collector made are adopted on the way (adoption.py), in one transaction with all the
    migrations; else each migration is a transaction of its own. Needs a role that may create tables in the first
    schema of its search path, and nothing else.

    Raises:
        StorageUnavailable: it can't be done now: a lock is not to be had, a privilege is missing, the server is gone.
        UnusableDatabase: the database holds something else under a name of ours; says which SQL statement mends it.

    """
    with translated(), _schema_lock(connection):
        if not table_faults.exists(connection, "collector_migrations"):
            connection.execute(MIGRATIONS_TABLE)
        legacy = adoption.find(connection)
        recorded = {number for (number,) in connection.execute("SELECT number FROM collector_migrations")}
        mend = bool(legacy) or not _complete(connection)
        pending = [step for step in schema.migrations() if mend or step.number not in recorded]
        try:
            _run(connection, pending, legacy)
        except psycopg.errors.InsufficientPrivilege:
            raise
        except psycopg.ProgrammingError:  # something under one of our names is another than ours, or a bug
            _refuse(table_faults.reader_faults(connection))  # first: a column may only not be there yet
            _refuse(table_faults.table_faults(connection))
            raise
        _refuse(table_faults.table_faults(connection))
        distributed = _distribute(connection)
    return [step.name for step in pending] + [f"{table}_distributed" for table in distributed]


def _distribute(connection: Connection) -> list[str]:
    if not is_distributing(connection):
        return []
    with connection.transaction():
        _lift_statement_timeout(connection)
        return distribute(connection)


def _run(connection: Connection, pending: list[schema.Migration], legacy: list[str]) -> None:
    if legacy:
        with connection.transaction():
            _lift_statement_timeout(connection)
            book = adoption.prepare(connection, legacy)
            for step in pending:
                _apply(connection, step)
            if book is not None:
                adoption.attach(connection, book)
    else:
        for step in pending:
            with connection.transaction():
                _lift_statement_timeout(connection)
                _apply(connection, step)


@contextmanager
def _schema_lock(connection: Connection) -> Iterator[None]:
    """Let one session at a time change the schema."""
    try:
        connection.execute("SELECT pg_advisory_lock(%s)", [schema.SCHEMA_LOCK])
    except psycopg.errors.LockNotAvailable as error:
        raise StorageUnavailable("another session is changing the schema of this database, and not done yet") from error
    try:
        yield
    finally:
        if not connection.closed:  # a lost session has lost its lock
            connection.execute("SELECT pg_advisory_unlock(%s)", [schema.SCHEMA_LOCK])


def _lift_statement_timeout(connection: Connection) -> None:
    connection.execute("SELECT set_config('statement_timeout', %s, true)", [MIGRATION_TIMEOUT])


def _apply(connection: Connection, step: schema.Migration) -> None:
    connection.execute(step.statements)
    connection.execute(RECORD, [step.number, step.name])


def _complete(connection: Connection) -> bool:
    """Whether every table, index, view and function is there; the columns of tables are checked at the end."""
    for table in schema.TABLES:
        indexes = {index for (index,) in connection.execute(INDEXES_OF, [table])}
        needed = {index for index, of in schema.INDEXES.items() if of == table}
        if not table_faults.exists(connection, table) or not needed <= indexes:
            return False
    (functions,) = connection.execute(FUNCTIONS_THERE, [list(schema.FUNCTIONS)]).fetchone() or (0,)
    return functions == len(schema.FUNCTIONS) and all(table_faults.exists(connection, view) for view in schema.VIEWS)


def _refuse(faults: list[str]) -> None:
    if faults:
        raise UnusableDatabase("\n".join(faults))
