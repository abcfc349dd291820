"""How the processes that collect into one database divide the pairs among themselves.

Pure. Each computes the same from the same list of members, by rendezvous hashing: a pair belongs to the member that
has the highest hash with it, so that a member that comes or goes moves its own pairs and no others. This says who
should hold a pair; who does hold it, its lock says.
"""

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from uuid import UUID

import msgspec

from collector.kraken.pairs import fits


class Member(msgspec.Struct, frozen=True):
    """A process that collects into the database.

    Attributes:
        identity: its own, from its start to its end.
        patterns: the pairs that it collects, if it is to.
        is_available: whether it may be given pairs: not while it stops, nor while it can collect nothing.

    """

    identity: UUID
    patterns: tuple[str, ...]
    is_available: bool = True

    def wants(self, pair: str) -> bool:
        """Whether it collects a pair, if it is to."""
        return any(fits(pair, pattern) for pattern in self.patterns)


def owners(pairs: Iterable[str], members: Iterable[Member]) -> Mapping[str, UUID]:
    """Who should hold each pair; a pair that no member wants is left out.

    Where no member that wants a pair is available, the one that is to hold it is found among all that want it: a
    Kraken that is out of everybody's reach is no reason to move anything.
    """
    everybody = sorted(members, key=lambda member: member.identity)
    owned: dict[str, UUID] = {}
    for pair in pairs:
        wanting = [member for member in everybody if member.wants(pair)]
        candidates = [member for member in wanting if member.is_available] or wanting
        if candidates:
            owned[pair] = max(candidates, key=lambda member: _weight(member.identity, pair)).identity
    return owned


def _weight(member: UUID, pair: str) -> bytes:
    return blake2b(pair.encode(), key=member.bytes, digest_size=8).digest()
