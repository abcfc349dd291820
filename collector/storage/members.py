"""The members table: who collects into this database, and which pairs are on their way from one to another.

A member lives while the session lives on which it was last seen: PostgreSQL ends that when its process dies, and,
by the session's idle timeout, when it freezes. No clock but the database's is read.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from collector.members import Member
from collector.sharing import Handover
from collector.storage.database import Connection

FORMER_LOOKS = 20  # at a former session that was told to end: it takes milliseconds, unless its host is overloaded
FORMER_LOOK_INTERVAL = 0.05  # seconds


class CollectorState(NamedTuple):
    """What a process that collects into the database said of itself a moment ago; see the table's comments."""

    name: str
    is_available: bool
    pairs: list[str]
    rows_per_second: int
    waiting_rows: int
    started_at: datetime


class Presence(NamedTuple):
    """What a member says of itself."""

    member: Member
    name: str
    pairs: list[str]
    rows_per_second: int
    waiting_rows: int


_REPORT = """
INSERT INTO collector_members AS members
    (member, name, patterns, is_available, pairs, rows_per_second, waiting_rows, started_at, seen_at,
     session_process, session_started_at)
SELECT %(member)s, %(name)s, %(patterns)s, %(is_available)s, %(pairs)s, %(rows_per_second)s, %(waiting_rows)s,
       timezone('UTC', clock_timestamp()), timezone('UTC', clock_timestamp()), pid, timezone('UTC', backend_start)
FROM pg_stat_activity WHERE pid = pg_backend_pid()
ON CONFLICT (member) DO UPDATE
SET is_available = excluded.is_available, pairs = excluded.pairs, rows_per_second = excluded.rows_per_second,
    waiting_rows = excluded.waiting_rows, seen_at = excluded.seen_at,
    session_process = excluded.session_process, session_started_at = excluded.session_started_at
"""
LIVING = """
EXISTS (
    SELECT FROM pg_stat_activity
    WHERE pid = session_process AND timezone('UTC', backend_start) = session_started_at
)
"""
_MEMBERS = f"SELECT member, patterns, is_available FROM collector_members WHERE {LIVING}"  # noqa: S608 - a constant
_COLLECTORS = f"""
SELECT name, is_available, pairs, rows_per_second, waiting_rows, started_at
FROM collector_members WHERE {LIVING} ORDER BY started_at, name
"""  # noqa: S608 - a constant
_FORGET_OTHERS = f"DELETE FROM collector_members WHERE NOT {LIVING}"  # noqa: S608 - a constant
# One that died before it could take its offers back offers nothing: its taker would collect beside the next holder.
_HANDOVERS = f"""
SELECT pair, giver, taker, is_taken FROM collector_handovers JOIN collector_members ON member = giver
WHERE %(member)s IN (giver, taker) AND {LIVING}
"""  # noqa: S608 - a constant
_FORGET_OFFERS = """
DELETE FROM collector_handovers WHERE NOT EXISTS (SELECT FROM collector_members WHERE member = giver)
"""
# Writers one after the other: giver and taker change the same rows, and each in its own order would wait for the other.
_ONE_WRITER = "LOCK TABLE collector_handovers IN SHARE ROW EXCLUSIVE MODE"
_END_FORMER = f"""
SELECT pg_terminate_backend(session_process) FROM collector_members
WHERE member = %s AND session_process <> pg_backend_pid() AND {LIVING}
"""  # noqa: S608 - a constant
_WITHDRAW = "DELETE FROM collector_handovers WHERE giver = %(giver)s AND NOT pair = ANY (%(pairs)s)"
_OFFER = """
INSERT INTO collector_handovers AS handovers (pair, giver, taker, is_taken)
SELECT pair, %(giver)s, taker, FALSE FROM unnest(%(pairs)s::text[], %(takers)s::uuid[]) AS offered (pair, taker)
ON CONFLICT (pair) DO UPDATE SET giver = excluded.giver, taker = excluded.taker, is_taken = FALSE
WHERE (handovers.giver, handovers.taker) <> (excluded.giver, excluded.taker)
"""
_TAKE = "UPDATE collector_handovers SET is_taken = TRUE WHERE taker = %s AND pair = ANY (%s)"


def report(connection: Connection, presence: Presence) -> tuple[list[Member], list[Handover]]:
    """Say that a member is there; return all who are, itself among them, and the handovers that it has a part in."""
    member = presence.member
    with connection.transaction():
        connection.execute(
            _REPORT,
            {
                "member": member.identity,
                "name": presence.name,
                "patterns": list(member.patterns),
                "is_available": member.is_available,
                "pairs": presence.pairs,
                "rows_per_second": presence.rows_per_second,
                "waiting_rows": presence.waiting_rows,
            },
        )
        members = [
            Member(identity, tuple(patterns), is_available)
            for identity, patterns, is_available in connection.execute(_MEMBERS)
        ]
        handovers = [Handover(*row) for row in connection.execute(_HANDOVERS, {"member": member.identity})]
    return members, handovers


def living_collectors(connection: Connection) -> list[CollectorState]:
    """What each member that lives said of itself, the oldest first.

    A role that is neither theirs nor a member of pg_read_all_stats sees none of them live.
    """
    return [CollectorState(*row) for row in connection.execute(_COLLECTORS)]


def forget_dead(connection: Connection) -> None:
    """Delete the members that are not there any more, and what they offered."""
    with connection.transaction():
        connection.execute(_ONE_WRITER)
        connection.execute(_FORGET_OTHERS)
        connection.execute(_FORGET_OFFERS)


def end_former_session(connection: Connection, member: UUID) -> None:
    """End the session that a member was last seen on, and wait until its locks are free, for a second at the most.

    The server may not know yet that a connection broke: the member would take its own locks for another's.
    """
    for _ in range(FORMER_LOOKS):
        if not connection.execute(_END_FORMER, [member]).fetchall():
            return
        connection.execute("SELECT pg_sleep(%s)", [FORMER_LOOK_INTERVAL])


def offer(connection: Connection, giver: UUID, takers: Mapping[str, UUID]) -> None:
    """Make these pairs, each for its taker, all that a member offers; an offer that stands is left as it is."""
    pairs = list(takers)
    with connection.transaction():
        connection.execute(_ONE_WRITER)
        connection.execute(_WITHDRAW, {"giver": giver, "pairs": pairs})
        connection.execute(_OFFER, {"giver": giver, "pairs": pairs, "takers": list(takers.values())})


def take(connection: Connection, taker: UUID, pairs: Iterable[str]) -> None:
    """Say that a member collects pairs that were offered to it."""
    with connection.transaction():
        connection.execute(_ONE_WRITER)
        connection.execute(_TAKE, [taker, list(pairs)])


def leave(connection: Connection, member: UUID) -> None:
    """Say that a member is gone, and offers nothing any more."""
    with connection.transaction():
        connection.execute(_ONE_WRITER)
        connection.execute("DELETE FROM collector_handovers WHERE giver = %s", [member])
        connection.execute("DELETE FROM collector_members WHERE member = %s", [member])
