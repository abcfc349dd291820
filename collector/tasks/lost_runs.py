"""Ends the runs of the pairs that are held which others left open and will not end any more (storage/lost_runs.py)."""

from collections.abc import Mapping
from datetime import timedelta

import structlog
import trio

from collector.storage.lost_runs import end_lost_runs
from collector.storage.spool import Spool
from collector.tasks.database import Session

# Seconds of holding a pair, and of a spool's silence, after which the spool counts as lost. A collector with an open
# run reports it every 5 s, so that a living one in reach of the database is silent for that and FLUSH_INTERVAL (60 at
# the most), plus a segment that takes its time (isolating rejected rows is given up after 120).
LOST_AFTER = 300.0
INTERVAL = 15.0  # seconds between two looks

log = structlog.get_logger()


class LostRuns:
    """Looks for lost runs from time to time, on the session that holds the locks: who lost them must not look."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._looked_at = trio.current_time()

    async def look(self, session: Session, held_since: Mapping[str, float]) -> None:
        """End what others left open of the pairs that are held for long enough, if it is time to look."""
        now = trio.current_time()
        long_held = [pair for pair, since in held_since.items() if now - since >= LOST_AFTER]
        if now - self._looked_at < INTERVAL or not long_held or self._spool.database is None:
            return  # before the first shipping there may be no tables
        self._looked_at = now
        silence = timedelta(seconds=LOST_AFTER)
        for run in await session.call(end_lost_runs, long_held, self._spool.identity, silence):
            log.warning(
                "run_of_lost_spool",
                pair=run.pair,
                channel=run.channel,
                chain=run.chain,
                spool=str(run.spool),
                what_to_do="nothing if its disk is gone; else start a collector with that SPOOL_DIR, to ship what is"
                " there",
            )
