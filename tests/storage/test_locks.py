"""The lock on each pair: held by one session at a time, until that session ends."""

import psycopg
import pytest
from collecting import count, wait_until

from collector.storage import locks
from collector.storage.database import connect
from collector.storage.locks import prepare, try_lock

HELD = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"


async def test_one_session_holds_a_pair(database_url: str) -> None:
    """Prevents two collectors from taking the same pair, and one from losing those that nobody else wants."""
    with (
        connect(database_url, application_name="tests") as first,
        connect(database_url, application_name="tests") as two,
    ):
        assert try_lock(first, ["ETH/USD", "BTC/USD"]) == {"BTC/USD", "ETH/USD"}
        assert try_lock(two, ["BTC/USD", "SOL/USD"]) == {"SOL/USD"}
        assert try_lock(first, []) == frozenset()
        first.close()
        await wait_until(lambda: count(database_url, HELD) == 1)
        assert try_lock(two, ["BTC/USD"]) == {"BTC/USD"}


def test_key_is_the_same_in_every_version() -> None:
    """Prevents an old and a new collector from holding one pair under two keys during a deploy."""
    assert [locks._key(pair) for pair in ("BTC/USD", "ETH/USD")] == [-6132807800144949608, -3584626490587566150]


async def test_frozen_session_is_ended(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a holder that sends no heartbeat from keeping its pairs for as long as its connection lasts."""
    monkeypatch.setattr(locks, "IDLE_TIMEOUT", 1)
    frozen = connect(database_url, application_name="tests")
    prepare(frozen)
    assert try_lock(frozen, ["BTC/USD"]) == {"BTC/USD"}
    await wait_until(lambda: count(database_url, HELD) == 0)
    with pytest.raises(psycopg.OperationalError):
        try_lock(frozen, [])
    frozen.close()
