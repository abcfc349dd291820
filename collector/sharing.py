"""What one of several processes does at a beat: which pairs it locks, collects, offers, takes and lets go of.

Pure. A pair that moves is held by its giver until its taker collects it:

1. the giver, which holds the lock, offers the pair to the member that should hold it;
2. the taker subscribes to it, and says that it collects it;
3. the giver unsubscribes and unlocks the pair, and takes the offer back, in this order;
4. the taker, which has tried to lock the pair at each of its beats, succeeds.

Offers are read before locks are tried. So a taker that sees the offer no more finds the lock free, unless the giver
has changed its mind and holds it still: then the taker lets go. An offer of one that is not there any more is none.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from collector.members import Member, owners


class Handover(NamedTuple):
    """A pair that `giver` holds until `taker` collects it."""

    pair: str
    giver: UUID
    taker: UUID
    is_taken: bool


class Plan(NamedTuple):
    """What is to be done, once it is known which pairs are held.

    Attributes:
        collect: the pairs to collect.
        release: those to unlock, once `collect` is carried out.
        offers: all that this member offers, each with its taker.
        take: those that were offered to this member, and that it collects now.
        is_over: whether nobody is waited for any more, so that a process that stops may go.

    """

    collect: frozenset[str]
    release: frozenset[str]
    offers: Mapping[str, UUID]
    take: frozenset[str]
    is_over: bool


class View:
    """What the member `me` knows at a beat: the `wanted` pairs, who is there, and the handovers that concern it."""

    def __init__(
        self, me: UUID, wanted: frozenset[str], members: Iterable[Member], handovers: Sequence[Handover]
    ) -> None:
        self._me = me
        self._wanted = wanted
        self._owners = owners(wanted, members)
        self._offered = [handover for handover in handovers if handover.taker == me and handover.pair in wanted]
        self.offers = {handover.pair: handover.taker for handover in handovers if handover.giver == me}
        self._taken = {
            handover.pair: handover.taker for handover in handovers if handover.giver == me and handover.is_taken
        }

    @property
    def own(self) -> frozenset[str]:
        """The pairs that this member should hold."""
        return frozenset(pair for pair, owner in self._owners.items() if owner == self._me)

    @property
    def guests(self) -> frozenset[str]:
        """The pairs that others hold, and offer to this member."""
        return frozenset(handover.pair for handover in self._offered)

    def to_lock(self, held: Iterable[str], collecting: frozenset[str], *, claims: bool) -> frozenset[str]:
        """The pairs to try to lock.

        What is collected without a lock is tried at each beat: whoever finds it locked by another lets go of it. One
        that does not `claim` tries nothing beyond that and what it is offered.
        """
        own = self.own if claims else frozenset[str]()
        return ((own | self.guests | collecting) & self._wanted).difference(held)

    def plan(self, held: Iterable[str], collected: frozenset[str]) -> Plan:
        """What to do while these pairs are locked, and of those that are `collected` both channels run."""
        mine = frozenset(held)
        takers = {
            pair: owner for pair in mine & self._wanted if (owner := self._owners.get(pair, self._me)) != self._me
        }
        taken = frozenset(pair for pair, taker in takers.items() if self._taken.get(pair) == taker)
        release = taken | mine - self._wanted
        told = frozenset(handover.pair for handover in self._offered if handover.is_taken)
        return Plan(
            collect=mine - release | self.guests,
            release=release,
            offers={pair: taker for pair, taker in takers.items() if pair not in taken},
            take=self.guests & collected - mine - told,
            is_over=not takers.keys() - taken,
        )
