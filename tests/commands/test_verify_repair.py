"""`verify --repair`, as a process of its own beside nothing else."""

import errno
import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest
import structlog
import trio
from collecting import collecting, environment, open_kraken, open_market, settings_for, wait_until

from collector.commands.verify_repair import repair_stored
from collector.records import Record
from collector.settings import Settings
from collector.storage.spool import Spool

TRADES = "SELECT event_time, pair, price::text, volume::text, side, order_type, trade_id FROM kraken_trades ORDER BY 7"
DELETED = 1000


async def verify(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return await trio.run_process(
        [sys.executable, "-m", "collector", "verify", *arguments],
        env=environment(settings),
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )


async def test_a_thousand_deleted_trades_come_back(migrated_url: str, tmp_path: Path) -> None:
    """Prevents a hole in the trades from staying, and a trade that comes back from having other digits."""
    async with open_market(rate=3000.0) as market, open_kraken(market) as kraken:
        settings = settings_for(kraken, migrated_url, tmp_path)
        async with collecting(settings) as collector:
            await wait_until(lambda: collector.statistics.stored_rows > 0)
            await wait_until(lambda: count(migrated_url) > DELETED + 500)
        with psycopg.connect(migrated_url) as connection:
            before = connection.execute(TRADES).fetchall()
            inner = [trade_id for *_, trade_id in before[1:-1]]
            chosen = random.Random(7).sample(inner, DELETED)
            connection.execute("DELETE FROM kraken_trades WHERE trade_id = ANY(%s)", [chosen])
        damaged = await verify(settings, "--json")
        assert damaged.returncode == 1, damaged.stderr
        repaired = await verify(settings, "--repair", "--json")
    assert repaired.returncode == 0, repaired.stderr
    assert json.loads(repaired.stdout)
    with psycopg.connect(migrated_url) as connection:
        assert connection.execute(TRADES).fetchall() == before


def count(database_url: str) -> int:
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT count(*) FROM kraken_trades").fetchone()
    assert row is not None
    return row[0]


async def test_without_rest_what_is_stored_is_verified_all_the_same(migrated_url: str, tmp_path: Path) -> None:
    """Prevents an exchange that is away from keeping a person from knowing what is stored."""
    async with open_market() as market, open_kraken(market) as kraken:
        settings = settings_for(kraken, migrated_url, tmp_path)
        async with collecting(settings) as collector:
            await wait_until(lambda: collector.statistics.stored_rows > 200)
        with psycopg.connect(migrated_url) as connection:
            connection.execute(
                "DELETE FROM kraken_trades WHERE trade_id = (SELECT min(trade_id) + 5 FROM kraken_trades)"
            )
        kraken.faults.rest_status(503)
        result = await verify(settings, "--repair")
    assert result.returncode == 1
    assert b"Traceback" not in result.stderr


GAPS = 20
UNFILLED_DEADLINE = 20.0  # seconds for the whole command; the shortest backoff of one gap alone is 5


@asynccontextmanager
async def open_kraken_with_gaps(database_url: str, spool: Path) -> AsyncIterator[Settings]:
    """Kraken, a database that lacks some of its trades, none beside another, and the settings that lead to them."""
    async with open_market(rate=3000.0) as market, open_kraken(market) as kraken:
        settings = settings_for(kraken, database_url, spool)
        async with collecting(settings) as collector:
            await wait_until(lambda: collector.statistics.stored_rows > 0)
            await wait_until(lambda: count(database_url) > 5 * GAPS)
        with psycopg.connect(database_url) as connection:
            deleted = connection.execute(
                "DELETE FROM kraken_trades WHERE trade_id IN "
                "(SELECT min(trade_id) + 2 * number FROM kraken_trades, generate_series(1, %s) number GROUP BY number)",
                [GAPS],
            )
            assert deleted.rowcount == GAPS
        yield settings


async def test_a_dead_rest_ends_the_repair_at_its_first_gap(migrated_url: str, tmp_path: Path) -> None:
    """Prevents a person from waiting for hours while each gap fails for itself and waits out a backoff."""
    async with open_kraken_with_gaps(migrated_url, tmp_path) as settings:
        dead = settings.model_copy(update={"kraken_rest_url": f"http://127.0.0.1:{unused_port()}"})
        with trio.fail_after(UNFILLED_DEADLINE):
            result = await verify(dead, "--repair", "--json")
    assert result.returncode == 1, result.stderr
    assert json.loads(result.stdout)
    assert result.stderr.count(b'"level": "warning"') == 1, result.stderr
    assert result.stderr.count(b"repair_ended_early") == 1, result.stderr


async def test_a_full_disk_ends_the_repair(migrated_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a folder for temporary files that is full from keeping a person from knowing what is stored."""

    def append_without_room(spool: Spool, records: list[Record]) -> None:
        if records:
            spool._unwritten += records
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with open_kraken_with_gaps(migrated_url, tmp_path) as settings:
        monkeypatch.setattr(Spool, "append", append_without_room)
        before = count(migrated_url)
        with structlog.testing.capture_logs() as logs, trio.fail_after(UNFILLED_DEADLINE):
            await trio.to_thread.run_sync(repair_stored, settings, ["BTC/USD"])
    assert [entry["event"] for entry in logs].count("repair_ended_early") == 1
    assert count(migrated_url) == before


def unused_port() -> int:
    """A port of loopback that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
