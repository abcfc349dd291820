"""`run` as a process of its own: its exit statuses, its signals, and what it leaves behind for the next start."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from collecting import (
    EXIT_DEADLINE,
    clean_environment,
    count,
    open_kraken,
    open_market,
    own_postgres,
    settings_for,
    wait_until,
    worker,
)
from stored import assert_prefixes, coverage, stored_books, stored_trades

from collector.storage.database import connect
from collector.storage.identity import claim_database
from collector.storage.spool import Spool

BOOK_RUNS = "SELECT count(*) FROM kraken_coverage WHERE channel = 'book'"


def run_to_its_end(variables: dict[str, str], directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A worker that is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "collector", *arguments],
        env=clean_environment() | variables,
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_stops_it_in_order(number: signal.Signals, migrated_url: str, tmp_path: Path) -> None:
    """Prevents a deployment from costing a row or leaving a run open, however often the host signals."""
    async with open_market() as market, open_kraken(market) as kraken:
        settings = settings_for(kraken, migrated_url, tmp_path / "spool", flush_interval=60, flush_rows=1_000_000)
        with worker(settings, tmp_path / "log") as process:
            await process.wait_for_log("storage_ready")
            await wait_until(lambda: len(kraken.frames()) > 100)
            await trio.sleep(0.2)
            assert count(migrated_url) == 0
            process.process.send_signal(number)
            await process.wait_for_log("stopping")
            process.process.send_signal(number)
            assert await process.exit_status() == 0
            assert '"stopped"' in process.log
            assert "Traceback" not in process.log
    chains = stored_books(migrated_url)
    assert len(chains) == 1
    assert_prefixes(chains, kraken.sent)
    assert count(migrated_url) > 50
    assert stored_trades(migrated_url)
    assert {run.end_reason for run in coverage(migrated_url) + coverage(migrated_url, "trade")} == {"shutdown"}
    spool = Spool.open(tmp_path / "spool")
    assert [spool.read(left).book for left in spool.sealed] == [[]], "all was shipped"
    spool.close()


async def test_stop_during_an_outage(tmp_path: Path) -> None:
    """Prevents an outage from holding up the exit, or the exit from costing what the database does not have yet."""
    with own_postgres() as database:
        async with open_market() as market, open_kraken(market) as kraken:
            settings = settings_for(kraken, database.url(), tmp_path / "spool")
            with worker(settings, tmp_path / "log") as process:
                await wait_until(lambda: count(database.url()) > 50)
                await trio.to_thread.run_sync(database.stop)
                await process.wait_for_log("storage_unavailable")
                await trio.sleep(1)
                started = trio.current_time()
                assert await process.stop() == 0
                assert trio.current_time() - started < EXIT_DEADLINE
            sent = len(kraken.sent[1])
            await trio.to_thread.run_sync(database.start)
            before = count(database.url())
            with worker(settings, tmp_path / "log") as process:
                await wait_until(lambda: count(database.url(), BOOK_RUNS) == 2)
                assert await process.stop() == 0
            chains = stored_books(database.url())
            assert_prefixes(chains, kraken.sent)
            first, _ = chains.values()
            assert before + 50 < len(first) <= sent
            assert [run.end_reason for run in coverage(database.url())] == ["shutdown"] * 2
            assert coverage(database.url())[0].rows == len(first)


def test_bad_settings_are_all_told(tmp_path: Path) -> None:
    """Prevents a person from finding the mistakes one start at a time, or from a restart loop that tells none."""
    variables = {"PAIRS": "BTCUSD", "BOOK_DEPTH": "27", "KRAKEN_WS_URL": "ws://example.com", "FLUSH_ROWS": "x"}
    ended = run_to_its_end(variables, tmp_path)
    assert ended.returncode == 2
    lines = ended.stderr.splitlines()
    assert sorted(line.partition(":")[0] for line in lines) == sorted(["DATABASE_URL", *variables])
    assert all("; it takes " in line for line in lines)
    assert ended.stdout == ""


def test_secret_is_never_shown(tmp_path: Path) -> None:
    """Prevents a password from getting into the log of a host."""
    ended = run_to_its_end({"DATABASE_URL": "postgresql://user:hunter2@ss@host/d"}, tmp_path)
    assert ended.returncode == 2
    assert "DATABASE_URL" in ended.stderr
    assert "hunter2" not in ended.stderr + ended.stdout
    assert "Traceback" not in ended.stderr


async def test_database_of_another_feed_is_refused(migrated_url: str, tmp_path: Path) -> None:
    """Prevents a simulator's rows from getting among Kraken's, or a collector from restarting for ever over it."""
    with connect(migrated_url, application_name="tests") as connection:
        claim_database(connection, "ws.kraken.com")
    async with open_market() as market, open_kraken(market) as kraken:
        settings = settings_for(kraken, migrated_url, tmp_path / "spool")
        with worker(settings, tmp_path / "log") as process:
            assert await process.exit_status(60) == 2
            last = process.log.splitlines()[-1]
    assert last.startswith("the database holds the feed of ws.kraken.com")
    assert "Traceback" not in process.log
    assert count(migrated_url) == 0


async def test_spool_of_another_process_is_refused(migrated_url: str, tmp_path: Path) -> None:
    """Prevents two collectors from writing one spool, and leaves a person with the owner's number."""
    async with open_market() as market, open_kraken(market) as kraken:
        settings = settings_for(kraken, migrated_url, tmp_path / "spool")
        with worker(settings, tmp_path / "log") as first:
            await first.wait_for_log("storage_ready")
            with worker(settings, tmp_path / "second log") as second:
                assert await second.exit_status(60) == 2
                assert f"in use by process {first.process.pid};" in second.log
            assert first.process.poll() is None
            assert await first.stop() == 0


async def test_live_line(migrated_url: str, tmp_path: Path) -> None:
    """Prevents `--live` from changing what is collected, or from showing nothing."""
    async with open_market() as market, open_kraken(market) as kraken:
        settings = settings_for(kraken, migrated_url, tmp_path / "spool")
        with worker(settings, tmp_path / "log", "run", "--live") as process:
            await process.wait_for_log("BTC/USD  bid ")
            assert await process.stop() == 0
    assert count(migrated_url) > 50


async def test_database_that_was_never_reached(tmp_path: Path) -> None:
    """Prevents a database that comes only for the next process from costing what this one collected."""
    with own_postgres() as database:
        database.stop()
        async with open_market() as market, open_kraken(market) as kraken:
            settings = settings_for(kraken, database.url(), tmp_path / "spool")
            with worker(settings, tmp_path / "log") as process:
                await process.wait_for_log("storage_unavailable")
                await wait_until(lambda: len(kraken.frames()) > 300)
                process.process.kill()
                assert await process.exit_status() == -signal.SIGKILL
            await trio.to_thread.run_sync(database.start)
            with worker(settings, tmp_path / "log") as process:
                await wait_until(lambda: count(database.url(), BOOK_RUNS) == 2)
                assert await process.stop() == 0
        assert_prefixes(stored_books(database.url()), kraken.sent)
        assert [run.end_reason for run in coverage(database.url())] == ["process_ended", "shutdown"]
