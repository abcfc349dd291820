"""Shipping: the spool's sealed segments into PostgreSQL, in order, one transaction each.

While the database cannot be had, segments wait in the folder. A row that PostgreSQL rejects is set apart, so that it
holds up nothing. Where one is missing, for that reason or any other, its run ends there, and the book task begins a new
one.
"""

import random
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple
from uuid import UUID

import msgspec
import psycopg
import structlog
import trio
from trio_util import AsyncValue

from collector.backoff import Backoff
from collector.errors import StorageUnavailable, UnusableDatabase
from collector.feed import Doubts
from collector.settings import Settings
from collector.statistics import Statistics
from collector.storage import shipping
from collector.storage.apart import Apart
from collector.storage.continuity import continue_runs
from collector.storage.copy_text import escape
from collector.storage.database import Connection
from collector.storage.identity import claim_database
from collector.storage.migrations import migrate
from collector.storage.partitions import ensure_ahead
from collector.storage.rejecting import set_rejected_apart
from collector.storage.segments import Segment
from collector.storage.spool import Spool
from collector.tasks.database import Session, open_session

ISOLATE_TIMEOUT = 120.0  # seconds; finding rows that are rejected takes some tries for each of them
MIGRATE_TIMEOUT = 600.0  # seconds; adopting a large table reads it once, and meanwhile the spool takes what comes
BACKOFF_BASE, BACKOFF_CAP = 0.5, 5.0  # seconds; a database that is back is found within 5
TOLD_EVERY = 60.0  # seconds between two reports of an outage that goes on
STABLE_AFTER = 30.0  # seconds that a connection must last to count as a good one

log = structlog.get_logger()


class _Shipped(NamedTuple):
    """What became of a segment: rows that were stored, segments before it that are lost, and what was set apart."""

    stored: int = 0
    lost: range = range(0)
    apart: Sequence[Apart] = ()


async def ship_segments(
    settings: Settings, spool: Spool, waiting: AsyncValue[int], doubts: Doubts, statistics: Statistics
) -> None:
    """Ship what is sealed, for ever; `waiting` follows `spool.shippable`."""
    backoff = Backoff(BACKOFF_BASE, BACKOFF_CAP, STABLE_AFTER, random.uniform)
    shipped_when_schema_failed = -1
    told: set[str] = set()
    told_at = trio.current_time()
    while True:
        started, shipped_before = trio.current_time(), statistics.shipped_segments
        try:
            await _ship_while_connected(settings, spool, waiting, doubts, statistics)
        except StorageUnavailable as error:
            failure = str(error)
        except UnusableDatabase as error:
            # At the start a person is there to read it. Later it would cost what the spool can hold meanwhile.
            if spool.database is None:
                raise
            failure = str(error)
        except psycopg.ProgrammingError as error:
            # The schema is not as expected: connecting again migrates. If that did not help, nothing here can.
            if statistics.shipped_segments == shipped_when_schema_failed:
                raise
            shipped_when_schema_failed = statistics.shipped_segments
            failure = str(error)
        # Each cause is told once, and again from time to time: a long outage is not to fill the log with its tries.
        if trio.current_time() - told_at >= TOLD_EVERY or statistics.shipped_segments > shipped_before:
            told.clear()
            told_at = trio.current_time()
        if failure not in told:
            told.add(failure)
            log.warning("storage_unavailable", error=failure, segments=len(spool.sealed))
        await trio.sleep(backoff.delay(trio.current_time() - started))


async def _ship_while_connected(
    settings: Settings, spool: Spool, waiting: AsyncValue[int], doubts: Doubts, statistics: Statistics
) -> None:
    async with open_session(settings.database_url.get_secret_value(), "collector: flush") as session:
        database = await _meet(settings, session, spool)
        waiting.value = spool.shippable
        told: set[tuple[str, int]] = set()
        while True:
            await waiting.wait_value(lambda segments: segments > 0)
            number = next(iter(spool.sealed))
            try:
                shipped = await session.call(_ship, spool, number, database)
            except (psycopg.DataError, psycopg.IntegrityError):
                shipped = await session.call(
                    partial(_ship, isolate=True), spool, number, database, timeout=ISOLATE_TIMEOUT
                )
            spool.forget(number)
            statistics.committed(number, shipped.stored, trio.current_time())
            waiting.value = spool.shippable
            _tell(number, shipped, doubts, told)


def _tell(number: int, shipped: _Shipped, doubts: Doubts, told: set[tuple[str, int]]) -> None:
    """Say what was lost and set apart, and have the book task begin new runs; `told` are those that it knows of."""
    if shipped.lost:
        log.error(
            "segments_lost",
            first_segment=shipped.lost.start,
            last_segment=shipped.lost.stop - 1,
            what_to_do="see above whether they were damaged on the disk; if not, a failover or a backup set the"
            " database back: what it lacks of books is in kraken_gaps, trades are fetched again",
        )
    for row in shipped.apart:
        is_new = (row.pair, row.chain) not in told
        if row.error is not None:
            log.error("row_rejected", pair=row.pair, chain=row.chain, error=row.error, moved_to=str(row.file))
        elif is_new:
            log.error(
                "run_broken",
                pair=row.pair,
                chain=row.chain,
                reason=row.reason,
                segment=number,
                moved_to=str(row.file.parent),
                what_to_do="nothing: a new run begins; the rows behind the hole, which fit no book, are kept there",
            )
        if row.chain is not None and is_new:
            told.add((row.pair, row.chain))
            doubts.add(row.pair, row.chain, row.reason)


async def _meet(settings: Settings, session: Session, spool: Spool) -> UUID:
    """Bring the database's schema up to date and make sure that it is the one that the spool belongs to.

    Raises:
        UnusableDatabase: it holds another feed's rows, or tables that cannot be adopted.

    """
    for name in await session.call(migrate, timeout=MIGRATE_TIMEOUT):
        log.info("migrated", migration=name)
    database = await session.call(claim_database, settings.origin)
    await session.call(ensure_ahead, datetime.now(UTC).date())
    await session.call(shipping.prepare)
    if spool.database not in (None, database):
        spool.successor = database
        raise RuntimeError("DATABASE_URL leads to another database than before: every book begins anew there")
    if spool.database is None and await session.call(shipping.last_segment, spool.identity) >= spool.first_number:
        log.error(
            "spool_rewound", spool=str(spool.identity), what_to_do="nothing; give each collector its own SPOOL_DIR"
        )
        spool.start_over()
    spool.belongs_to(database)
    log.info("storage_ready", database=str(database), segments=len(spool.sealed))
    return database


def _ship(connection: Connection, spool: Spool, number: int, database: UUID, *, isolate: bool = False) -> _Shipped:
    """Ship one segment and delete it. In a worker thread.

    `isolate` first finds the rows that PostgreSQL rejects, and sets them apart.
    """
    segment = _read(spool, number, database)
    if segment is None:
        return _Shipped()
    rejected: list[Apart] = []
    if isolate:
        segment, rejected = set_rejected_apart(connection, segment, spool.directory)
    runs = {(escape(row.pair), row.chain) for row in rejected if row.chain is not None}
    with connection.transaction():
        segment, lost, apart = continue_runs(connection, segment, spool.directory, runs)
        stored = shipping.ship(connection, segment)
    if segment.torn:
        spool.set_damaged_apart(number)
    else:
        spool.delete(number)
    return _Shipped(stored, lost, [*rejected, *apart])


def _read(spool: Spool, number: int, database: UUID) -> Segment | None:
    """A segment that is to be shipped to a database, under the identity that it goes by; None where there is none."""
    segment = spool.read(number)
    if segment is None:
        return None
    if segment.header.database not in (None, database):
        spool.set_apart(number, segment.header.database)
        return None
    if spool.renamed_from is not None and number >= spool.renamed_from:
        return msgspec.structs.replace(segment, header=msgspec.structs.replace(segment.header, spool=spool.identity))
    return segment
