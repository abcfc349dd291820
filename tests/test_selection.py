"""What PAIRS and BOOK_DEPTH ask for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.kraken.pairs import BOOK_DEPTHS
from collector.selection import Selection, parse_depths

LISTED = ["BTC/USD", "ETH/USD", "BTC/EUR", "ETH/BTC"]
SYMBOLS = st.from_regex(r"[A-Z]{2,4}/[A-Z]{3}", fullmatch=True)


@pytest.mark.parametrize(
    ("patterns", "wanted"),
    [
        (("*",), {"BTC/USD", "ETH/USD", "BTC/EUR", "ETH/BTC"}),
        (("*/*",), {"BTC/USD", "ETH/USD", "BTC/EUR", "ETH/BTC"}),
        (("*/USD",), {"BTC/USD", "ETH/USD"}),
        (("BTC/*",), {"BTC/USD", "BTC/EUR"}),
        (("*/USD", "ETH/BTC"), {"BTC/USD", "ETH/USD", "ETH/BTC"}),
        (("ADA/GBP",), {"ADA/GBP"}),
        (("*/USD", "ADA/GBP"), {"BTC/USD", "ETH/USD", "ADA/GBP"}),
        (("*/GBP",), set()),
    ],
)
def test_patterns_stand_for_what_is_listed_and_names_for_themselves(
    patterns: tuple[str, ...], wanted: set[str]
) -> None:
    """Prevents a pair from being missed, collected unasked, or a misspelt name from vanishing without a word."""
    assert Selection(patterns, (("*", 10),)).wanted(LISTED) == wanted


@pytest.mark.parametrize(
    ("patterns", "needs_listing"), [(("BTC/USD",), False), (("BTC/USD", "*/EUR"), True), (("*",), True)]
)
def test_only_patterns_need_the_list_of_the_exchange(patterns: tuple[str, ...], needs_listing: bool) -> None:
    """Prevents a start for named pairs from waiting for a list that it does not need."""
    assert Selection(patterns, (("*", 10),)).needs_listing is needs_listing


def test_the_first_rule_that_fits_tells_the_depth() -> None:
    """Prevents a pair's book from being as deep as another rule says."""
    selection = Selection(("*",), parse_depths(" xbt/usd:1000, */EUR:25 ,*:100"))
    assert [selection.depth(pair) for pair in LISTED] == [1000, 100, 25, 100]


@given(SYMBOLS, st.sampled_from(BOOK_DEPTHS))
def test_one_depth_is_every_pairs_depth(pair: str, depth: int) -> None:
    """Prevents the plain number, which deployments use, from leaving a pair without a depth."""
    assert Selection((pair,), parse_depths(str(depth))).depth(pair) == depth


@pytest.mark.parametrize(
    "value", ["", "27", "deep", "BTC/USD:1000", "*:100,BTC/USD:1000", "*:27", "BTC:10,*:10", "a:b"]
)
def test_depths_that_leave_a_doubt_are_refused(value: str) -> None:
    """Prevents a pair without a depth, a rule that can never be reached last, and depths that Kraken refuses."""
    with pytest.raises(ValueError, match=r".*"):
        parse_depths(value)
