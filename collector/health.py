"""Whether a running collector is alive, and whether it does what it is there for. Pure: what is wrong, in words.

Alive is what a restart of the process could mend, and nothing else: while Kraken or PostgreSQL is away, a restart costs
coverage and mends nothing. Ready is that everything it should collect is being watched and stored.
"""

from collections.abc import Callable
from dataclasses import dataclass

from collector.assignment import CHANNELS, Assignment
from collector.books import Books
from collector.settings import Settings
from collector.statistics import Statistics
from collector.storage.spool import Spool

# Seconds that a run of the group must last to count as a good one: the longest backoff between two starts, and what
# the supervisor takes for stable.
STABLE_AFTER = 90.0
CRASHING_LIMIT = 300.0  # seconds of starts without a good run: the supervisor has tried some fifteen times then
# Seconds that segments may wait, beside FLUSH_INTERVAL: beyond what a slow commit or a failover takes.
WAITING_LIMIT = 30.0
PAIRS_NAMED = 10  # of those that are not watched; a probe's answer is read in a log


@dataclass(frozen=True, slots=True)
class Running:
    """What can be seen of a running collector; `current_books` gives None until the group of tasks has begun."""

    settings: Settings
    statistics: Statistics
    spool: Spool
    assignment: Assignment
    current_books: Callable[[], Books | None]

    def watched(self) -> set[tuple[str, str]]:
        """The pairs and channels of which verified data comes now."""
        books = self.current_books()
        return set() if books is None else {(run.pair, run.channel) for run in books.runs()}


def live_problems(running: Running, now: float) -> list[str]:
    """Why this process should be started anew; nothing while it should not. `now` is monotonic."""
    group = running.statistics.group
    crashing_for = group.last_at - group.unstable_since
    if now - group.last_at < STABLE_AFTER and crashing_for >= CRASHING_LIMIT:
        return [f"the tasks have been crashing for {crashing_for:.0f} s: see `crashed` in the log"]
    return []


def ready_problems(running: Running, now: float) -> list[str]:
    """What keeps it from collecting all that it should; nothing while it does, or stands by for another collector."""
    problems = []
    if running.spool.database is None:
        problems.append("PostgreSQL has not been reached yet: see `storage_unavailable` in the log")
    waiting = running.statistics.oldest_waiting(now)
    if waiting > WAITING_LIMIT + running.settings.flush_interval:
        segments = len(running.spool.sealed)
        problems.append(
            f"PostgreSQL takes nothing: {segments} segments wait in the spool, the oldest for {waiting:.0f} s"
        )
    taken_in = running.assignment.channels.value
    problems += [
        f"the spool is full: nothing of channel {channel} is taken in" for channel in sorted(CHANNELS - taken_in)
    ]
    wanted = {(pair, channel) for pair in running.assignment.pairs.value for channel in taken_in}
    unwatched = sorted(wanted - running.watched())
    problems += [f"{pair} {channel}: not watched" for pair, channel in unwatched[:PAIRS_NAMED]]
    if len(unwatched) > PAIRS_NAMED:
        problems.append(f"and {len(unwatched) - PAIRS_NAMED} more are not watched")
    return problems


def is_standing_by(running: Running) -> bool:
    """Whether there is nothing to collect, since another collector holds every pair.

    That is no problem: during a deploy the old worker may go only when the new one is ready.
    """
    return not running.assignment.pairs.value
