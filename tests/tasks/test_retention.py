"""The task that drops old days, against a real database."""

from datetime import UTC, datetime, timedelta

import pytest
import trio

from collector.storage.database import connect
from collector.storage.partitions import RETENTION_LOCK, day_partitions, ensure_ahead
from collector.tasks import retention

TIMEOUT = 20  # seconds; the task takes a fraction of one


async def test_old_days_go_whatever_was_in_the_way(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a day from staying because somebody used it, or the database was away, when it was its turn."""
    monkeypatch.setattr(retention, "INTERVAL", 0.05)
    today = datetime.now(UTC).date()
    with connect(migrated_url, application_name="tests") as connection:
        ensure_ahead(connection, today - timedelta(days=4), 4)
        connection.execute("SELECT pg_advisory_lock(%s)", [RETENTION_LOCK])
        with trio.fail_after(TIMEOUT):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(retention.drop_old_days, migrated_url, 2)
                await trio.sleep(0.3)
                assert len(day_partitions(connection)) == 5
                connection.execute("SELECT pg_advisory_unlock(%s)", [RETENTION_LOCK])
                while len(day_partitions(connection)) > 3:  # noqa: ASYNC110 - the database has no event to wait for
                    await trio.sleep(0.05)
                nursery.cancel_scope.cancel()
        assert [partition.day for partition in day_partitions(connection)] == [
            today - timedelta(days=days) for days in (2, 1, 0)
        ]
