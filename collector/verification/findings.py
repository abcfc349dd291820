"""What a verification finds: counts by pair, and the first findings with what is wrong and where.

Invariant: everything that is wrong is counted; only the first `MAX_FINDINGS` findings are kept, so that memory does
not grow with the damage.
"""

from collections import Counter
from typing import Literal, TypeAlias

import msgspec

MAX_FINDINGS = 100  # kept and told; who has more than these mends the first ones and verifies again

Kind: TypeAlias = Literal[
    "trade_hole",  # trade ids that are neither stored nor recorded as absent
    "trade_repeat",  # a trade id that is stored more than once
    "seq_hole",  # rows of a chain that are not stored
    "seq_repeat",  # a row of a chain that is stored more than once
    "checksum",  # rows after which the book is not the one whose checksum they carry
    "crossed",  # rows after which the best bid reaches the best ask
    "checkpoint",  # a snapshot of the collector's own that is not the book that the rows before it make
    "evicted",  # rows that don't tell what the cut to the collected depth removed
    "unreadable",  # rows that are not what the collector writes
    "no_snapshot",  # rows before the first snapshot of their chain
    "suspect",  # a run of which an audit found the book wrong below its ten best levels
    "coverage",  # a run that says something else than its rows
    "rows_without_coverage",
    "coverage_without_rows",
]
COVERAGE_KINDS: tuple[Kind, ...] = ("coverage", "rows_without_coverage", "coverage_without_rows")


class Finding(msgspec.Struct, frozen=True):
    """Something that is wrong.

    Attributes:
        kind: of which sort.
        pair: in which pair.
        chain: in which run; None for trades.
        seq: at which row of it (the first, where there are several), or which trade id.
        time: when by Kraken's clock, in UTC, as PostgreSQL writes it; None where nothing tells. Of what is missing it
            is the time of what is stored beside it: the trade before, the row behind.
        what: what is wrong, for a person.

    """

    kind: Kind
    pair: str
    chain: int | None
    seq: int | None
    time: str | None
    what: str


class PairTally(msgspec.Struct):
    """What was checked of a pair, and how much of it is wrong.

    Attributes:
        pair: the pair.
        trades: trades whose ids were checked.
        absent_trades: ids that are recorded as absent at Kraken's, too, and so are no holes.
        missing_trades: ids in holes.
        unverifiable_trades: trades of an earlier collector, which have no id.
        book_rows: rows that were replayed.
        chains: runs of the book that were checked.
        unverifiable_book_rows: rows of an earlier collector, which belong to no chain.
        wrong: how often each kind of fault was found: holes, rows or runs.

    """

    pair: str
    trades: int = 0
    absent_trades: int = 0
    missing_trades: int = 0
    unverifiable_trades: int = 0
    book_rows: int = 0
    chains: int = 0
    unverifiable_book_rows: int = 0
    wrong: Counter[Kind] = msgspec.field(default_factory=Counter)

    @property
    def is_empty(self) -> bool:
        """Whether nothing of the pair was found."""
        return not (self.trades or self.book_rows or self.chains or self.unverifiable or self.wrong)

    @property
    def unverifiable(self) -> int:
        """Rows that can neither be called right nor wrong."""
        return self.unverifiable_trades + self.unverifiable_book_rows


def counted(count: int, noun: str) -> str:
    """A count of things in words, such as `1 row` and `2 rows`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


class Findings:
    """All that a verification found.

    Attributes:
        tallies: by pair.
        kept: the first findings.
        total: how many findings there are.

    """

    def __init__(self) -> None:
        self.tallies: dict[str, PairTally] = {}
        self.kept: list[Finding] = []
        self.total = 0

    def of(self, pair: str) -> PairTally:
        """The counts of a pair."""
        if (tally := self.tallies.get(pair)) is None:
            tally = self.tallies[pair] = PairTally(pair)
        return tally

    def add(self, finding: Finding, count: int = 1) -> None:
        """Note something that is wrong, and how often it is."""
        self.total += 1
        self.of(finding.pair).wrong[finding.kind] += count
        if len(self.kept) < MAX_FINDINGS:
            self.kept.append(finding)
