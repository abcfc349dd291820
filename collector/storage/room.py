"""How much a spool may still take in. Pure.

Near its limit the spool gives up books first, which are nearly all of it, and keeps what is left for trades; nothing
that was received is ever deleted to make room.
"""

from typing import Literal, TypeAlias

Intake: TypeAlias = Literal["all", "trades", "nothing"]

WARN_SHARES = (0.5, 0.9)  # of the limit, at each of which somebody is told
BOOKS_SHARE = 0.9  # of the limit, from which on books are not taken in; the rest is the trades' margin
TRADES_SHARE = 0.99  # from which on nothing is
RESUME_SHARE = 0.7  # below which all is again: far enough below that it does not begin and stop in turns


class Room:
    """What a spool of limited size takes in; `warned` is the last share of it that was told."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.intake: Intake = "all"
        self._by_share: Intake = "all"  # apart, so that a disk that was full for a while leaves no trace
        self.warned = 0.0

    def update(self, used: int, *, disk_full: bool) -> Intake:
        """What to take in with `used` bytes in the spool."""
        share = used / self._limit
        if share >= TRADES_SHARE:
            self._by_share = "nothing"
        elif share >= BOOKS_SHARE:
            self._by_share = "trades"
        elif share < RESUME_SHARE:
            self._by_share = "all"
        self.intake = "nothing" if disk_full else self._by_share
        return self.intake

    def new_warning(self, used: int) -> float | None:
        """The share that has just been reached, if it is one to be told; each is told once until it is left again."""
        reached = max((share for share in WARN_SHARES if used >= share * self._limit), default=0.0)
        rising, self.warned = reached > self.warned, reached
        return reached if rising else None
