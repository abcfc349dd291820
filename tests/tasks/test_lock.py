"""The lock task: one collector collects a pair, the next takes over, and out of reach nobody stops."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
import trio
from collecting import Kraken, settings_for, wait_until
from samples import run, trade
from simulated_store import store
from spooling import opened
from stored import coverage
from structlog.testing import capture_logs
from trio_util import AsyncValue

from collector.assignment import Assignment
from collector.settings import Settings
from collector.statistics import Statistics
from collector.storage import locks
from collector.storage.database import Connection, connect
from collector.storage.locks import try_lock
from collector.storage.spool import Spool
from collector.tasks import lock, lost_runs
from collector.tasks.lock import share_pairs

AWAY = "postgresql://nobody@127.0.0.1:1/none"
SILENT = "UPDATE collector_spools SET shipped_at = shipped_at - interval '1 hour'"


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT", 0.05)
    monkeypatch.setattr(lost_runs, "INTERVAL", 0.05)
    monkeypatch.setattr(lost_runs, "LOST_AFTER", 0.5)


@pytest.fixture
def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    """The spool of a collector that has met its database."""
    with opened(tmp_path / "spool") as own:
        own.belongs_to(UUID(int=9))
        yield own


def settings_with(url: str, tmp_path: Path, *pairs: str) -> Settings:
    """Settings of a lock task, which asks Kraken for nothing."""
    kraken = Kraken()
    kraken.address = kraken.address._replace(ws_url="ws://127.0.0.1:1/v2", rest_url="http://127.0.0.1:1")
    return settings_for(kraken, url, tmp_path, pairs=list(pairs))


@asynccontextmanager
async def holding(settings: Settings, spool: Spool) -> AsyncIterator[AsyncValue[frozenset[str]]]:
    """What a lock task tells to collect, for the length of the block."""
    assignment = Assignment(wanted=settings.selection.named)
    pairs = assignment.pairs
    async with trio.open_nursery() as nursery:
        nursery.start_soon(share_pairs, settings, assignment, lambda: pairs.value, spool, Statistics(), trio.Event())
        yield pairs
        nursery.cancel_scope.cancel()


async def settle(condition: Callable[[], bool], looks: int = 20) -> None:
    """Wait until a condition has stayed true for some beats: a pair that moves is held by two for a moment."""
    seen: list[bool] = []

    def has_stayed() -> bool:
        seen.append(condition())
        return all(seen[-looks:]) and len(seen) >= looks

    await wait_until(has_stayed)


async def test_each_pair_is_held_by_one(migrated_url: str, tmp_path: Path, spool: Spool) -> None:
    """Prevents two collectors from collecting a pair both, and one from waiting for a pair that is free."""
    wanted = {"BTC/USD", "ETH/USD", "SOL/USD"}
    everything, one = (settings_with(migrated_url, tmp_path, *pairs) for pairs in (wanted, ("ETH/USD",)))
    async with holding(one, spool) as first, holding(everything, spool) as second:
        for _ in range(2):
            await settle(lambda: first.value | second.value == wanted and not first.value & second.value)
            with psycopg.connect(migrated_url) as connection:
                connection.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
    with psycopg.connect(migrated_url) as connection:
        assert connection.execute("SELECT count(*) FROM collector_handovers").fetchone() == (0,)


async def test_one_of_an_earlier_version_is_waited_for(migrated_url: str, tmp_path: Path, spool: Spool) -> None:
    """Prevents a pair from being collected twice during a deployment over a collector that knows of no members."""
    with connect(migrated_url, application_name="tests") as earlier:
        assert try_lock(earlier, ["BTC/USD"]) == {"BTC/USD"}
        with capture_logs() as logs:
            async with holding(settings_with(migrated_url, tmp_path, "BTC/USD", "ETH/USD"), spool) as pairs:
                await wait_until(lambda: pairs.value == {"ETH/USD"})
                await trio.sleep(0.2)
                assert pairs.value == {"ETH/USD"}
                earlier.close()
                await wait_until(lambda: pairs.value == {"BTC/USD", "ETH/USD"})
    assert [log["pairs"] for log in logs if log["event"] == "standing_by"] == [1]


async def test_out_of_reach(tmp_path: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a database that is away from keeping the market from being collected into the spool."""
    monkeypatch.setattr(lock, "ALONE_AFTER", 0.3)
    async with holding(settings_with(AWAY, tmp_path, "BTC/USD"), spool) as pairs:
        await wait_until(lambda: pairs.value == {"BTC/USD"})


async def test_a_session_of_its_own_is_not_complained_about(migrated_url: str, tmp_path: Path, spool: Spool) -> None:
    """Prevents an error about a pooler where there is none, after a lock was taken, held, and asked for in vain."""
    with connect(migrated_url, application_name="tests") as other, capture_logs() as logs:
        assert try_lock(other, ["BTC/USD"]) == {"BTC/USD"}
        async with holding(settings_with(migrated_url, tmp_path, "BTC/USD", "ETH/USD"), spool) as pairs:
            await wait_until(lambda: pairs.value == {"ETH/USD"})
            await trio.sleep(0.5)
    assert not [log for log in logs if log["event"] == "locks_do_not_hold"]


def ended_transaction(connection: Connection, pairs: Iterable[str]) -> frozenset[str]:
    """Lock as through a pooler in transaction mode that resets its sessions: what was locked is free at once."""
    locked = try_lock(connection, pairs)
    connection.execute("SELECT pg_advisory_unlock_all()")
    return locked


async def test_a_pooler_in_transaction_mode_is_told(
    migrated_url: str, tmp_path: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents locks that hold nothing from being relied on in silence; no pooler is to be had for the tests."""
    monkeypatch.setattr(locks, "try_lock", ended_transaction)
    with capture_logs() as logs:
        async with holding(settings_with(migrated_url, tmp_path, "BTC/USD"), spool):
            await wait_until(lambda: any(log["event"] == "locks_do_not_hold" for log in logs))
            await trio.sleep(0.3)
    (told,) = [log for log in logs if log["event"] == "locks_do_not_hold"]
    assert "session mode" in told["what_to_do"]


async def test_lost_runs_are_ended(migrated_url: str, tmp_path: Path, spool: Spool) -> None:
    """Prevents runs of a lost disk from staying open, and those of a pair that another holds from being ended."""
    store(migrated_url, [trade(), run(0), run(0, channel="trade", chain=2), run(0, pair="ETH/USD", chain=3)])
    with psycopg.connect(migrated_url, autocommit=True) as connection, capture_logs() as logs:
        connection.execute(SILENT)
        async with holding(settings_with(migrated_url, tmp_path, "ETH/USD"), spool) as other:
            await wait_until(lambda: other.value == {"ETH/USD"})
            connection.execute("UPDATE collector_spools SET shipped_at = shipped_at + interval '2 hours'")
            async with holding(settings_with(migrated_url, tmp_path, "BTC/USD"), spool) as own:
                await wait_until(lambda: own.value == {"BTC/USD"})
                await trio.sleep(1)
                assert not any(of.is_ended for of in coverage(migrated_url)), "its spool is heard of"
                connection.execute("UPDATE kraken_coverage SET spool = gen_random_uuid() WHERE pair = 'BTC/USD'")
                await wait_until(lambda: sum(log["event"] == "run_of_lost_spool" for log in logs) == 2)
    assert [(of.pair, of.end_reason) for of in coverage(migrated_url)] == [("BTC/USD", "spool_lost"), ("ETH/USD", None)]
    told = [(log["pair"], log["channel"]) for log in logs if log["event"] == "run_of_lost_spool"]
    assert sorted(told) == [("BTC/USD", "book"), ("BTC/USD", "trade")]


async def test_no_run_is_ended_before_its_time(
    migrated_url: str, tmp_path: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents a collector that an outage kept silent from finding its runs ended the moment it is over."""
    monkeypatch.setattr(lost_runs, "LOST_AFTER", 300.0)
    store(migrated_url, [trade(), run(0)])
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        connection.execute(SILENT)
    async with holding(settings_with(migrated_url, tmp_path, "BTC/USD"), spool) as pairs:
        await wait_until(lambda: pairs.value == {"BTC/USD"})
        await trio.sleep(0.5)
    assert not coverage(migrated_url)[0].is_ended
