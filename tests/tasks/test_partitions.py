"""Days made ahead: they are there before they come, and a database that is away is tried again."""

import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
from collecting import Kraken, own_postgres, settings_for, wait_until
from structlog.testing import capture_logs

from collector.storage.database import connect
from collector.storage.migrations import migrate
from collector.storage.partitions import DAYS_AHEAD, day_partitions
from collector.tasks import partitions
from collector.tasks.partitions import keep_partitions_ahead


async def test_days_are_made_ahead(migrated_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents midnight from finding no partition, in a process that runs for months."""
    monkeypatch.setattr(partitions, "INTERVAL", 0.05)
    expected = {datetime.now(UTC).date() + timedelta(days=offset) for offset in range(DAYS_AHEAD + 1)}

    def days() -> set:
        with connect(migrated_url, application_name="tests") as connection:
            return {partition.day for partition in day_partitions(connection)}

    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_partitions_ahead, settings_for(_kraken(), migrated_url, tmp_path))
            await wait_until(lambda: days() >= expected)
            await trio.sleep(0.2)
            nursery.cancel_scope.cancel()
    made = [log["day"] for log in logs if log["event"] == "partition_made"]
    assert sorted(made) == sorted(day.isoformat() for day in expected), "each is made and told once"


async def test_database_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents an outage from ending the task that the midnights after it depend on."""
    monkeypatch.setattr(partitions, "INTERVAL", 0.05)
    with own_postgres() as server, capture_logs() as logs:
        with connect(server.url(), application_name="tests") as connection:
            migrate(connection)
        server.stop(signal.SIGINT)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_partitions_ahead, settings_for(_kraken(), server.url(), tmp_path))
            await wait_until(lambda: sum(log["event"] == "partitions_later" for log in logs) > 1)
            await trio.to_thread.run_sync(server.start)
            await wait_until(lambda: any(log["event"] == "partition_made" for log in logs))
            nursery.cancel_scope.cancel()


def _kraken() -> Kraken:
    """No server: the address alone is needed."""
    kraken = Kraken()
    kraken.address = kraken.address._replace(ws_url="ws://127.0.0.1:1/v2", rest_url="http://127.0.0.1:1")
    return kraken
