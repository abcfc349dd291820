"""How pairs are divided among processes."""

from collections import Counter
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.members import Member, owners

PAIRS = [f"A{number}/USD" for number in range(300)]
IDENTITIES = st.lists(st.uuids(), min_size=1, max_size=6, unique=True)


def everything(identity: UUID, *, is_available: bool = True) -> Member:
    return Member(identity, ("*",), is_available)


@given(IDENTITIES, st.randoms())
def test_all_members_compute_the_same(identities: list[UUID], random: object) -> None:
    """Prevents two members from both holding a pair for their own, or each for the other's."""
    members = [everything(identity) for identity in identities]
    shuffled = list(members)
    random.shuffle(shuffled)
    assert owners(PAIRS, shuffled) == owners(PAIRS, members)
    assert owners(PAIRS, members).keys() == set(PAIRS)


@given(st.lists(st.uuids(), min_size=2, max_size=6, unique=True))
def test_one_that_goes_moves_its_own_pairs_only(identities: list[UUID]) -> None:
    """Prevents the end of one process from costing the pairs of all others a hole."""
    members = [everything(identity) for identity in identities]
    before, after = owners(PAIRS, members), owners(PAIRS, members[1:])
    for pair in PAIRS:
        if before[pair] != identities[0]:
            assert after[pair] == before[pair]


def test_shares_are_about_equal() -> None:
    """Prevents one process from doing the work of all."""
    members = [everything(UUID(int=number)) for number in range(4)]
    counts = Counter(owners(PAIRS, members).values())
    assert min(counts.values()) > len(PAIRS) / 4 * 0.6
    assert max(counts.values()) < len(PAIRS) / 4 * 1.5


def test_a_pair_goes_to_one_that_wants_it() -> None:
    """Prevents a process with other PAIRS from being given one that it never collects."""
    first, second = Member(UUID(int=1), ("BTC/USD", "*/EUR")), Member(UUID(int=2), ("ETH/USD",))
    assert owners(["BTC/USD", "ETH/EUR", "ETH/USD", "ADA/GBP"], [first, second]) == {
        "BTC/USD": first.identity,
        "ETH/EUR": first.identity,
        "ETH/USD": second.identity,
    }


@pytest.mark.parametrize("available", [{0}, {1}, {0, 2}])
def test_pairs_go_to_available_members_only(available: set[int]) -> None:
    """Prevents a pair from being given to a process that stops, or that cannot reach Kraken."""
    members = [everything(UUID(int=number), is_available=number in available) for number in range(3)]
    assert {identity.int for identity in owners(PAIRS, members).values()} == available


def test_nothing_moves_while_nobody_is_available() -> None:
    """Prevents an outage of Kraken's, which all see, from shifting every pair."""
    identities = [UUID(int=number) for number in range(3)]
    assert owners(PAIRS, [everything(identity, is_available=False) for identity in identities]) == owners(
        PAIRS, [everything(identity) for identity in identities]
    )
