"""Tables that can't be ours as they are: refused with what mends them, and with nothing changed."""

import re
from collections.abc import Iterator

import pytest
from psycopg import sql

from collector.errors import UnusableDatabase
from collector.storage import schema
from collector.storage.database import Connection, connect
from collector.storage.migrations import migrate

TRADES = """
CREATE TABLE kraken_trades (
    event_time TIMESTAMP, pair TEXT, price NUMERIC, volume NUMERIC, side TEXT, order_type TEXT
)
"""
BOOK = "CREATE TABLE kraken_orderbook (event_time TIMESTAMP, pair TEXT, bids JSONB, asks JSONB)"
TYPED_BOOK = BOOK.replace("asks JSONB", "asks JSONB, type TEXT")
TRADES_WITH_IDS = TRADES.replace("order_type TEXT", "order_type TEXT, trade_id BIGINT")
REPEATED_TRADES = """
INSERT INTO kraken_trades
SELECT '2026-08-24', 'X', 1, 1, 'buy', 'limit', id FROM unnest('{1, 1, 2, null, null}'::int[]) AS id
"""
STATEMENT = re.compile(r"; run: (.*;)$", re.MULTILINE)


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    with connect(database_url, application_name="tests") as opened:
        yield opened


REFUSED = {
    "zoned time": (
        "kraken_trades",
        TRADES.replace("TIMESTAMP", "TIMESTAMPTZ"),
        "event_time is timestamp with time zone",
    ),
    "coarse time": ("kraken_trades", TRADES.replace("TIMESTAMP", "TIMESTAMP(3)"), r"event_time is timestamp\(3\)"),
    "float price": ("kraken_trades", TRADES.replace("price NUMERIC", "price FLOAT"), "price is double precision"),
    "rounded price": (
        "kraken_trades",
        TRADES.replace("price NUMERIC", "price NUMERIC(10, 1)"),
        r"price is numeric\(10,1\)",
    ),
    "short text": ("kraken_trades", TRADES.replace("side TEXT", "side VARCHAR(4)"), r"side is character varying\(4\)"),
    "column missing": ("kraken_trades", TRADES.replace(", side TEXT", ""), "side is missing"),
    "column added": ("kraken_trades", TRADES.replace("side", '"Fee ""x""" NUMERIC, side'), 'Fee "x" is a column'),
    "identity": ("kraken_orderbook", BOOK.replace("(", "(id SERIAL PRIMARY KEY, ", 1), "id is a column"),
    "plain json": ("kraken_orderbook", BOOK.replace("bids JSONB", "bids JSON"), "bids is json "),
    "json text": ("kraken_orderbook", BOOK.replace("bids JSONB", "bids TEXT"), "bids is text"),
    "zoned book time": ("kraken_orderbook", BOOK.replace("TIMESTAMP", "TIMESTAMPTZ"), "event_time is timestamp with"),
    "type of another type": ("kraken_orderbook", TYPED_BOOK.replace("type TEXT", "type CHAR(8)"), "type is character"),
    "unique constraint": ("kraken_trades", TRADES.replace(")", ", UNIQUE (event_time, pair))"), "unique index"),
    "unique index": (
        "kraken_trades",
        TRADES + "; CREATE UNIQUE INDEX u ON kraken_trades (event_time)",
        "unique index u",
    ),
    "primary key": ("kraken_orderbook", BOOK.replace(")", ", PRIMARY KEY (event_time, pair))"), "unique index"),
    "no time": ("kraken_trades", TRADES + "; INSERT INTO kraken_trades VALUES (NULL, 'X')", "event_time is NULL"),
    "no book time": (
        "kraken_orderbook",
        BOOK + "; INSERT INTO kraken_orderbook VALUES (NULL, 'X')",
        "event_time is NULL",
    ),
    "endless time": (
        "kraken_orderbook",
        BOOK + "; INSERT INTO kraken_orderbook VALUES ('infinity')",
        "event_time is NULL or",
    ),
    "trade twice": (
        "kraken_trades",
        TRADES_WITH_IDS + ";" + REPEATED_TRADES,
        "same in several rows",
    ),
}


@pytest.mark.parametrize("shape", REFUSED)
def test_refused_table_is_adopted_once_its_faults_are_mended(connection: Connection, shape: str) -> None:
    """Prevents a refusal that leaves its reader alone, and one that has changed something already."""
    table, statement, fault = REFUSED[shape]
    connection.execute(statement)
    connection.execute(TRADES if table == "kraken_orderbook" else BOOK)
    catalog = "SELECT oid, relname, relfilenode FROM pg_class WHERE relname ~ '^kraken' ORDER BY oid"
    before = connection.execute(catalog).fetchall()
    with pytest.raises(UnusableDatabase, match=fault) as caught:
        migrate(connection)
    assert connection.execute(catalog).fetchall() == before
    *mend, aside = STATEMENT.findall(str(caught.value))
    assert all(table in line for line in str(caught.value).splitlines())
    assert mend
    assert "RENAME" in aside
    for statement in mend:
        connection.execute(statement)
    assert migrate(connection) == [step.name for step in schema.migrations()]


@pytest.mark.parametrize("shape", REFUSED)
def test_refused_table_can_be_put_aside(connection: Connection, shape: str) -> None:
    """Prevents data that nobody wants to change from keeping the collector from working."""
    table, statement, _ = REFUSED[shape]
    connection.execute(statement)
    (before,) = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone() or (
        None,
    )
    with pytest.raises(UnusableDatabase) as caught:
        migrate(connection)
    connection.execute(STATEMENT.findall(str(caught.value))[-1])
    migrate(connection)
    count = sql.SQL("SELECT count(*) FROM {}")
    assert connection.execute(count.format(sql.Identifier(f"{table}_aside"))).fetchone() == (before,)
    assert connection.execute(count.format(sql.Identifier(table))).fetchone() == (0,)


def test_all_faults_are_told_at_once(connection: Connection) -> None:
    """Prevents an upgrade of one failed start after the other."""
    connection.execute(TRADES.replace("price NUMERIC", "price FLOAT").replace("side TEXT", "side CHAR(4)"))
    connection.execute(BOOK.replace("TIMESTAMP", "TIMESTAMPTZ"))
    with pytest.raises(UnusableDatabase) as caught:
        migrate(connection)
    for fault in ("kraken_trades.price", "kraken_trades.side", "kraken_orderbook.event_time"):
        assert fault in str(caught.value)


def test_mended_values_keep_their_digits_and_times(connection: Connection) -> None:
    """Prevents the statements that we hand out from rounding prices, or from shifting times by the server's zone."""
    connection.execute(TRADES.replace("price NUMERIC", "price FLOAT").replace("TIMESTAMP", "TIMESTAMPTZ"))
    connection.execute(
        "INSERT INTO kraken_trades VALUES ('2026-08-24 10:00:00+02', 'BTC/USD', 65000.123456789012, 1, 'buy', 'limit')"
    )
    with pytest.raises(UnusableDatabase) as caught:
        migrate(connection)
    connection.execute("SET timezone = 'America/New_York'")
    for statement in STATEMENT.findall(str(caught.value))[:-1]:
        connection.execute(statement)
    mended = connection.execute("SELECT event_time::text, price::text FROM kraken_trades").fetchall()
    assert mended == [("2026-08-24 08:00:00", "65000.12345678901")]


@pytest.mark.parametrize("parent", ["kraken_trades", "kraken_orderbook"])
def test_table_with_children_is_no_plain_table(connection: Connection, parent: str) -> None:
    """Prevents an adoption of half a table: rows of children are not those of the table itself."""
    connection.execute(TRADES)
    connection.execute(BOOK)
    connection.execute(f"CREATE TABLE child () INHERITS ({parent})")
    with pytest.raises(UnusableDatabase, match=f"{parent} is no plain table") as caught:
        migrate(connection)
    connection.execute(STATEMENT.findall(str(caught.value))[-1])
    migrate(connection)
