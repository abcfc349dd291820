"""Which socket a pair is subscribed on.

Pure. A pair keeps its socket for as long as the process runs, so that what it ends on one socket can never be confused
with what it begins on another.
"""

from collections.abc import Iterable

# Pairs of one socket. Kraken publishes no limit and says that one socket may take all; what bounds it is the cost of
# losing one: so many snapshots at once (70 kB each at depth 1000), so many books with a hole.
PAIRS_A_SOCKET = 100


class Spread:
    """Gives each pair a socket, by its number from 0, in the order of their first appearance."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def divide(self, pairs: Iterable[str]) -> dict[int, frozenset[str]]:
        """The pairs by socket, for every socket that ever had one; a socket may have none now."""
        for pair in sorted(pairs):
            self._places.setdefault(pair, len(self._places))
        wanted = frozenset(pairs)
        sockets: dict[int, set[str]] = {}
        for pair, place in self._places.items():
            sockets.setdefault(place // PAIRS_A_SOCKET, set()).update({pair} & wanted)
        return {socket: frozenset(of_socket) for socket, of_socket in sockets.items()}
