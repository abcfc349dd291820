"""Makes the days of the order book ahead of time, so that midnight finds its partition there.

It has a connection of its own: making a day waits for a lock where a long reader holds it, and the flush task's
connection must not.
"""

from datetime import UTC, datetime

import structlog
import trio

from collector.errors import StorageUnavailable, UnusableDatabase
from collector.settings import Settings
from collector.storage.partitions import ensure_ahead
from collector.tasks.database import open_session

INTERVAL = 3600.0  # seconds; each day is tried for many times before it comes

log = structlog.get_logger()


async def keep_partitions_ahead(settings: Settings) -> None:
    """Make the coming days' partitions, for ever; the flush task makes today's whenever it connects."""
    while True:
        await trio.sleep(INTERVAL)
        try:
            async with open_session(settings.database_url.get_secret_value(), "collector: partitions") as session:
                made = await session.call(ensure_ahead, datetime.now(UTC).date())
        except (StorageUnavailable, UnusableDatabase) as error:  # the flush task is the one to judge a database
            log.info("partitions_later", error=str(error), retry_in=INTERVAL)
        else:
            for day in made:
                log.info("partition_made", day=day.isoformat())
