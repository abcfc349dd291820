"""Holds the lock of each pair, and says which pairs this process should collect.

Out of the database's reach nobody can know who holds what. Missing data is worse than data twice (each chain is
complete in itself, each trade is stored once), so who collects goes on, and who waits begins after a while; on first
contact, whoever finds a pair locked by another lets go of it.
"""

import structlog
import trio
from trio_util import AsyncValue

from collector.errors import StorageUnavailable
from collector.settings import Settings
from collector.storage import locks
from collector.tasks.database import open_session

# Seconds between two tries, which are heartbeats too: with the session's idle timeout of 8 s, a pair whose holder
# froze is taken over within 11 s.
HEARTBEAT = 2.0
# Seconds out of reach after which a waiting process collects, too: as long as a takeover may last.
ALONE_AFTER = 15.0

log = structlog.get_logger()


async def hold_locks(settings: Settings, pairs: AsyncValue[frozenset[str]]) -> None:
    """Keep `pairs` to what this process should collect, for ever; it is empty until that is known."""
    wanted = frozenset(settings.pairs)
    reached_at = trio.current_time() - ALONE_AFTER  # at the start nobody is known to be there
    known: frozenset[str] | None = None  # what was held when it was last told
    while True:
        try:
            async with open_session(settings.database_url.get_secret_value(), "collector: lock") as session:
                await session.call(locks.prepare)
                held: frozenset[str] = frozenset()
                while True:
                    held |= await session.call(locks.try_lock, wanted - held)
                    reached_at = trio.current_time()
                    if held != known or held != pairs.value:
                        _announce(pairs, held, wanted)
                    known = held
                    await trio.sleep(HEARTBEAT)
        except StorageUnavailable as error:
            if trio.current_time() - reached_at >= ALONE_AFTER and pairs.value != wanted:
                log.warning("locks_out_of_reach", error=str(error), pairs=sorted(wanted))
                pairs.value = wanted
            await trio.sleep(HEARTBEAT)


def _announce(pairs: AsyncValue[frozenset[str]], held: frozenset[str], wanted: frozenset[str]) -> None:
    if taken := held - pairs.value:
        log.info("pairs_taken", pairs=sorted(taken))
    if yielded := pairs.value - held:
        log.warning("pairs_yielded", pairs=sorted(yielded), detail="another collector holds them")
    if waiting := wanted - held:
        log.info("standing_by", pairs=sorted(waiting))
    pairs.value = held
