"""Which pairs are wanted, and how deep the book of each is to be: what PAIRS and BOOK_DEPTH say.

Pure. A pair that is named is wanted whether the exchange lists it or not, so that a name that it refuses is told; a
pattern stands for whatever the exchange lists.
"""

from collections.abc import Iterable
from typing import TypeAlias

import msgspec

from collector.kraken.pairs import ANY, BOOK_DEPTHS, fits, is_pattern, parse_patterns

DepthRule: TypeAlias = tuple[str, int]  # a pair or a pattern, and the levels of each side of its books


class Selection(msgspec.Struct, frozen=True):
    """The wanted pairs.

    Attributes:
        patterns: names and patterns of pairs.
        depths: rules of which the first that fits a pair tells its depth; the last one fits every pair.

    """

    patterns: tuple[str, ...]
    depths: tuple[DepthRule, ...]

    @property
    def named(self) -> frozenset[str]:
        """The pairs that are wanted by their name."""
        return frozenset(name for name in self.patterns if not is_pattern(name))

    @property
    def needs_listing(self) -> bool:
        """Whether only the exchange can tell what is wanted."""
        return any(map(is_pattern, self.patterns))

    def wanted(self, listed: Iterable[str]) -> frozenset[str]:
        """The pairs to collect where the exchange lists these."""
        return self.named | {pair for pair in listed if any(fits(pair, pattern) for pattern in self.patterns)}

    def depth(self, pair: str) -> int:
        """The levels of each side of a pair's book."""
        return next(depth for pattern, depth in self.depths if fits(pair, pattern))


def parse_depths(value: str | int) -> tuple[DepthRule, ...]:
    """Read a depth for all (`1000`), or a comma list of depths by pair and pattern (`BTC/USD:1000,*:100`).

    Raises:
        ValueError: a depth that Kraken does not offer, what is no pattern, or a list that leaves pairs without a depth.

    """
    rules = [_parse_rule(rule) for rule in str(value).split(",") if rule.strip()]
    if not rules or rules[-1][0] != ANY:
        raise ValueError("no depth for all other pairs at the end")
    return tuple(rules)


def _parse_rule(rule: str) -> DepthRule:
    pattern, _, depth = rule.rpartition(":")
    (name,) = parse_patterns(pattern or ANY)
    levels = int(depth)
    if levels not in BOOK_DEPTHS:
        raise ValueError(depth)
    return name, levels
