"""The branch for Citus, as far as its own statements go: a stand-in notes what it is asked to distribute."""

from collections.abc import Iterator
from datetime import date

import pytest

from collector.storage.database import Connection, connect
from collector.storage.distribution import DISTRIBUTED, distribute, is_distributing
from collector.storage.migrations import migrate
from collector.storage.partitions import day_partitions, detach_and_drop, ensure_day

# What of Citus is used: its entry among the extensions, its table of distributed tables, and the function.
STAND_IN = """
INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
SELECT 99999, 'citus', oid, 'public'::regnamespace, FALSE, '13.0-1' FROM pg_roles WHERE rolname = current_user;
CREATE TABLE pg_dist_partition (logicalrel REGCLASS, distribution_column TEXT, beside TEXT);
CREATE FUNCTION create_distributed_table(table_name REGCLASS, distribution_column TEXT, colocate_with TEXT)
RETURNS VOID LANGUAGE SQL AS 'INSERT INTO pg_dist_partition VALUES ($1, $2, $3)'
"""
NOTED = "SELECT logicalrel::text, distribution_column, beside FROM pg_dist_partition"
KEYS = """
SELECT indrelid::regclass::text, (
    SELECT attname FROM pg_attribute WHERE attrelid = indrelid AND attnum = indkey[0]
) FROM pg_index WHERE indisunique AND indrelid = ANY (%s::regclass[])
"""


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """A database in which Citus seems to be installed, before its first migration."""
    with connect(database_url, application_name="tests") as connection:
        connection.execute(STAND_IN)
        yield connection
        connection.execute("DELETE FROM pg_extension WHERE extname = 'citus'")


def test_data_tables_are_distributed_by_pair_and_kept_together(connection: Connection) -> None:
    """Prevents a table from staying on one node, or its pairs from lying elsewhere than those of the others."""
    applied = migrate(connection)
    assert connection.execute(NOTED).fetchall() == [
        (table, "pair", "kraken_trades" if table != "kraken_trades" else "default") for table in DISTRIBUTED
    ]
    assert applied[-len(DISTRIBUTED) :] == [f"{table}_distributed" for table in DISTRIBUTED]


def test_nothing_is_distributed_twice(connection: Connection) -> None:
    """Prevents every start after the first from failing."""
    migrate(connection)
    assert migrate(connection) == []
    assert distribute(connection) == []
    assert len(connection.execute(NOTED).fetchall()) == len(DISTRIBUTED)


def test_days_are_detached_as_citus_allows(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents retention from asking for what Citus refuses, and so from ever dropping a day."""
    migrate(connection)
    day = date(2026, 8, 24)
    ensure_day(connection, day)
    connection.execute("SET client_min_messages = warning; SET log_statement = 'none'")
    with connection.transaction():  # PostgreSQL refuses CONCURRENTLY within a transaction
        assert detach_and_drop(connection, day)
    assert day not in {partition.day for partition in day_partitions(connection)}


def test_unique_keys_begin_with_the_pair(connection: Connection) -> None:
    """Prevents a key that a distributed table cannot keep."""
    migrate(connection)
    keys = connection.execute(KEYS, [list(DISTRIBUTED)]).fetchall()
    assert {table for table, _ in keys} == set(DISTRIBUTED) - {"kraken_orderbook"}
    assert {column for _, column in keys} == {"pair"}


def test_without_citus_nothing_is_distributed(migrated_url: str) -> None:
    """Prevents a plain PostgreSQL from being asked for what it does not have."""
    with connect(migrated_url, application_name="tests") as connection:
        assert not is_distributing(connection)
