"""`export`: what was collected as files that other tools open, a day of a pair in each."""

import sys
from collections.abc import Iterable
from contextlib import closing
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

from collector import exit_status
from collector.commands.arguments import WrongUsage, read_choices, read_duration, read_pairs, told_in_one_line
from collector.commands.export_progress import open_progress, size_text
from collector.commands.stored_range import describe_range, read_range, refuse_unknown, refuse_unready
from collector.export.datasets import NAMES, make_datasets
from collector.export.exporting import Report, plan
from collector.export.exporting import export as write_files
from collector.export.files import UnusableTarget, UnwritableFile
from collector.export.formats import FORMATS, Format, make_format
from collector.export.notices import notices
from collector.history import DoesNotFit
from collector.history.spans import Span
from collector.kraken.pairs import BOOK_DEPTHS
from collector.settings import load_settings
from collector.storage.database import connect
from collector.storage.stored_rows import prepare_reading
from collector.storage.stored_runs import covered_span
from collector.storage.stored_trades import stored_pairs

__all__ = [
    "DEFAULT_EVERY",
    "DEFAULT_FORMAT",
    "DEFAULT_LEVELS",
    "DEFAULT_WHAT",
    "DEFAULT_WIDTH",
    "MOST_LEVELS",
    "export",
]

DEFAULT_WHAT = "trades,book"
DEFAULT_FORMAT = "parquet"
DEFAULT_WIDTH = "1m"
DEFAULT_LEVELS = 10
MOST_LEVELS = max(BOOK_DEPTHS)
DEFAULT_EVERY = "1s"

_ONE_DAY = timedelta(days=1)


@told_in_one_line
def export(
    out: Path,
    *,
    what: str = DEFAULT_WHAT,
    format_name: str = DEFAULT_FORMAT,
    pairs: str | None = None,
    since: str | None = None,
    until: str | None = None,
    width: str = DEFAULT_WIDTH,
    levels: int = DEFAULT_LEVELS,
    every: str = DEFAULT_EVERY,
) -> int:
    """Export some datasets of some pairs (comma lists; None: all pairs that are stored) in a range of time.

    Files that are finished already are left as they are. Returns the exit status: 0 all is written, 1 nothing is
    stored, rows are missing or a file cannot be written, 2 wrong usage.
    """
    span = read_range(since, until)
    file_format = _read_format(format_name)
    wanted = None if pairs is None else read_pairs("--pairs", pairs)
    available = make_datasets(width=_read_width(width), levels=levels, every=read_duration("--every", every))
    datasets = [available[name] for name in read_choices("--what", what, NAMES)]
    settings = load_settings()
    with closing(connect(settings.database_url.get_secret_value(), application_name="collector: export")) as connection:
        refuse_unready(connection)
        refuse_unknown(connection, wanted)
        prepare_reading(connection)
        chosen = stored_pairs(connection) if wanted is None else wanted
        bounds = Span(span.since, span.until)
        targets = plan(connection, datasets, chosen, bounds)
        if not targets:
            print(f"Nothing is stored {describe_range(span, covered_span(connection))}.", file=sys.stderr)
            return exit_status.FOUND_WRONG
        _tell(notices(connection, datasets, chosen, bounds))
        try:
            with open_progress(targets) as progress:
                report = write_files(connection, targets, file_format, out, progress)
        except UnusableTarget as error:
            raise WrongUsage(str(error)) from error
        except (UnwritableFile, DoesNotFit) as error:
            _tell([str(error), "Files that are finished stay; the same command goes on from there."])
            return exit_status.FOUND_WRONG
    _tell(report.missing)
    print(_summary(report, out))
    return exit_status.FOUND_WRONG if report.missing else exit_status.DONE


def _read_format(name: str) -> Format:
    (chosen,) = read_choices("--format", name, FORMATS, most=1)
    if chosen == "parquet" and find_spec("pyarrow") is None:
        raise WrongUsage(
            "--format: parquet needs pyarrow, which is not installed: run pip install pyarrow, or take csv or jsonl"
        )
    return make_format(chosen)


def _read_width(text: str) -> timedelta:
    width = read_duration("--width", text)
    if _ONE_DAY % width:
        raise WrongUsage(f"--width: got {text!r}; it takes a part of a day, such as 1s, 5m, 1h or 1d: files hold a day")
    return width


def _tell(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, file=sys.stderr)


def _summary(report: Report, out: Path) -> str:
    files, rows = ("file" if report.written == 1 else "files"), ("row" if report.rows == 1 else "rows")
    parts = [f"{report.written:,} {files} written: {report.rows:,} {rows}, {size_text(report.bytes)}"]
    if report.finished:
        parts.append(f"{report.finished:,} were finished already")
    if report.kept:
        parts.append(f"{report.kept:,} kept that hold more than is stored now")
    return f"{'; '.join(parts)}; in {out}"
