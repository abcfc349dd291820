"""Who is measured: how each is started, what tables it wants, and how to count what it stored."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from embedded import free_port
from psycopg import sql

from bench.tape import Tape
from collector.kraken.server.source import NANOSECONDS
from collector.kraken.simulator.simulation import TAPE_START
from collector.storage.database import connect
from collector.storage.migrations import migrate
from collector.storage.partitions import ensure_ahead

DRIVER = Path(__file__).with_name("cryptofeed_driver.py")
CRYPTOFEED = "cryptofeed 3.0.1"
COLLECTOR = "collector"

# As in that project's examples, with the book's data as JSONB, as its backend's documentation says.
CRYPTOFEED_TABLES = """
CREATE TABLE book (
    id SERIAL PRIMARY KEY, "timestamp" TIMESTAMP, receipt_timestamp TIMESTAMP, exchange VARCHAR(32), symbol VARCHAR(32),
    data JSONB
);
CREATE TABLE trades (
    id SERIAL PRIMARY KEY, "timestamp" TIMESTAMP, receipt_timestamp TIMESTAMP, exchange VARCHAR(32), symbol VARCHAR(32),
    side VARCHAR(8), amount NUMERIC(64, 32), price NUMERIC(64, 32), trade_id VARCHAR(64), order_type VARCHAR(32)
);
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run happens: the database, the port of the server of frames, a folder, and Redis where it is wanted."""

    database_url: str
    port: int
    folder: Path
    redis_url: str | None = None


@dataclass(frozen=True, slots=True)
class Contestant:
    """One of those that are measured.

    Attributes:
        name: as the table calls it.
        prepare: makes the tables in a new database, so that no run is timed with that.
        command: its command line.
        variables: its environment.
        stored: SQL that counts the book updates and the trades that are stored, each counted once.
        book_bytes: SQL for the size of the book's table, with indexes and TOAST.
        last_commit: SQL for when the last of the rows was committed.

    """

    name: str
    prepare: Callable[[str], None]
    command: Callable[[Tape, Place], list[str | Path]]
    variables: Callable[[Tape, Place], dict[str, str]]
    stored: sql.SQL
    book_bytes: sql.SQL
    last_commit: sql.Composed


def prepare_collector(url: str) -> None:
    """Make the schema, and the day of the tapes, which a collector of the live market would have made ahead."""
    with connect(url, application_name="bench") as connection:
        migrate(connection)
        ensure_ahead(connection, datetime.fromtimestamp(TAPE_START / NANOSECONDS, UTC).date())


def _collector_variables(tape: Tape, place: Place) -> dict[str, str]:
    variables = {
        "DATABASE_URL": place.database_url,
        "PAIRS": ",".join(tape.pairs),
        "BOOK_DEPTH": str(tape.depth),
        "KRAKEN_WS_URL": f"ws://127.0.0.1:{place.port}/v2",
        "KRAKEN_REST_URL": f"http://127.0.0.1:{free_port()}",  # nobody is there, nor asked: no trade is missing
        "SPOOL_DIR": str(place.folder / "spool"),
    }
    return variables if place.redis_url is None else variables | {"USE_REDIS": "true", "REDIS_URL": place.redis_url}


def collector() -> Contestant:
    """This project, with its defaults."""
    return Contestant(
        COLLECTOR,
        prepare_collector,
        lambda _tape, _place: [sys.executable, "-m", "collector"],
        _collector_variables,
        sql.SQL(
            "SELECT (SELECT count(DISTINCT (pair, chain, seq)) FROM kraken_orderbook WHERE type = 'update'),"
            " (SELECT count(*) FROM kraken_trades)"
        ),
        sql.SQL("SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('kraken_orderbook')"),
        _last_commit("kraken_orderbook", "kraken_trades"),
    )


def cryptofeed(python: Path) -> Contestant:
    """Cryptofeed in an environment of its own, with batches of 500 rows, and everything checked and kept."""
    return Contestant(
        CRYPTOFEED,
        _prepare_cryptofeed,
        lambda tape, place: [python, DRIVER, tape.pairs[0], str(tape.depth), str(place.port), place.database_url],
        lambda _tape, place: {"HOME": str(place.folder)},  # it caches symbols there
        sql.SQL("SELECT (SELECT count(*) FROM book WHERE data ? 'delta'), (SELECT count(*) FROM trades)"),
        sql.SQL("SELECT pg_total_relation_size('book')"),
        _last_commit("book", "trades"),
    )


def _prepare_cryptofeed(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(CRYPTOFEED_TABLES)


def _last_commit(*tables: str) -> sql.Composed:
    """When the last row of some tables was committed, in nanoseconds since 1970: just before its flush to disk."""
    transactions = sql.SQL(" UNION ").join(
        sql.SQL("SELECT xmin FROM {}").format(sql.Identifier(table)) for table in tables
    )
    return sql.SQL(
        "SELECT max(extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::bigint * 1000"
        " FROM ({}) AS transactions"
    ).format(transactions)
