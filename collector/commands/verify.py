"""`verify`: check what is stored: trades without holes, books that follow from their rows, coverage that is true.

Reads only, beside collectors that write: what they commit meanwhile is left for the next time.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from collector import exit_status
from collector.commands.arguments import read_pairs, told_in_one_line
from collector.commands.stored_range import describe_range, read_range, refuse_unknown, refuse_unready
from collector.commands.verify_repair import repair_stored
from collector.commands.verify_report import print_report, report_json
from collector.logs import configure_logs
from collector.settings import load_settings
from collector.storage import stored_rows, stored_trades
from collector.storage.database import Connection, connect
from collector.storage.stored_runs import book_runs, covered_span, stored_runs
from collector.verification.checks import (
    BookVerification,
    StoredRun,
    TimeRange,
    check_trade_ids,
    check_trade_runs,
    expected_rows,
)
from collector.verification.findings import Finding, Findings

PROGRESS_ROWS = 1000  # between two steps of the bar, which are read ahead: a hundred steps a second

Item = TypeVar("Item")


@told_in_one_line
def verify(
    pairs: str | None = None,
    since: str | None = None,
    until: str | None = None,
    *,
    repair: bool = False,
    as_json: bool = False,
) -> int:
    """Verify some pairs (a comma list; None: all that are stored) in a range of time; print what was found.

    `repair` first fills the holes in their trades that Kraken's REST can fill, in all of time.

    Returns the exit status: 0 nothing is wrong, 1 something is, or nothing could be verified, 2 wrong usage.
    """
    span = read_range(since, until)
    wanted = None if pairs is None else read_pairs("--pairs", pairs)
    settings = load_settings()
    connection = connect(settings.database_url.get_secret_value(), application_name="collector: verify")
    try:
        refuse_unready(connection)
        refuse_unknown(connection, wanted)
        if repair:
            configure_logs(settings)  # repair tells of what it does as the collector does
            repair_stored(settings, stored_trades.stored_pairs(connection) if wanted is None else wanted)
        with _progress() as progress:
            findings = verify_stored(connection, wanted, span, progress)
        covered = covered_span(connection)
    finally:
        connection.close()
    if all(tally.is_empty for tally in findings.tallies.values()):
        print(f"Nothing is stored {describe_range(span, covered)}.", file=sys.stderr)
        return exit_status.FOUND_WRONG
    if as_json:
        print(report_json(findings, span))
    else:
        print_report(findings)
    return exit_status.FOUND_WRONG if findings.total else exit_status.DONE


def verify_stored(connection: Connection, pairs: Sequence[str] | None, span: TimeRange, progress: Progress) -> Findings:
    """Verify trades and books of some pairs (None: of all) in a range.

    Raises:
        StorageUnavailable: the database was lost on the way.

    """
    findings = Findings()
    stored_rows.prepare_reading(connection)
    runs = stored_runs(connection, pairs, span.since, span.until)
    for pair in stored_trades.stored_pairs(connection) if pairs is None else pairs:
        _verify_trades(connection, pair, span, findings, progress)
    check_trade_runs(runs, findings)
    _verify_books(connection, pairs, runs, span, findings, progress=progress)
    findings.kept = [_dated(connection, finding) for finding in findings.kept]
    return findings


def _verify_trades(connection: Connection, pair: str, span: TimeRange, findings: Findings, progress: Progress) -> None:
    tally = findings.of(pair)
    tally.unverifiable_trades = stored_trades.trades_without_id(connection, pair, span.since, span.until)
    found = stored_trades.trade_span(connection, pair, span.since, span.until)
    if found is None:
        return

    def counted() -> Iterator[int]:
        for trade_id in stored_trades.trade_ids(connection, pair, found):
            tally.trades += found.first <= trade_id < found.end
            yield trade_id

    task = progress.add_task(f"{pair} trades", total=found.after - found.before + 1)
    absent = stored_trades.absent_trades(connection, pair)
    check_trade_ids(pair, _shown(counted(), progress, task), absent, findings)
    progress.remove_task(task)


def _verify_books(
    connection: Connection,
    pairs: Sequence[str] | None,
    runs: Sequence[StoredRun],
    span: TimeRange,
    findings: Findings,
    *,
    progress: Progress,
) -> None:
    earlier = [run for run in runs if run.channel == "book" and span.begins_after(run.started_at)]
    snapshots = []
    if span.since is not None and earlier:
        begun = [(run.pair, run.chain, run.started_at) for run in earlier]
        snapshots = stored_rows.last_snapshots(connection, begun, span.since)
    starts = {(snapshot.pair, snapshot.chain): snapshot.seq for snapshot in snapshots}
    verification = BookVerification(runs, starts, span, findings)
    task = progress.add_task("order books", total=expected_rows(runs, span))
    if span.since is not None:
        verification.take(stored_rows.rows_since(connection, snapshots, span.since), in_range=False)
    for window in stored_rows.windows(connection, span.since, span.until):
        rows = stored_rows.book_rows(connection, window, pairs)
        verification.take(_shown(rows, progress, task))
    progress.remove_task(task)
    verification.finish(book_runs(connection, verification.unknown_chains()))
    whole = stored_rows.Window(span.since, span.until)
    for pair, count in stored_rows.rows_without_chain(connection, whole, pairs).items():
        findings.of(pair).unverifiable_book_rows = count


def _dated(connection: Connection, finding: Finding) -> Finding:
    """A finding about a trade id, with the time of that trade or of the one before it."""
    if finding.time is not None or finding.chain is not None or finding.seq is None:
        return finding
    return msgspec.structs.replace(finding, time=stored_trades.time_at(connection, finding.pair, finding.seq))


def _progress() -> Progress:
    """A bar on a terminal, nothing elsewhere; on stderr, so that the report can be piped."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _shown(items: Iterable[Item], progress: Progress, task: TaskID) -> Iterator[Item]:
    """The items, counted on the bar."""
    iterator = iter(items)
    while batch := list(islice(iterator, PROGRESS_ROWS)):
        yield from batch
        progress.advance(task, len(batch))
