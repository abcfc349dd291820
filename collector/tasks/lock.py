"""Holds the lock of each pair, and says which pairs this process should collect.

Out of the database's reach nobody can know who holds what. Missing data is worse than data twice (each chain is
complete in itself, each trade is stored once), so who collects goes on, and who waits begins after a while; on first
contact, whoever finds a pair locked by another lets go of it.

Who holds a pair also ends the runs of it that others left open and will not end any more (storage/lost_runs.py).
"""

from datetime import timedelta

import structlog
import trio
from trio_util import AsyncValue

from collector.errors import StorageUnavailable
from collector.settings import Settings
from collector.storage import locks
from collector.storage.lost_runs import end_lost_runs
from collector.storage.spool import Spool
from collector.tasks.database import Session, open_session

# Seconds between two tries, which are heartbeats too: with the session's idle timeout of 8 s, a pair whose holder
# froze is taken over within 11 s.
HEARTBEAT = 2.0
# Seconds out of reach after which a waiting process collects, too: as long as a takeover may last.
ALONE_AFTER = 15.0
# Seconds of holding a pair, and of a spool's silence, after which the spool counts as lost. A collector with an open
# run reports it every 5 s, so that a living one in reach of the database is silent for that and FLUSH_INTERVAL (60 at
# the most), plus a segment that takes its time (isolating rejected rows is given up after 120).
LOST_AFTER = 300.0
LOST_INTERVAL = 15.0  # seconds between two looks for lost runs

log = structlog.get_logger()


async def hold_locks(settings: Settings, pairs: AsyncValue[frozenset[str]], spool: Spool) -> None:
    """Keep `pairs` to what this process should collect, for ever; it is empty until that is known."""
    wanted = frozenset(settings.pairs)
    reached_at = trio.current_time() - ALONE_AFTER  # at the start nobody is known to be there
    known: frozenset[str] | None = None  # what was held when it was last told
    while True:
        try:
            async with open_session(settings.database_url.get_secret_value(), "collector: lock") as session:
                await session.call(locks.prepare)
                held_since: dict[str, float] = {}
                looked_at = trio.current_time()
                while True:
                    taken = await session.call(locks.try_lock, wanted - held_since.keys())
                    reached_at = trio.current_time()
                    held_since |= dict.fromkeys(taken, reached_at)
                    held = frozenset(held_since)
                    if held != known or held != pairs.value:
                        _announce(pairs, held, wanted)
                    known = held
                    if reached_at - looked_at >= LOST_INTERVAL:
                        looked_at = reached_at
                        await _end_lost_runs(session, held_since, spool)
                    await trio.sleep(HEARTBEAT)
        except StorageUnavailable as error:
            if trio.current_time() - reached_at >= ALONE_AFTER and pairs.value != wanted:
                log.warning("locks_out_of_reach", error=str(error), pairs=sorted(wanted))
                pairs.value = wanted
            await trio.sleep(HEARTBEAT)


async def _end_lost_runs(session: Session, held_since: dict[str, float], spool: Spool) -> None:
    """End what others left open of the pairs that are held for long enough."""
    now = trio.current_time()
    long_held = [pair for pair, since in held_since.items() if now - since >= LOST_AFTER]
    if not long_held or spool.database is None:  # before the first shipping there may be no tables
        return
    for run in await session.call(end_lost_runs, long_held, spool.identity, timedelta(seconds=LOST_AFTER)):
        log.warning(
            "run_of_lost_spool",
            pair=run.pair,
            channel=run.channel,
            chain=run.chain,
            spool=str(run.spool),
            what_to_do="nothing if its disk is gone; else start a collector with that SPOOL_DIR, to ship what is there",
        )


def _announce(pairs: AsyncValue[frozenset[str]], held: frozenset[str], wanted: frozenset[str]) -> None:
    if taken := held - pairs.value:
        log.info("pairs_taken", pairs=sorted(taken))
    if yielded := pairs.value - held:
        log.warning("pairs_yielded", pairs=sorted(yielded), detail="another collector holds them")
    if waiting := wanted - held:
        log.info("standing_by", pairs=sorted(waiting))
    pairs.value = held
