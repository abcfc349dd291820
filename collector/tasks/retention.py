"""Drops the days of the order book that are older than BOOK_RETENTION_DAYS.

It has a connection of its own: removing a day waits for its readers, and the flush task's connection must not.
"""

from datetime import UTC, datetime

import structlog
import trio

from collector.errors import StorageUnavailable, UnusableDatabase
from collector.storage.retention import drop_day, old_days
from collector.tasks.database import open_session

INTERVAL = 3600.0  # seconds; a day that a reader was using is tried for again, and a restart costs an hour at most

log = structlog.get_logger()


async def drop_old_days(database_url: str, keep_days: int) -> None:
    """Keep today and the `keep_days` whole days before it, for ever."""
    while True:
        await trio.sleep(INTERVAL)
        try:
            async with open_session(database_url, "collector: retention") as session:
                for day in await session.call(old_days, datetime.now(UTC).date(), keep_days):
                    if await session.call(drop_day, day):
                        log.info("day_dropped", day=day.isoformat(), keep_days=keep_days)
        except (StorageUnavailable, UnusableDatabase) as error:  # the flush task is the one to judge a database
            log.info("retention_later", error=str(error), retry_in=INTERVAL)
