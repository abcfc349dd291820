"""Files of an export: where they lie, whether they are finished, and how they come to be, whole or not at all."""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from collector.export.datasets import Dataset
from collector.export.document import Document
from collector.export.formats import Format
from collector.history.spans import Span, parts

_ONE_DAY = timedelta(days=1)


class UnusableTarget(Exception):  # noqa: N818 - named by what happened, as the field does
    """Something else is where a file should be; the text says what to do."""


class UnwritableFile(Exception):  # noqa: N818 - named by what happened, as the field does
    """A file could not be written, as on a full disk; nothing of it is left."""


class Target(NamedTuple):
    """A file: a dataset of a pair, from a time up to before another of the same day, in UTC without a zone."""

    dataset: Dataset
    pair: str
    since: datetime
    until: datetime

    def path(self, folder: Path, suffix: str) -> Path:
        """Where it lies: a hive partition of its dataset."""
        name = self.dataset.name
        partition = f"pair={self.pair.replace('/', '-')}", f"date={self.since.date()}"
        return folder.joinpath(name, *partition, f"{name}.{suffix}")


def days(dataset: Dataset, pair: str, span: Span) -> Iterator[Target]:
    """The files of a range that has bounds, one for each day."""
    for begin, end in parts(span, _ONE_DAY):
        yield Target(dataset, pair, begin, end)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder, and keep other exports out of it.

    Raises:
        UnusableTarget: it is no folder, or another export is writing to it.
        UnwritableFile: it cannot be made.

    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except (FileExistsError, NotADirectoryError):
        raise UnusableTarget(f"{folder} is a file, or lies in one; an export goes into a folder") from None
    except OSError as error:
        raise UnwritableFile(f"{folder} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise UnusableTarget(f"another export is writing to {folder}") from None
    try:
        yield
    finally:
        os.close(handle)


def state(path: Path, file_format: Format, wanted: Document) -> Literal["missing", "finished", "outdated", "kept"]:
    """What is there of a file: nothing, all of it, less than is stored by now, or more: that is kept.

    Raises:
        UnusableTarget: it is something else.

    """
    if not path.exists():
        return "missing"
    found = file_format.read_document(path)
    if found is None:
        raise UnusableTarget(f"{path} is there already, and no export has written it: choose another folder by --out")
    if not wanted.is_of_same_file(found):
        raise UnusableTarget(
            f"{path} is there already with other content ({_difference(found, wanted)}): choose another folder by --out"
        )
    if wanted.says_the_same(found):
        return "finished"
    return "kept" if found.holds_more_than(wanted) else "outdated"


@contextmanager
def new_files(paths: Sequence[Path]) -> Iterator[list[BinaryIO]]:
    """Files that take their names, in this order, only when the block ends well; nothing is left of them otherwise.

    The last one is what the others are about: where it is there already, it goes before they come, so that it never
    lies beside what is not its own.

    Raises:
        UnwritableFile: as on a full disk.

    """
    partial = [path.with_name(f".{path.name}.partial") for path in paths]
    try:
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        try:
            with ExitStack() as stack:
                files: list[BinaryIO] = [stack.enter_context(path.open("wb")) for path in partial]
                yield files
                for file in files:
                    file.flush()
                    os.fsync(file.fileno())
            if len(paths) > 1:
                paths[-1].unlink(missing_ok=True)
            for written, path in zip(partial, paths, strict=True):
                written.replace(path)
        finally:
            for path in partial:
                path.unlink(missing_ok=True)
    except OSError as error:
        # pyarrow has its own text of what the system said.
        reason = error.strerror or str(error).splitlines()[0]
        raise UnwritableFile(f"{paths[-1]} cannot be written: {reason}") from error


def _difference(found: Document, wanted: Document) -> str:
    there = {"layout": found.layout, "since": found.since, "until": found.until, **found.options}
    here = {"layout": wanted.layout, "since": wanted.since, "until": wanted.until, **wanted.options}
    differing = [f"{name} {value}" for name, value in there.items() if here.get(name) != value]
    return ", ".join(differing) or f"{found.what} of {found.pair}"
