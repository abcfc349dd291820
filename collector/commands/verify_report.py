"""What `verify` prints: two tables and a list for a person, or one JSON document for a program."""

from collections.abc import Sequence

import msgspec
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from collector.verification.checks import TimeRange
from collector.verification.findings import COVERAGE_KINDS, Finding, Findings, Kind, PairTally, counted

# Columns where there is no terminal whose width could be asked for: a file or a pipe takes any table as it is.
WIDTH_OF_A_FILE = 200

_ROW_KINDS: tuple[Kind, ...] = (
    "seq_hole",
    "seq_repeat",
    "checksum",
    "crossed",
    "checkpoint",
    "evicted",
    "unreadable",
    "no_snapshot",
)
_TIME_NOTES: dict[Kind, str] = {
    "trade_hole": "The time of a trade_hole is that of the trade before it.",
    "seq_hole": "The time of a seq_hole is that of the row behind it.",
}


class _Document(msgspec.Struct):
    """The JSON document; `findings` are the first of `findings_total`."""

    ok: bool
    since: str | None
    until: str | None
    pairs: Sequence[PairTally]
    findings_total: int
    findings: Sequence[Finding]


def report_json(findings: Findings, span: TimeRange) -> str:
    """One JSON document, whose fields are those of `PairTally` and `Finding`."""
    since, until = (None if bound is None else f"{bound.isoformat()}Z" for bound in (span.since, span.until))
    document = _Document(not findings.total, since, until, _tallies(findings), findings.total, findings.kept)
    return msgspec.json.encode(document).decode()


def print_report(findings: Findings) -> None:
    """Two tables, of trades and of books, and what was found; columns count what is wrong, the list says how."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH_OF_A_FILE
    _print_tables(console, _tallies(findings))
    for finding in findings.kept:
        print(_line(finding))
    if findings.total > len(findings.kept):
        print(f"… and {findings.total - len(findings.kept)} more")
    for kind, note in _TIME_NOTES.items():
        if any(finding.kind == kind for finding in findings.kept):
            print(note)
    print(f"{counted(findings.total, 'finding')}." if findings.total else "Nothing is wrong.")


def _tallies(findings: Findings) -> list[PairTally]:
    return [tally for _, tally in sorted(findings.tallies.items())]


def _print_tables(console: Console, tallies: Sequence[PairTally]) -> None:
    trades = _table("Trades", "Checked", "Missing", "Absent", "Repeated", "Can't verify")
    books = _table("Order books", "Rows", "Wrong", "Chains", "Suspect", "Coverage", "Can't verify")
    for tally in tallies:
        wrong = tally.wrong
        trades.add_row(
            tally.pair,
            f"{tally.trades:,}",
            _wrong(tally.missing_trades),
            f"{tally.absent_trades:,}",
            _wrong(wrong["trade_repeat"]),
            f"{tally.unverifiable_trades:,}",
        )
        books.add_row(
            tally.pair,
            f"{tally.book_rows:,}",
            _wrong(sum(wrong[kind] for kind in _ROW_KINDS)),
            f"{tally.chains:,}",
            _wrong(wrong["suspect"]),
            _wrong(sum(wrong[kind] for kind in COVERAGE_KINDS)),
            f"{tally.unverifiable_book_rows:,}",
        )
    console.print(trades, books, sep="\n")


def _table(title: str, *counts: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("Pair", no_wrap=True)
    for count in counts:
        # Headings may break at a blank; a number is folded rather than cut short.
        table.add_column(count, overflow="fold", justify="right")
    return table


def _wrong(count: int) -> Text:
    return Text(f"{count:,}", style="bold red" if count else "")


def _line(finding: Finding) -> str:
    chain = "" if finding.chain is None else f" chain {finding.chain}"
    number = "id" if finding.chain is None else "seq"
    place = "" if finding.seq is None else f" {number} {finding.seq}"
    time = "" if finding.time is None else f" at {finding.time}"
    return f"{finding.kind}: {finding.pair}{chain}{place}{time}: {finding.what}"
