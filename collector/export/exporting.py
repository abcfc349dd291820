"""An export: each file that is not finished yet is written, from what the database holds now.

Coverage is read before the rows, so that no file claims more than it has.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

from msgspec import structs

from collector.export.datasets import Dataset
from collector.export.document import LAYOUT, Covered, Document, covered_parts, encode, time_text
from collector.export.files import Target, days, locked, new_files, state
from collector.export.formats import Format, sidecar
from collector.history.chains import runs_in
from collector.history.columns import TIME_WIDTH, Block
from collector.history.spans import Span, within
from collector.storage.database import Connection
from collector.storage.stored_csv import count_trades, trade_times
from collector.storage.stored_runs import stored_runs
from collector.verification.checks import StoredRun

_ONE_DAY = timedelta(days=1)
# Takes the rows and the bytes that were written, and how far the writing has come in the time of its files, each since
# it was called last.
Progress = Callable[[int, int, timedelta], None]


@dataclass
class Report:
    """What an export has done.

    Attributes:
        written: files that were written.
        finished: files that were there already, with what is stored now.
        kept: files that were there already, with more than is stored now.
        rows: rows that were written.
        bytes: bytes of the files that were written.
        missing: a line for each place where rows of a book are missing from the database.

    """

    written: int = 0
    finished: int = 0
    kept: int = 0
    rows: int = 0
    bytes: int = 0
    missing: list[str] = field(default_factory=list)


def plan(connection: Connection, datasets: Sequence[Dataset], pairs: Sequence[str], span: Span) -> list[Target]:
    """The files that a range of some datasets and pairs makes: whole days where the range has no bound."""
    targets: list[Target] = []
    for pair in pairs:
        runs = stored_runs(connection, [pair], None, None)
        for dataset in datasets:
            stored = _stored_days(connection, pair, dataset.channel, runs)
            found = None if stored is None else within(span, *stored)
            if found is not None:
                targets += days(dataset, pair, found)
    return targets


def export(
    connection: Connection, targets: Sequence[Target], file_format: Format, folder: Path, progress: Progress
) -> Report:
    """Write the files that are not finished yet into a folder.

    No file is made of a time of which nothing is stored.

    Raises:
        UnusableTarget: something else is where a file should be; nothing is written then.
        UnwritableFile: a file could not be written; those before it are finished.
        DoesNotFit: a number is too long for the format; likewise.
        StorageUnavailable: the database was lost; likewise.

    """
    report = Report()
    with locked(folder):
        for target in targets:  # all of them, before anything is written
            state(target.path(folder, file_format.suffix), file_format, _document(target, []))
        for target in targets:
            _export_file(connection, target, file_format, folder, progress, report)
    return report


def _export_file(
    connection: Connection, target: Target, file_format: Format, folder: Path, progress: Progress, report: Report
) -> None:
    span = Span(target.since, target.until)
    document = _document(target, covered_parts(runs_in(connection, target.pair, span), target.dataset.channel, span))
    if target.dataset.channel == "trade":
        stored = count_trades(connection, target.pair, target.since, target.until)
        document = structs.replace(document, stored_trades=stored)
    path = target.path(folder, file_format.suffix)
    found = state(path, file_format, document)
    if found == "finished":
        report.finished += 1
    elif found == "kept":
        report.kept += 1
    elif document.coverage or document.stored_trades:
        _write(connection, target, document, file_format, path, progress=progress, report=report)
        return
    progress(0, 0, target.until - target.since)


def _write(
    connection: Connection,
    target: Target,
    document: Document,
    file_format: Format,
    path: Path,
    *,
    progress: Progress,
    report: Report,
) -> None:
    count, size, reached = 0, 0, target.since
    with new_files([sidecar(path), path] if file_format.has_sidecar else [path]) as (*beside, file):
        since, until = (bound.replace(tzinfo=UTC) for bound in (target.since, target.until))
        missing: list[str] = []
        rows = target.dataset.read(connection, target.pair, since, until, missing.append)
        writer = file_format.open(file, rows.columns)
        try:
            for block in rows.blocks():
                writer.write(block)
                begins = max(_first_time(block), reached)
                progress(block.rows, file.tell() - size, begins - reached)
                count, size, reached = count + block.rows, file.tell(), begins
            document = structs.replace(document, rows=count, missing=missing)
            writer.finish(document)
        except BaseException:
            writer.abandon()
            raise
        progress(0, file.tell() - size, target.until - reached)
        size = file.tell()
        for other in beside:
            other.write(encode(document) + b"\n")
    report.written += 1
    report.rows += count
    report.missing += missing
    report.bytes += size


def _document(target: Target, coverage: list[Covered]) -> Document:
    dataset = target.dataset
    return Document(
        LAYOUT,
        dataset.name,
        target.pair,
        time_text(target.since),
        time_text(target.until),
        dataset.options,
        coverage,
    )


def _first_time(block: Block) -> datetime:
    """The time of a block's first row, in UTC without a zone: every row begins with its time, in one width."""
    return datetime.fromisoformat(block.text[:TIME_WIDTH].decode()).replace(tzinfo=None)


def _stored_days(
    connection: Connection, pair: str, channel: str, runs: Iterable[StoredRun]
) -> tuple[datetime, datetime] | None:
    """The midnights around all that is stored of a pair's channel, or was watched; None where that is nothing."""
    moments = [
        datetime.fromisoformat(moment)
        for run in runs
        if run.channel == channel
        for moment in (run.started_at, run.last_at)
    ]
    if channel == "trade":
        moments += trade_times(connection, pair) or ()
    if not moments:
        return None
    first, last = (datetime.combine(moment.date(), time.min) for moment in (min(moments), max(moments)))
    return first, last + _ONE_DAY
