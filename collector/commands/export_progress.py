"""The bar of `export`, with rows and bytes: on a terminal, on stderr; elsewhere nothing is shown."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from collector.export.exporting import Progress as Advance
from collector.export.files import Target


def size_text(size: int) -> str:
    """A number of bytes for a person."""
    return decimal(size)


@contextmanager
def open_progress(targets: Sequence[Target]) -> Iterator[Advance]:
    """A bar that goes by the time of the files: how many rows there will be, nobody knows beforehand."""
    console = Console(stderr=True)
    bar = Progress(
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]:,} rows"),
        TextColumn("{task.fields[size]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    total = sum((target.until - target.since for target in targets), start=timedelta())
    written = [0, 0]
    with bar:
        task = bar.add_task("", total=total.total_seconds(), rows=0, size=decimal(0))

        def advance(rows: int, size: int, time: timedelta) -> None:
            written[0] += rows
            written[1] += size
            bar.update(task, advance=time.total_seconds(), rows=written[0], size=decimal(written[1]))

        yield advance
