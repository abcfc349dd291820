"""`verify --repair`: fill the holes in the trades before they are looked for.

Takes the collector's own road, with a spool of its own in a temporary folder: nothing is stored in two ways, and a
collector that is running beside this is not disturbed.
"""

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import trio

from collector.assignment import Assignment
from collector.errors import first_of
from collector.feed import Doubts
from collector.records import Record
from collector.settings import Settings
from collector.statistics import Statistics
from collector.storage.spool import Spool
from collector.tasks.flush import flush
from collector.tasks.repair import repair_once


def repair_stored(settings: Settings, pairs: Iterable[str]) -> None:
    """Fill what REST can fill now; less of it, with a warning in the log, when REST or the disk fails on the way.

    Raises:
        StorageUnavailable: the database was lost on the way.
        UnusableDatabase: it holds another feed's rows.

    """
    with TemporaryDirectory(prefix="collector-repair-") as folder:
        spool = Spool.open(Path(folder))
        try:
            trio.run(_repair, settings, frozenset(pairs), spool)
        except BaseExceptionGroup as group:
            raise first_of(group) from group
        finally:
            spool.close()


async def _repair(settings: Settings, pairs: frozenset[str], spool: Spool) -> None:
    statistics = Statistics()
    nothing, records = trio.open_memory_channel[list[Record]](0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flush, settings, Assignment(), records, spool, Doubts(), statistics)
        await repair_once(settings, pairs, spool, statistics)
        await nothing.aclose()
