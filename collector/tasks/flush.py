"""The flush task: records into the spool, and the spool's segments into PostgreSQL.

Appending waits for nobody, so that the book task never waits for the database. Segments are sealed by time and size,
and shipped in order, one transaction each; while the database cannot be had, they wait in the folder. The end of the
records is an orderly stop: what is left is sealed and shipped.
"""

import random
from datetime import UTC, datetime
from uuid import UUID

import psycopg
import structlog
import trio
from trio_util import AsyncBool, AsyncValue

from collector.backoff import Backoff
from collector.errors import StorageUnavailable
from collector.records import Record
from collector.settings import Settings
from collector.statistics import Statistics
from collector.storage import shipping
from collector.storage.database import Connection
from collector.storage.identity import claim_database
from collector.storage.migrations import migrate
from collector.storage.partitions import ensure_ahead
from collector.storage.spool import Spool
from collector.tasks.database import Session, open_session

SEGMENT_BYTES = 8 * 2**20  # a segment is sealed at this size too: checkpoints of many pairs are few rows, but large
MIGRATE_TIMEOUT = 600.0  # seconds; adopting a large table reads it once, and meanwhile the spool takes what comes
BACKOFF_BASE, BACKOFF_CAP = 0.5, 5.0  # seconds; a database that is back is found within 5
STABLE_AFTER = 30.0  # seconds that a connection must last to count as a good one

log = structlog.get_logger()


async def flush(
    settings: Settings,
    records: trio.MemoryReceiveChannel[list[Record]],
    spool: Spool,
    statistics: Statistics,
) -> None:
    """Store records until they end; then seal and ship what is left."""
    waiting = AsyncValue(len(spool.sealed))
    full = AsyncBool(value=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_ship_for_ever, settings, spool, waiting, statistics)
        async with trio.open_nursery() as sealing:
            sealing.start_soon(_seal_for_ever, settings.flush_interval, spool, waiting, full)
            await _append(settings.flush_rows, records, spool, full, statistics)
            sealing.cancel_scope.cancel()
        await _seal(spool, waiting)
        await waiting.wait_value(0)
        nursery.cancel_scope.cancel()


async def _append(
    flush_rows: int,
    records: trio.MemoryReceiveChannel[list[Record]],
    spool: Spool,
    full: AsyncBool,
    statistics: Statistics,
) -> None:
    spool.append([])  # what a crash of this group left unwritten
    statistics.rows = spool.rows
    async for batch in records:
        spool.append(batch)
        statistics.rows = spool.rows
        if spool.open_rows >= flush_rows or spool.open_bytes >= SEGMENT_BYTES:
            full.value = True


async def _seal_for_ever(interval: float, spool: Spool, waiting: AsyncValue, full: AsyncBool) -> None:
    while True:
        with trio.move_on_after(interval):
            await full.wait_value(value_or_predicate=True)
        full.value = False
        await _seal(spool, waiting)


async def _seal(spool: Spool, waiting: AsyncValue) -> None:
    file = spool.seal()
    if file is not None:
        with trio.CancelScope(shield=True):  # what is sealed is synced and announced, also when all of this ends now
            await trio.to_thread.run_sync(spool.sync, file)
        waiting.value = len(spool.sealed)


async def _ship_for_ever(settings: Settings, spool: Spool, waiting: AsyncValue, statistics: Statistics) -> None:
    backoff = Backoff(BACKOFF_BASE, BACKOFF_CAP, STABLE_AFTER, random.uniform)
    shipped_when_schema_failed = -1
    while True:
        started = trio.current_time()
        try:
            await _ship_while_connected(settings, spool, waiting, statistics)
        except StorageUnavailable as error:
            failure = str(error)
        except psycopg.ProgrammingError as error:
            # The schema is not as expected: connecting again migrates. If that did not help, nothing here can.
            if statistics.shipped_segments == shipped_when_schema_failed:
                raise
            shipped_when_schema_failed = statistics.shipped_segments
            failure = str(error)
        delay = backoff.delay(trio.current_time() - started)
        log.warning("storage_unavailable", error=failure, segments=len(spool.sealed), retry_in=round(delay, 2))
        await trio.sleep(delay)


async def _ship_while_connected(
    settings: Settings, spool: Spool, waiting: AsyncValue[int], statistics: Statistics
) -> None:
    async with open_session(settings.database_url.get_secret_value(), "collector: flush") as session:
        database = await _meet(settings, session, spool)
        while True:
            await waiting.wait_value(lambda segments: segments > 0)
            number = next(iter(spool.sealed))
            statistics.stored_rows += await session.call(_ship, spool, number, database)
            statistics.shipped_segments += 1
            del spool.sealed[number]
            waiting.value = len(spool.sealed)


async def _meet(settings: Settings, session: Session, spool: Spool) -> UUID:
    """Bring the database's schema up to date and make sure that it is the one that the spool belongs to.

    Raises:
        UnusableDatabase: it holds another feed's rows, or tables that cannot be adopted.

    """
    for name in await session.call(migrate, timeout=MIGRATE_TIMEOUT):
        log.info("migrated", migration=name)
    database = await session.call(claim_database, settings.origin)
    await session.call(ensure_ahead, datetime.now(UTC).date(), 1)
    await session.call(shipping.prepare)
    if spool.belongs_to(database):
        raise RuntimeError("DATABASE_URL leads to another database than before: every book begins anew there")
    log.info("storage_ready", database=str(database), segments=len(spool.sealed))
    return database


def _ship(connection: Connection, spool: Spool, number: int, database: UUID) -> int:
    """Ship one segment and delete it; return how many rows that stored. Runs in a worker thread."""
    segment = spool.read(number)
    if segment is None:
        return 0
    if segment.header.database not in (None, database):
        spool.set_apart(number, segment.header.database)
        return 0
    stored = shipping.ship(connection, segment)
    spool.delete(number)
    return stored
