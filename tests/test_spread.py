"""How pairs are divided among sockets."""

from hypothesis import given
from hypothesis import strategies as st

from collector.spread import PAIRS_A_SOCKET, Spread

PAIRS = [f"P{number}/USD" for number in range(3 * PAIRS_A_SOCKET)]


@given(st.lists(st.sets(st.sampled_from(PAIRS)), min_size=1, max_size=6))
def test_every_pair_is_on_one_socket_and_stays_there(changes: list[set[str]]) -> None:
    """Prevents a pair that is subscribed twice, not at all, or that moves while its old subscription still ends."""
    spread = Spread()
    known: dict[str, int] = {}
    for wanted in changes:
        divided = spread.divide(wanted)
        assert sorted(pair for pairs in divided.values() for pair in pairs) == sorted(wanted)
        for socket, pairs in divided.items():
            assert len(pairs) <= PAIRS_A_SOCKET
            for pair in pairs:
                assert known.setdefault(pair, socket) == socket


def test_no_more_sockets_than_the_pairs_need() -> None:
    """Prevents a connection for each pair, which Kraken's limits would end."""
    assert list(Spread().divide(PAIRS)) == [0, 1, 2]
    assert list(Spread().divide(PAIRS[: PAIRS_A_SOCKET + 1])) == [0, 1]


def test_a_socket_that_lost_its_pairs_is_told_so() -> None:
    """Prevents a socket that keeps the pairs of which it was told last."""
    spread = Spread()
    spread.divide({"BTC/USD"})
    assert spread.divide(set()) == {0: frozenset()}
