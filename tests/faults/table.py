"""The table of faults: a line each, printed at the end of the run.

Tests run in several processes and the table is printed by another, so each line travels with its test's report, as a
property of plain values.
"""

from collections.abc import Container, Iterable, Sequence
from dataclasses import astuple, dataclass

PROPERTY = "fault"  # of a test's report: the values of a line

HEADINGS = (
    "fault",
    "sent",
    "expected",
    "stored",
    "lost",
    "unread",
    "duplicates",
    "coverage",
    "recovered (s)",
    "peak RSS (MB)",
)


@dataclass(frozen=True)
class Line:
    """What a fault cost.

    `sent` counts messages of data channels, `expected` and `stored` rows of both tables, `unread` what
    was on its way on a connection that broke, and so is in no count of the others. `coverage` tells how the runs
    ended and how many ended so; `seconds` passed from the fault's end until a row sent after it was stored, for every
    pair; `peak` is the largest resident set of any collector that took part, in MB.
    """

    fault: str
    sent: int
    expected: int
    stored: int
    lost: int
    unread: int
    duplicates: int
    coverage: str
    seconds: float
    peak: float


def render(lines: Iterable[Line]) -> list[str]:
    """The lines as text in columns."""
    rows = [HEADINGS] + [
        tuple(f"{value:.1f}" if isinstance(value, float) else str(value) for value in astuple(line)) for line in lines
    ]
    return columns(rows, words={HEADINGS.index("fault"), HEADINGS.index("coverage")})


def columns(rows: Sequence[Sequence[str]], words: Container[int]) -> list[str]:
    """Rows as text in columns; those that hold words begin on the left, numbers end on the right."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column in words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
