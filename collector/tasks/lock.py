"""Divides the pairs among the processes that collect into one database, and holds the lock of each of ours.

Each beat, a process says that it is there, learns who else is, and computes who should hold which pair (members.py).
What it should hold and nobody does, it locks. What it holds and another should, it offers to that one, and goes on
collecting until that one collects it too: a pair that moves in good order loses nothing (sharing.py).

Out of the database's reach nobody can know who holds what. Missing data is worse than data twice (each chain is
complete in itself, each trade is stored once), so who collects goes on, and who waits begins after a while; on first
contact, whoever finds a pair locked by another lets go of it.

Who holds a pair also ends the runs of it that others left open and will not end any more.
"""

import math
import os
import socket
from collections.abc import Callable
from uuid import uuid4

import psycopg
import structlog
import trio

from collector.assignment import CHANNELS, Assignment
from collector.errors import StorageUnavailable
from collector.members import Member, owners
from collector.reach import Reach
from collector.settings import Settings
from collector.sharing import View
from collector.statistics import Statistics
from collector.storage import locks, members
from collector.storage.members import Presence
from collector.storage.spool import Spool
from collector.tasks.database import Session, open_session
from collector.tasks.lost_runs import LostRuns

# Seconds between two beats: with the session's idle timeout of 8 s, a pair whose holder froze is taken over within 10.
HEARTBEAT = 1.0
LEAVING_HEARTBEAT = 0.2  # seconds, for one that stops: each beat that it waits is one less to drain what it has
# Seconds from a new session, after one was lost, in which only what is collected already is locked. When the database
# starts again, all come back within a beat and a connection: the first one would take what the others collect.
RETURN_TIME = 3.0
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
    lost_at: float | None = -math.inf  # at the start nobody is known to be there
    while not locksmith.has_left:
        try:
            async with open_session(settings.database_url.get_secret_value(), "collector: lock") as session:
                await session.call(locks.prepare)
                await locksmith.begin(session)
                while not locksmith.has_left:
                    await locksmith.beat()
                    lost_at = None
                    await _rest(stop)
        except (StorageUnavailable, psycopg.errors.UndefinedTable) as error:  # the flush task makes the tables
            if stop.is_set():
                return
            # It counts from the first failure, not from the last success: a process that was frozen was not alone.
            lost_at = trio.current_time() if lost_at is None else lost_at
            if trio.current_time() - lost_at >= ALONE_AFTER:
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
        self._has_told_of_pooler = False
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

    async def begin(self, session: Session) -> None:
        """Go on with a new session, which holds nothing yet."""
        await session.call(members.end_former_session, self._member.identity)
        await session.call(members.forget_dead)
        self._session = session
        self._process: int | None = None  # the server's, of this session
        self._held_since: dict[str, float] = {}
        # At its start a process takes what it finds free; one that lost its session lets others come back to theirs.
        self._claims_from = trio.current_time() + (RETURN_TIME if self._members else 0.0)

    async def beat(self) -> None:
        """Say that this process is there; lock, offer, take and let go of what is due."""
        session, wanted, me = self._session, self._assignment.wanted.value, self._member.identity
        leaves = self._stop.is_set()  # read once: who is told to stop within a beat has not said so to the others yet
        self._members, handovers = await session.call(members.report, self._presence(leaves=leaves))
        view = View(me, wanted, self._members, handovers)
        claims = trio.current_time() >= self._claims_from
        await self._lock(view.to_lock(self._held_since, self._assignment.pairs.value, claims=claims))
        await self._look_at_session()
        plan = view.plan(self._held_since, self._collected())
        self._assign(plan.collect)
        await self._let_go(plan.release)
        if plan.offers != view.offers:
            await session.call(members.offer, me, plan.offers)
        if plan.take:
            await session.call(members.take, me, plan.take)
        await self._lost_runs.look(session, self._held_since)
        if leaves and plan.is_over:
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

    def _presence(self, *, leaves: bool) -> Presence:
        now, rows = trio.current_time(), self._statistics.rows
        pairs = self._assignment.pairs.value
        (before, rows_before), self._rows = self._rows, (now, rows)
        assignment = self._assignment
        is_available = (
            self._reach.look(now, self._statistics.frames, listens=bool(pairs))
            and bool(assignment.wanted.value)  # without the exchange's list, what it should hold it does not know
            and assignment.channels.value == CHANNELS  # a spool without room takes nothing more
            and not leaves
        )
        return Presence(
            Member(self._member.identity, self._member.patterns, is_available),
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

    async def _look_at_session(self) -> None:
        """Tell a person, once, when the locks are not on a session of this process's own."""
        process, holds = await self._session.call(locks.session_of, self._held_since)
        self._process = self._process or process
        if self._has_told_of_pooler or (holds and process == self._process):
            return
        self._has_told_of_pooler = True
        log.error(
            "locks_do_not_hold",
            session_changed=process != self._process,
            what_to_do="let DATABASE_URL lead to PostgreSQL itself, or to a pooler in session mode: one in transaction"
            " mode keeps no locks, so that two collectors would collect the same pairs",
        )

    async def _let_go(self, pairs: frozenset[str]) -> None:
        if pairs:
            await self._session.call(locks.unlock, pairs)
            for pair in pairs:
                del self._held_since[pair]
