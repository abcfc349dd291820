"""The members table: who collects into this database, and which pairs are on their way from one to another.

A member lives while the session lives on which it was last seen: PostgreSQL ends that when its process dies, and,
by the session's idle timeout, when it freezes. No clock but the database's is read.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple
from uuid import UUID

from collector.members import Member
from collector.storage.database import Connection


class Presence(NamedTuple):
    """What a member says of itself."""

    member: Member
    name: str
    pairs: list[str]
    rows_per_second: int
    waiting_rows: int


class Handover(NamedTuple):
    """A pair that `giver` holds until `taker` collects it."""

    pair: str
    giver: UUID
    taker: UUID
    is_taken: bool


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
_FORGET_OTHERS = f"DELETE FROM collector_members WHERE NOT {LIVING}"  # noqa: S608 - a constant
_HANDOVERS = "SELECT pair, giver, taker, is_taken FROM collector_handovers WHERE %(member)s IN (giver, taker)"
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


def forget_dead(connection: Connection) -> None:
    """Delete the members that are not there any more."""
    connection.execute(_FORGET_OTHERS)


def offer(connection: Connection, giver: UUID, takers: Mapping[str, UUID]) -> None:
    """Make these pairs, each for its taker, all that a member offers; an offer that stands is left as it is."""
    pairs = list(takers)
    with connection.transaction():
        connection.execute(_WITHDRAW, {"giver": giver, "pairs": pairs})
        connection.execute(_OFFER, {"giver": giver, "pairs": pairs, "takers": list(takers.values())})


def take(connection: Connection, taker: UUID, pairs: Iterable[str]) -> None:
    """Say that a member collects pairs that were offered to it."""
    connection.execute(_TAKE, [taker, list(pairs)])


def leave(connection: Connection, member: UUID) -> None:
    """Say that a member is gone, and offers nothing any more."""
    with connection.transaction():
        connection.execute("DELETE FROM collector_handovers WHERE giver = %s", [member])
        connection.execute("DELETE FROM collector_members WHERE member = %s", [member])
