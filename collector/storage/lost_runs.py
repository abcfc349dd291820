"""Ends the runs of spools that nothing is heard of any more, such as one whose disk is gone with its machine.

A run is ended by its own spool: by its process, or by the next process on the same folder. Where the folder is lost
there is none, and the run would look for ever as if somebody were still watching. Nobody can know that a spool is
lost, though: its machine may only be cut off from the database, go on collecting, and ship it all hours later. So
what is written here is provisional, and true in both cases: *as far as this database knows*, the run ends at its
`last_at`. Coverage in a segment is absolute, so that a spool that comes back opens its run again and goes on with it;
and where it comes back only to say that its process had ended, that reason takes the place of this one (shipping.py).
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

import psycopg
import structlog

from collector.records import SPOOL_LOST
from collector.storage.database import Connection

# The clock is the database's on both sides.
_HEARD = "SELECT spool FROM collector_spools WHERE shipped_at > timezone('UTC', now()) - %(silence)s"
_OPEN = """
SELECT DISTINCT pair FROM kraken_coverage
WHERE ended_at IS NULL AND pair = ANY (%(pairs)s) AND spool <> %(own)s AND NOT spool = ANY (%(heard)s)
"""
# One pair at a time: where tables are distributed, rows are locked on one node only. What another session is writing
# just now is skipped: that spool lives.
_END = """
WITH lost AS MATERIALIZED (
    SELECT pair, channel, chain FROM kraken_coverage
    WHERE ended_at IS NULL AND pair = %(pair)s AND spool <> %(own)s AND NOT spool = ANY (%(heard)s)
    FOR UPDATE SKIP LOCKED
)
UPDATE kraken_coverage AS run SET ended_at = last_at, end_reason = %(reason)s
FROM lost
WHERE run.pair = %(pair)s AND (run.pair, run.channel, run.chain) = (lost.pair, lost.channel, lost.chain)
RETURNING run.pair, run.channel, run.chain, run.spool
"""
# What leaves the session as it was. It holds locks that are worth more than this, which can be done later.
_LATER = (
    psycopg.errors.UndefinedTable,  # dropped by hand: the next segment has it made again
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.LockNotAvailable,
    psycopg.errors.QueryCanceled,
    psycopg.errors.DiskFull,
)

log = structlog.get_logger()


class LostRun(NamedTuple):
    """A run that was ended here, and the spool that it is from."""

    pair: str
    channel: str
    chain: int
    spool: UUID


def end_lost_runs(connection: Connection, pairs: Iterable[str], own_spool: UUID, silence: timedelta) -> list[LostRun]:
    """End the open runs of some pairs whose spools, other than `own_spool`, have shipped nothing for so long.

    Only who holds the locks of the pairs may call this, and has held them for as long: so a collector that the
    database kept waiting, or that lost its lock to us, has had the time to come back and tell.
    """
    arguments: dict[str, object] = {"own": own_spool, "reason": SPOOL_LOST}
    ended: list[LostRun] = []
    try:
        arguments["heard"] = [spool for (spool,) in connection.execute(_HEARD, {"silence": silence})]
        for (pair,) in connection.execute(_OPEN, arguments | {"pairs": sorted(pairs)}).fetchall():
            ended += [LostRun(*row) for row in connection.execute(_END, arguments | {"pair": pair})]
    except _LATER as error:
        log.info("lost_runs_later", error=error.diag.message_primary)
    return ended
