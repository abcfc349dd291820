"""Reading: nothing is changed, nothing takes long, and an outage ends."""

import psycopg
import pytest
import trio
from collecting import own_postgres

from collector.dashboard import reader as module
from collector.dashboard.queries import known_pairs
from collector.dashboard.reader import CONNECTIONS, Reader
from collector.errors import StorageUnavailable, UnusableDatabase
from collector.storage.database import Connection

SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'collector: dashboard' AND datname = %s"


async def test_nothing_can_be_changed(migrated_url: str) -> None:
    """Prevents a page from costing what was collected, whatever is asked of it."""
    reader = Reader(migrated_url)
    with pytest.raises(StorageUnavailable, match="read-only"):
        await reader.read(lambda connection: connection.execute("DELETE FROM kraken_trades"))
    reader.close()


async def test_connections_are_few_and_used_again(migrated_url: str) -> None:
    """Prevents a page with many viewers from taking the connections that the collector needs."""
    reader = Reader(migrated_url)

    async def ask() -> None:
        await reader.read(lambda connection: connection.execute("SELECT pg_sleep(0.01)").fetchall())

    async with trio.open_nursery() as nursery:
        for _ in range(5 * CONNECTIONS):
            nursery.start_soon(ask)
    with psycopg.connect(migrated_url) as connection:
        name = migrated_url.rpartition("/")[2]
        assert connection.execute(SESSIONS, [name]).fetchone() in [(count,) for count in range(1, CONNECTIONS + 1)]
    reader.close()


async def test_slow_query_is_ended(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a question that is too large from working on in the database."""
    monkeypatch.setitem(module.QUERY_SETTINGS, "statement_timeout", "50ms")
    reader = Reader(migrated_url)
    with pytest.raises(StorageUnavailable, match="statement timeout"):
        await reader.read(lambda connection: connection.execute("SELECT pg_sleep(20)"))
    assert await reader.read(known_pairs) == []
    reader.close()


async def test_queries_see_one_state(migrated_url: str) -> None:
    """Prevents a book and its coverage from being of two moments."""
    reader = Reader(migrated_url)

    def query(connection: Connection) -> list[object]:
        before = connection.execute("SELECT count(*) FROM kraken_trades").fetchone()
        with psycopg.connect(migrated_url) as other:
            other.execute("INSERT INTO kraken_trades VALUES (now(), 'BTC/USD', 1, 1, 'buy', 'limit', 1)")
        return [before, connection.execute("SELECT count(*) FROM kraken_trades").fetchone()]

    assert await reader.read(query) == [(0,), (0,)]
    reader.close()


async def test_missing_schema_is_told(database_url: str) -> None:
    """Prevents a database without tables from looking like a bug."""
    reader = Reader(database_url)
    with pytest.raises(UnusableDatabase, match="run its migrate command"):
        await reader.read(known_pairs)
    reader.close()


async def test_outage_ends() -> None:
    """Prevents connections that died in an outage from being used ever after."""
    with own_postgres() as server:
        reader = Reader(server.url())
        assert await reader.read(lambda connection: connection.execute("SELECT 1").fetchone()) == (1,)
        server.stop()
        for _ in range(2):
            with pytest.raises(StorageUnavailable):
                await reader.read(lambda connection: connection.execute("SELECT 1").fetchone())
        server.start()
        assert await reader.read(lambda connection: connection.execute("SELECT 1").fetchone()) == (1,)
        reader.close()
