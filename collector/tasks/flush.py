"""The flush task: records into the spool, and the spool's segments into PostgreSQL (ship.py).

Appending waits for nobody, so that the book task never waits for the database. Segments are sealed by time and size.
Where the spool or its disk runs out of room, the intake is throttled at its source: subscriptions are given up, books
first, and nothing that was received is dropped. The end of the records is an orderly stop: what is left is sealed and
shipped.
"""

import structlog
import trio
from trio_util import AsyncBool, AsyncValue

from collector.assignment import CHANNELS, Assignment
from collector.channels import receive_waiting
from collector.feed import Doubts
from collector.kraken.requests import Channel
from collector.records import Record
from collector.settings import Settings
from collector.statistics import Statistics
from collector.storage.reserve import DISK_FULL, RESERVE_BYTES
from collector.storage.room import Intake, Room
from collector.storage.spool import Spool
from collector.tasks.ship import ship_segments

SEGMENT_BYTES = 8 * 2**20  # a segment is sealed at this size too: checkpoints of many pairs are few rows, but large
ROOM_INTERVAL = 1.0  # seconds between two looks at the room
RESUME_FREE = 4 * RESERVE_BYTES  # bytes that must be free on a disk that was full, so that it is not full at once

_CHANNELS: dict[Intake, frozenset[Channel]] = {
    "all": CHANNELS,
    "trades": frozenset({"trade"}),
    "nothing": frozenset(),
}

log = structlog.get_logger()


async def flush(
    settings: Settings,
    assignment: Assignment,
    records: trio.MemoryReceiveChannel[list[Record]],
    spool: Spool,
    doubts: Doubts,
    statistics: Statistics,
) -> None:
    """Store records until they end; then seal and ship what is left."""
    waiting = AsyncValue(spool.shippable)
    full = AsyncBool(value=False)
    intake = _IntakeValve(settings.spool_max_bytes, spool, assignment)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ship_segments, settings, spool, waiting, doubts, statistics)
        async with trio.open_nursery() as running:
            running.start_soon(_seal_for_ever, settings.flush_interval, spool, waiting, full)
            running.start_soon(intake.watch)
            await _append(spool, [], intake)  # what a crash of this group left unwritten
            if spool.successor is not None:  # what was received for the database before belongs to that one
                for batch in receive_waiting(records, records.statistics().current_buffer_used):
                    await _append(spool, batch, intake)
                spool.belongs_to(spool.successor)
            statistics.rows = spool.rows
            async for batch in records:
                statistics.spooled(spool.number, trio.current_time())
                await _append(spool, batch, intake)
                statistics.rows = spool.rows
                if spool.open_rows >= settings.flush_rows or spool.open_bytes >= SEGMENT_BYTES:
                    full.value = True
            running.cancel_scope.cancel()
        await _seal(spool, waiting)
        await waiting.wait_value(0)
        nursery.cancel_scope.cancel()


class _IntakeValve:
    """Opens and closes the channels of the feed by the room in the spool."""

    def __init__(self, limit: int, spool: Spool, assignment: Assignment) -> None:
        self._spool = spool
        self._assignment = assignment
        self._room = Room(limit)
        self._is_disk_full = False

    async def watch(self) -> None:
        """Look at the disk from time to time, and keep the reserve where there is room for it."""
        while True:
            self._is_disk_full = self._spool.is_behind or not self._has_room()
            self.update()
            await trio.sleep(ROOM_INTERVAL)

    def _has_room(self) -> bool:
        has_reserve = self._spool.reserve.keep()
        return has_reserve and (not self._is_disk_full or self._spool.disk_free() >= RESUME_FREE)

    def update(self) -> None:
        """Open or close channels by what the spool holds now."""
        used, before = self._spool.bytes, self._room.intake
        intake = self._room.update(used, disk_full=self._is_disk_full)
        if (share := self._room.new_warning(used)) is not None:
            log.warning(
                "spool_filling", full=f"{share:.0%}", bytes=used, what_to_do="see why PostgreSQL does not take it"
            )
        if intake != before:
            log.warning("intake_changed", intake=intake, bytes=used, disk_full=self._is_disk_full)
        self._assignment.channels.value = _CHANNELS[intake]

    def disk_is_full(self) -> None:
        """Stop the intake, and use the reserve for what must be written now."""
        self._spool.reserve.release()
        self._is_disk_full = True
        self.update()


async def _append(spool: Spool, batch: list[Record], intake: _IntakeValve) -> None:
    """Append a batch; on a full disk wait for room, while the intake is stopped and the channels hold what comes."""
    while True:
        try:
            spool.append(batch)
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            if spool.reserve.is_kept:
                intake.disk_is_full()
            else:
                await trio.sleep(ROOM_INTERVAL)
            batch = []  # it is kept by the spool, and written first by the next try
        else:
            intake.update()
            return


async def _seal_for_ever(interval: float, spool: Spool, waiting: AsyncValue[int], full: AsyncBool) -> None:
    while True:
        with trio.move_on_after(interval):
            await full.wait_value(value_or_predicate=True)
        full.value = False
        await _seal(spool, waiting)


async def _seal(spool: Spool, waiting: AsyncValue[int]) -> None:
    number = spool.number
    try:
        file = spool.seal()
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        spool.reserve.release()  # a segment's beginning is what shipping, and so making room, waits for
        file = spool.seal()
    if file is not None:
        with trio.CancelScope(shield=True):  # what is sealed is synced and announced, also when all of this ends now
            await trio.to_thread.run_sync(spool.sync, file)
        spool.synced_to = number
        waiting.value = spool.shippable
