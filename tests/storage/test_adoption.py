"""Tables of an earlier collector are taken over where they stand."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import pytest
from psycopg import sql

from collector.errors import StorageUnavailable
from collector.storage import schema
from collector.storage.database import Connection, connect
from collector.storage.migrations import migrate
from collector.storage.partitions import day_partitions, detach_and_drop, ensure_ahead
from collector.storage.table_faults import columns

TRADES = """
CREATE TABLE kraken_trades (
    event_time TIMESTAMP, pair TEXT, price NUMERIC, volume NUMERIC, side TEXT, order_type TEXT
)
"""
BOOK = "CREATE TABLE kraken_orderbook (event_time TIMESTAMP, pair TEXT, bids JSONB, asks JSONB)"
TYPED_BOOK = "CREATE TABLE kraken_orderbook (event_time TIMESTAMP, pair TEXT, bids JSONB, asks JSONB, type TEXT)"
OLD_TRADES = """
INSERT INTO kraken_trades (event_time, pair, price, volume, side, order_type)
SELECT at, 'BTC/USD', 65000.10, 0.00100000, 'buy', 'market'
FROM generate_series(now() AT TIME ZONE 'UTC' - interval '3 years', now() AT TIME ZONE 'UTC', '1 day') AS at
"""
OLD_BOOK = """
INSERT INTO kraken_orderbook (event_time, pair, bids, asks)
SELECT at, 'BTC/USD', '[[65000.10, 0.00100000]]', '[]'
FROM generate_series(now() AT TIME ZONE 'UTC' - interval '3 years', now() AT TIME ZONE 'UTC', '1 day') AS at
"""
NEW_ROW = """
INSERT INTO kraken_orderbook (event_time, pair, bids, asks, type, checksum, chain, seq)
VALUES (%s, 'BTC/USD', '[]', '[]', 'snapshot', 1, 1, 0)
"""


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    with connect(database_url, application_name="tests") as opened:
        yield opened


def today() -> date:
    return datetime.now(UTC).date()


def file_of(connection: Connection, table: str) -> object:
    return connection.execute("SELECT pg_relation_filenode(%s)", [table]).fetchone()


def rows(connection: Connection, table: str, selected: str) -> list[tuple[object, ...]]:
    query = sql.SQL("SELECT " + selected + " FROM {} ORDER BY event_time").format(sql.Identifier(table))
    return connection.execute(query).fetchall()


@pytest.mark.parametrize("book", [BOOK, TYPED_BOOK])
def test_years_of_rows_are_adopted_without_a_rewrite(connection: Connection, book: str) -> None:
    """Prevents an upgrade from losing, copying or changing what years of collecting have stored."""
    for statement in (TRADES, book, OLD_TRADES, OLD_BOOK):
        connection.execute(statement)
    connection.execute("CREATE INDEX ON kraken_orderbook (event_time)")
    trade_columns, book_columns = (
        "event_time, pair, price::text, volume, side, order_type",
        "event_time, bids::text, asks",
    )
    before = rows(connection, "kraken_trades", trade_columns), rows(connection, "kraken_orderbook", book_columns)
    files = file_of(connection, "kraken_trades"), file_of(connection, "kraken_orderbook")

    assert migrate(connection) == [step.name for step in schema.migrations()]

    after = rows(connection, "kraken_trades", trade_columns), rows(connection, "kraken_orderbook", book_columns)
    assert after == before
    assert (file_of(connection, "kraken_trades"), file_of(connection, "kraken_orderbook_adopted")) == files
    for table in ("kraken_trades", "kraken_orderbook"):
        assert list(columns(connection, table).items()) == list(schema.TABLES[table].items())
    assert migrate(connection) == []


def test_adopted_book_takes_the_rows_until_midnight(connection: Connection) -> None:
    """Prevents rows of the day of the adoption from finding no partition, and retention from dropping old rows."""
    connection.execute(BOOK)
    connection.execute(OLD_BOOK)
    old = len(rows(connection, "kraken_orderbook", "pair"))
    migrate(connection)
    now = datetime.now(UTC).replace(tzinfo=None)
    made = ensure_ahead(connection, now.date(), 2)
    assert now.date() not in made
    connection.execute(NEW_ROW, [now])
    connection.execute(NEW_ROW, [now + timedelta(days=2)])
    assert len(rows(connection, "kraken_orderbook_adopted", "pair")) == old + 1
    assert [partition.day for partition in day_partitions(connection)] == made
    for day in (date(2013, 1, 1), now.date()):
        assert not detach_and_drop(connection, day)
    assert len(rows(connection, "kraken_orderbook", "pair")) == old + 2


def test_rows_of_a_wrong_clock_move_the_midnight(connection: Connection) -> None:
    """Prevents a few rows of a later day from making the whole table unadoptable."""
    connection.execute(BOOK)
    last = datetime.combine(today() + timedelta(days=3), datetime.min.time())
    connection.execute("INSERT INTO kraken_orderbook VALUES (%s, 'BTC/USD', '[]', '[]')", [last])
    migrate(connection)
    assert ensure_ahead(connection, today(), 5) == [today() + timedelta(days=4), today() + timedelta(days=5)]


def test_empty_tables_are_adopted(connection: Connection) -> None:
    """Prevents an earlier collector that stored nothing from being a special case."""
    connection.execute(TRADES)
    connection.execute(TYPED_BOOK)
    migrate(connection)
    connection.execute(NEW_ROW, [datetime.now(UTC).replace(tzinfo=None)])
    assert len(rows(connection, "kraken_orderbook_adopted", "pair")) == 1


def test_earlier_collector_still_writes_on_the_day_of_the_adoption(connection: Connection) -> None:
    """Prevents a deployment, in which the old process overlaps the new one, from losing the old one's rows."""
    for statement in (TRADES, BOOK):
        connection.execute(statement)
    migrate(connection)
    connection.execute(OLD_TRADES)
    connection.execute(OLD_BOOK)


def test_one_table_may_be_missing(connection: Connection) -> None:
    """Prevents an adoption from depending on both tables."""
    connection.execute(TRADES)
    connection.execute(OLD_TRADES)
    migrate(connection)
    assert ensure_ahead(connection, today(), 0) == [today()]


def test_trades_are_unique_from_then_on(connection: Connection) -> None:
    """Prevents an adopted table from taking the same trade twice, or from refusing the old rows, which have no id."""
    connection.execute(TRADES)
    connection.execute(OLD_TRADES)
    migrate(connection)
    insert = """
        INSERT INTO kraken_trades VALUES (now(), 'BTC/USD', 1, 1, 'buy', 'limit', 7)
        ON CONFLICT (pair, trade_id) DO NOTHING
    """
    assert [connection.execute(insert).rowcount for _ in range(2)] == [1, 0]


def test_indexes_with_our_names_are_kept_beside_ours(connection: Connection) -> None:
    """Prevents an index of the old table from being taken for the parent's, which then no later day would have."""
    connection.execute(TRADES)
    connection.execute(BOOK)
    for index, table in (
        ("kraken_orderbook_event_time", "kraken_orderbook"),
        ("kraken_trades_event_time", "kraken_trades"),
    ):
        connection.execute(f"CREATE INDEX {index} ON {table} (event_time)")
    migrate(connection)
    for index, table in schema.INDEXES.items():
        on = connection.execute(
            "SELECT indrelid::regclass::text FROM pg_index WHERE indexrelid = %s::regclass", [index]
        )
        assert on.fetchone() == (table,)
    for index in ("kraken_orderbook_event_time_adopted", "kraken_trades_event_time_adopted"):
        assert connection.execute("SELECT to_regclass(%s) IS NOT NULL", [index]).fetchone() == (True,)


def test_reader_of_the_old_table_delays_the_adoption(connection: Connection, database_url: str) -> None:
    """Prevents an adoption from hanging behind a reader, or from being left half done."""
    for statement in (TRADES, BOOK, OLD_BOOK):
        connection.execute(statement)
    connection.execute("SET lock_timeout = '300ms'")
    with connect(database_url, application_name="reader") as reader, reader.transaction():
        reader.execute("SELECT count(*) FROM kraken_orderbook")
        with pytest.raises(StorageUnavailable, match="lock"):
            migrate(connection)
        assert columns(connection, "kraken_trades").keys() == schema.TABLES["kraken_trades"].keys() - {"trade_id"}
    assert migrate(connection) == [step.name for step in schema.migrations()]


def test_second_adoption_finds_a_name(connection: Connection) -> None:
    """Prevents a database whose old table was restored beside an earlier adoption from being stuck."""
    connection.execute(BOOK)
    migrate(connection)
    connection.execute("ALTER TABLE kraken_orderbook DETACH PARTITION kraken_orderbook_adopted")
    connection.execute("DROP TABLE kraken_orderbook")
    connection.execute(BOOK)
    migrate(connection)
    partitions = connection.execute("SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r'").fetchall()
    assert partitions == [("kraken_orderbook_adopted_2",)]
