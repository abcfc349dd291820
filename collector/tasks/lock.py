"""Divides the pairs among the processes that collect into one database, and holds the lock of each of ours.

Each beat, a process says that it is there, learns who else is, and computes who should hold which pair (members.py).
What it should hold and nobody does, it locks. What it holds and another should, it offers to that one, and goes on
collecting until that one collects it too: a pair that moves in good order loses nothing.

Out of the database's reach nobody can know who holds what. Missing data is worse than data twice (each chain is
complete in itself, each trade is stored once), so who collects goes on, and who waits begins after a while; on first
contact, whoever finds a pair locked by another lets go of it.

Who holds a pair also ends the runs of it that others left open and will not end any more.
"""

import os
import socket
from collections.abc import Callable
from uuid import UUID, uuid4

import psycopg
import structlog
import trio

from collector.assignment import Assignment
from collector.errors import StorageUnavailable
from collector.members import Member, owners
from collector.reach import Reach
from collector.settings import Settings
from collector.statistics import Statistics
from collector.storage import locks, members
from collector.storage.members import Handover, Presence
from collector.storage.spool import Spool
from collector.tasks.database import Session, open_session
from collector.tasks.lost_runs import LostRuns

# Seconds between two beats: with the session's idle timeout of 8 s, a pair whose holder froze is taken over within 10.
HEARTBEAT = 1.0
LEAVING_HEARTBEAT = 0.2  # seconds, for one that stops: each beat that it waits is one less to drain what it has
# Seconds out of reach after which a waiting process collects, too: as long as a takeover may last.
ALONE_AFTER = 15.0

log = structlog.get_logger()


async def share_pairs(
    settings: Settings,
    assignment: Assignment,
    collected: Callable[[], frozenset[str]],
    spool: Spool,
    statistics: Statistics,
    stop: trio.Event,
) -> None:
    """Keep `assignment.pairs` to what this process should collect; once `stop` is set, until others have its pairs.

    `collected` are the pairs of which both channels run. Returns as soon as nobody is to be waited for any more.
    """
    locksmith = _Locksmith(settings, assignment, collected, spool, statistics, stop)
    reached_at = trio.current_time() - ALONE_AFTER  # at the start nobody is known to be there
    while not locksmith.has_left:
        try:
            async with open_session(settings.database_url.get_secret_value(), "collector: lock") as session:
                await session.call(locks.prepare)
                await session.call(members.forget_dead)
                locksmith.begin(session)
                while not locksmith.has_left:
                    await locksmith.beat()
                    reached_at = trio.current_time()
                    await _rest(stop)
        except (StorageUnavailable, psycopg.errors.UndefinedTable) as error:  # the flush task makes the tables
            if stop.is_set():
                return
            if trio.current_time() - reached_at >= ALONE_AFTER:
                locksmith.collect_alone(error)
            await _rest(stop)


async def _rest(stop: trio.Event) -> None:
    if stop.is_set():
        await trio.sleep(LEAVING_HEARTBEAT)
    else:
        with trio.move_on_after(HEARTBEAT):
            await stop.wait()


class _Locksmith:
    """What one process holds, offers and takes."""

    def __init__(
        self,
        settings: Settings,
        assignment: Assignment,
        collected: Callable[[], frozenset[str]],
        spool: Spool,
        statistics: Statistics,
        stop: trio.Event,
    ) -> None:
        self.has_left = False
        self._member = Member(uuid4(), settings.pairs)
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._assignment = assignment
        self._collected = collected
        self._spool = spool
        self._lost_runs = LostRuns(spool)
        self._statistics = statistics
        self._stop = stop
        self._reach = Reach(trio.current_time())
        self._rows = (trio.current_time(), 0)
        self._members: list[Member] = []
        self._told: frozenset[str] | None = None  # what was held when it was last told

    def begin(self, session: Session) -> None:
        """Go on with a new session, which holds nothing yet."""
        self._session = session
        self._held_since: dict[str, float] = {}

    async def beat(self) -> None:
        """Say that this process is there; lock, offer, take and let go of what is due."""
        session, wanted, me = self._session, self._assignment.wanted.value, self._member.identity
        self._members, handovers = await session.call(members.report, self._presence())
        owned = owners(wanted, self._members)
        # Read before locking: a giver unlocks before it takes its offer back, so that one of both is seen.
        guests = frozenset(handover.pair for handover in handovers if handover.taker == me) & wanted
        mine = frozenset(pair for pair, owner in owned.items() if owner == me)
        await self._lock((mine | guests | self._assignment.pairs.value & wanted) - self._held_since.keys())
        held = frozenset(self._held_since)
        takers = {pair: owned[pair] for pair in held & wanted if owned.get(pair, me) != me}
        taken = frozenset(
            handover.pair for handover in handovers if handover.is_taken and takers.get(handover.pair) == handover.taker
        )
        released = taken | held - wanted
        self._assign((held - released) | guests)
        await self._let_go(released)
        await self._offer({pair: taker for pair, taker in takers.items() if pair not in taken}, handovers)
        if ready := guests & self._collected() - held:
            await session.call(members.take, me, ready)
        await self._lost_runs.look(session, self._held_since)
        if self._stop.is_set() and not takers.keys() - taken:
            await session.call(members.leave, me)
            self.has_left = True

    def collect_alone(self, error: Exception) -> None:
        """Collect what this process should hold as far as it is known; if that is nothing, everything."""
        wanted = self._assignment.wanted.value
        owned = owners(wanted, self._members)
        mine = frozenset(pair for pair, owner in owned.items() if owner == self._member.identity) or wanted
        pairs = (self._assignment.pairs.value | mine) & wanted
        if pairs != self._assignment.pairs.value:
            log.warning("locks_out_of_reach", error=str(error), pairs=sorted(pairs))
            self._assignment.pairs.value = pairs

    def _presence(self) -> Presence:
        now, rows = trio.current_time(), self._statistics.rows
        pairs = self._assignment.pairs.value
        (before, rows_before), self._rows = self._rows, (now, rows)
        is_in_reach = self._reach.look(now, self._statistics.frames, listens=bool(pairs))
        return Presence(
            Member(self._member.identity, self._member.patterns, is_in_reach and not self._stop.is_set()),
            self._name,
            sorted(pairs),
            round((rows - rows_before) / max(now - before, LEAVING_HEARTBEAT)),
            self._spool.waiting_rows,
        )

    def _assign(self, pairs: frozenset[str]) -> None:
        before = self._assignment.pairs.value
        if taken := pairs - before:
            log.info("pairs_taken", pairs=sorted(taken))
        if yielded := before - pairs:
            log.warning("pairs_yielded", pairs=sorted(yielded), detail="another collector holds them")
        if pairs != self._told and (waiting := self._assignment.wanted.value - pairs):
            log.info("standing_by", pairs=len(waiting))
        self._told = pairs
        self._assignment.pairs.value = pairs

    async def _lock(self, pairs: frozenset[str]) -> None:
        if pairs:
            locked = await self._session.call(locks.try_lock, pairs)
            self._held_since |= dict.fromkeys(locked, trio.current_time())

    async def _let_go(self, pairs: frozenset[str]) -> None:
        if pairs:
            await self._session.call(locks.unlock, pairs)
            for pair in pairs:
                del self._held_since[pair]

    async def _offer(self, takers: dict[str, UUID], handovers: list[Handover]) -> None:
        standing = {handover.pair: handover.taker for handover in handovers if handover.giver == self._member.identity}
        if takers != standing:
            await self._session.call(members.offer, self._member.identity, takers)
