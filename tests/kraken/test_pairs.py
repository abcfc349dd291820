"""Names of pairs."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.kraken.pairs import BOOK_DEPTHS, nearest_symbols, parse_pairs, parse_patterns, v2_symbol


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("XBT/USD", "BTC/USD"),
        ("ETH/XBT", "ETH/BTC"),
        ("XDG/USD", "DOGE/USD"),
        ("XDG/XBT", "DOGE/BTC"),
        ("BTC/USD", "BTC/USD"),
        ("XBTC/USD", "XBTC/USD"),
        ("XTZ/EUR", "XTZ/EUR"),
    ],
)
def test_renamed_assets_only_on_whole_legs(name: str, symbol: str) -> None:
    """Prevents a v1 name, which v2 refuses, and the renaming of assets that only look alike."""
    assert v2_symbol(name) == symbol


def test_list_of_pairs_as_people_write_it() -> None:
    """Prevents spaces, case, doubles or an old name from becoming a second subscription, or none."""
    assert parse_pairs(" btc/usd, ETH/eur ,,XBT/USD,xdg/usd, ETH/EUR,") == ("BTC/USD", "ETH/EUR", "DOGE/USD")
    assert parse_pairs(["XBT/USD", "SHIB.S/USD"]) == ("BTC/USD", "SHIB.S/USD")


@pytest.mark.parametrize("value", ["", " , ", []])
def test_no_pair_at_all_is_refused(value: str | list[str]) -> None:
    """Prevents a start that collects nothing."""
    with pytest.raises(ValueError, match="no pair"):
        parse_pairs(value)


@pytest.mark.parametrize("name", ["BTCUSD", "BTC/USD/EUR", "BTC/", "/USD", "BTC USD", "BTC/USD;ETH/USD", "BTC/€"])
def test_what_names_no_pair_is_refused_by_its_name(name: str) -> None:
    """Prevents a start with a pair that can never be subscribed."""
    with pytest.raises(ValueError, match=re.escape(name)):
        parse_pairs(f"ETH/EUR,{name}")


@given(st.lists(st.from_regex(r"[A-Z0-9]{2,5}/[A-Z]{3,4}", fullmatch=True), min_size=1, max_size=8))
def test_parsing_again_changes_nothing(names: list[str]) -> None:
    """Prevents settings that read differently the second time."""
    pairs = parse_pairs(",".join(names))
    assert parse_pairs(pairs) == pairs
    assert parse_pairs(",".join(pairs)) == pairs
    assert list(pairs) == list(dict.fromkeys(map(v2_symbol, names)))


def test_nearest_symbols_are_what_was_meant() -> None:
    """Prevents an error message that leaves a person to guess."""
    known = ["BTC/USD", "BTC/USDT", "ETH/USD", "DOGE/EUR", "ADA/GBP"]
    assert nearest_symbols("BTC/UDS", known)[0] == "BTC/USD"
    assert len(nearest_symbols("BTC/USDC", known)) <= 3
    assert nearest_symbols("QQQQQQ", known) == []
    assert nearest_symbols("BTC/USD", []) == []


def test_depths_are_those_that_the_server_accepts() -> None:
    """Prevents a depth that Kraken refuses from passing the settings."""
    assert BOOK_DEPTHS == (10, 25, 100, 500, 1000)


def test_patterns_are_read_beside_pairs() -> None:
    """Prevents a pattern from being refused, and an old name within one from meaning an asset that v2 does not have."""
    assert parse_patterns("*/usd, XBT/*,btc/eur") == ("*/USD", "BTC/*", "BTC/EUR")
    assert parse_patterns("*") == ("*",)


@pytest.mark.parametrize("name", ["BTC*/USD", "*USD", "**", "*/", "*/*/*"])
def test_what_only_looks_like_a_pattern_is_refused(name: str) -> None:
    """Prevents a pattern that no pair can fit from starting a collector of nothing."""
    with pytest.raises(ValueError, match=re.escape(name)):
        parse_patterns(name)


@pytest.mark.parametrize("value", ["*", "*/USD"])
def test_a_pattern_is_no_pair(value: str) -> None:
    """Prevents a command that asks for one pair from taking a pattern for its name."""
    with pytest.raises(ValueError, match=re.escape(value)):
        parse_pairs(value)
