"""The schema: made, made again, mended, and refused where something else stands in its place."""

import re
import threading
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from collector.errors import StorageUnavailable, UnusableDatabase
from collector.storage import schema
from collector.storage.database import Connection, connect
from collector.storage.migrations import migrate
from collector.storage.partitions import day_partitions, detach_and_drop, ensure_ahead
from collector.storage.table_faults import columns

ALL = [step.name for step in schema.migrations()]
TRADE = "INSERT INTO kraken_trades VALUES ('2026-08-24', 'BTC/USD', 1.10, 2, 'buy', 'limit', 7)"


@pytest.fixture
def empty(database_url: str) -> Iterator[Connection]:
    with connect(database_url, application_name="tests") as connection:
        yield connection


@pytest.fixture
def migrated(migrated_url: str) -> Iterator[Connection]:
    with connect(migrated_url, application_name="tests") as connection:
        yield connection


def test_migrations_are_numbered_from_one() -> None:
    """Prevents two migrations of one number, of which one would never run."""
    assert [step.number for step in schema.migrations()] == list(range(1, len(ALL) + 1))


def test_fresh_database_gets_the_schema(empty: Connection) -> None:
    """Prevents the migrations and the schema that the code checks for from drifting apart."""
    assert migrate(empty) == ALL
    for table, expected in schema.TABLES.items():
        assert list(columns(empty, table).items()) == list(expected.items())
    made = empty.execute(
        "SELECT indexrelid::regclass::text, indrelid::regclass::text FROM pg_index"
        " WHERE indrelid::regclass::text ~ '^(kraken|collector)' AND NOT indisprimary"
    )
    assert dict(made.fetchall()) == schema.INDEXES
    views = empty.execute("SELECT relname FROM pg_class WHERE relkind = 'v' AND relname ~ '^(kraken|collector)'")
    assert {view: columns(empty, view) for (view,) in views.fetchall()} == schema.VIEWS
    functions = empty.execute(
        "SELECT oid::regprocedure::text, pg_get_function_result(oid) FROM pg_proc WHERE proname ~ '^(kraken|collector)'"
    )
    assert dict(functions.fetchall()) == schema.FUNCTIONS


def test_everything_explains_itself(migrated: Connection) -> None:
    """Prevents a user of psql from having to read our code."""
    bare = migrated.execute("""
        SELECT attrelid::regclass, attname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v') AND attnum > 0
              AND (col_description(attrelid, attnum) IS NULL OR obj_description(attrelid, 'pg_class') IS NULL)
    """)
    assert bare.fetchall() == []
    bare = migrated.execute(
        "SELECT proname FROM pg_proc WHERE proname ~ '^kraken' AND obj_description(oid, 'pg_proc') IS NULL"
    )
    assert bare.fetchall() == []


def test_second_run_changes_nothing(migrated: Connection) -> None:
    """Prevents every restart from locking the tables that another worker writes to."""
    with connect(migrated.info.dsn, application_name="tests") as writer, writer.transaction():
        writer.execute(TRADE)
        migrated.execute("SET lock_timeout = '200ms'")
        assert migrate(migrated) == []


def test_two_workers_migrate_at_once(database_url: str) -> None:
    """Prevents the second of two workers that start together from crashing on what the first is making."""
    start = threading.Barrier(2)
    applied: list[list[str]] = []

    def work() -> None:
        with connect(database_url, application_name="tests") as connection:
            start.wait(10)
            applied.append(migrate(connection))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(applied) == [[], ALL]


@pytest.mark.parametrize("table", [*schema.TABLES, "collector_migrations"])
def test_dropped_table_is_mended(migrated: Connection, table: str) -> None:
    """Prevents a table that was dropped by hand from staying away, or its mending from costing rows elsewhere."""
    migrated.execute(TRADE)
    migrated.execute(sql.SQL("DROP TABLE {} CASCADE").format(sql.Identifier(table)))
    assert migrate(migrated) == ALL
    assert migrate(migrated) == []
    kept = 0 if table == "kraken_trades" else 1
    assert migrated.execute("SELECT count(*) FROM kraken_trades").fetchone() == (kept,)


@pytest.mark.parametrize("index", schema.INDEXES)
def test_dropped_index_is_mended(migrated: Connection, index: str) -> None:
    """Prevents trades from being stored twice, or days from being scanned whole, after an index was dropped by hand."""
    migrated.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(index)))
    assert migrate(migrated) == ALL
    assert migrate(migrated) == []


@pytest.mark.parametrize(
    "thing", [*(f"VIEW {view}" for view in schema.VIEWS), *(f"FUNCTION {function}" for function in schema.FUNCTIONS)]
)
def test_dropped_view_or_function_is_mended(migrated: Connection, thing: str) -> None:
    """Prevents readers from losing for good what was dropped by hand or along with a table."""
    migrated.execute(sql.SQL("DROP {}").format(sql.SQL(thing)))
    assert migrate(migrated) == ALL
    assert migrate(migrated) == []


def test_dropped_column_is_told_with_what_mends_it(migrated: Connection) -> None:
    """Prevents a schema that lost a column from being found out only by failing rows."""
    migrated.execute("ALTER TABLE kraken_coverage DROP COLUMN rows")
    with pytest.raises(UnusableDatabase, match=r"kraken_coverage\.rows is missing") as caught:
        migrate(migrated)
    migrated.execute(first_statement(caught.value))
    assert migrate(migrated) == []


def first_statement(error: UnusableDatabase) -> str:
    found = re.search(r"run: (.*;)", str(error))
    assert found is not None
    return found[1]


def test_rollback_of_a_deployment_goes_on_collecting(migrated: Connection) -> None:
    """Prevents a database that a newer collector has extended from stopping the older one."""
    migrated.execute("INSERT INTO collector_migrations (number, name) VALUES (9999, '9999_from_the_future')")
    migrated.execute("ALTER TABLE kraken_trades ADD COLUMN liquidation BOOLEAN")
    assert migrate(migrated) == []


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE kraken_coverage (id INTEGER)",
        "CREATE VIEW collector_spools AS SELECT 1 AS one",
        "CREATE TABLE kraken_orderbook (event_time TIMESTAMP, pair TEXT) PARTITION BY LIST (pair)",
        "CREATE VIEW kraken_trades AS SELECT 1 AS one",
        "CREATE SEQUENCE kraken_orderbook",
        "CREATE TABLE kraken_gaps (id INTEGER)",
        "CREATE VIEW kraken_gaps AS SELECT 1 AS one",
    ],
)
def test_something_else_under_our_name_is_refused(empty: Connection, statement: str) -> None:
    """Prevents writing to somebody else's table, and a start that fails without saying why."""
    empty.execute(statement)
    with pytest.raises(UnusableDatabase, match=r"put .* aside") as caught:
        migrate(empty)
    empty.execute(str(caught.value).rpartition("run: ")[2])
    migrate(empty)
    assert migrate(empty) == []


def test_other_function_under_our_name_is_refused(empty: Connection) -> None:
    """Prevents a function of somebody else from stopping the collector without a word on what to do."""
    function = "kraken_no_book_reason(text, timestamp) RETURNS integer LANGUAGE sql AS 'SELECT 1'"
    empty.execute(sql.SQL("CREATE FUNCTION {}").format(sql.SQL(function)))
    with pytest.raises(UnusableDatabase, match="returns integer and must return text") as caught:
        migrate(empty)
    empty.execute(first_statement(caught.value))
    migrate(empty)
    assert migrate(empty) == []


def test_schema_that_another_session_is_changing_is_waited_for_briefly(migrated: Connection) -> None:
    """Prevents a worker from hanging behind the hour-long migration of another."""
    migrated.execute("SET lock_timeout = '200ms'")
    with connect(migrated.info.dsn, application_name="tests") as other:
        other.execute("SELECT pg_advisory_lock(%s)", [schema.SCHEMA_LOCK])
        with pytest.raises(StorageUnavailable, match="another session"):
            migrate(migrated)
    assert migrate(migrated) == []


def test_lock_is_given_back(migrated: Connection) -> None:
    """Prevents a session that migrated, or failed to, from keeping others from it for as long as it lives."""
    migrated.execute("ALTER TABLE kraken_coverage DROP COLUMN rows")
    with pytest.raises(UnusableDatabase):
        migrate(migrated)
    assert migrated.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone() == (0,)


@pytest.fixture
def tenant(database_url: str) -> Iterator[str]:
    """The address of a role that owns one schema of the database and nothing else."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE tenant LOGIN NOSUPERUSER")
        connection.execute(
            sql.SQL("REVOKE CREATE ON DATABASE {} FROM PUBLIC").format(sql.Identifier(connection.info.dbname))
        )
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        connection.execute("CREATE SCHEMA tenant AUTHORIZATION tenant")
        try:
            yield database_url.replace("postgres@", "tenant@")
        finally:
            connection.execute("DROP OWNED BY tenant CASCADE")
            connection.execute("DROP ROLE tenant")


def test_owner_of_one_schema_can_do_everything(tenant: str) -> None:
    """Prevents the collector from needing rights that platforms do not grant, and from leaving its own schema."""
    with connect(tenant, application_name="tests") as connection:
        today = connection.execute("SELECT current_date").fetchone()
        assert today is not None
        assert migrate(connection) == ALL
        connection.execute("SET search_path = pg_catalog, tenant")
        assert migrate(connection) == []
        days = ensure_ahead(connection, today[0], 1)
        assert [partition.day for partition in day_partitions(connection)] == days
        assert detach_and_drop(connection, days[0])
        outside = connection.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace")
        assert outside.fetchone() == (0,)


def test_missing_privilege_waits_for_it(tenant: str) -> None:
    """Prevents a grant that was forgotten from ending the collection before anybody has read the message."""
    with connect(tenant, application_name="tests") as connection:
        connection.execute("SET search_path = public")
        with pytest.raises(StorageUnavailable, match="permission denied for schema public"):
            migrate(connection)
