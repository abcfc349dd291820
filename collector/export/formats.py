"""The formats of files: CSV, JSON Lines, Parquet. A writer takes blocks of CSV; nothing is rounded.

A Parquet file holds its document as its metadata, under the key `collector`. The other two have no place for one:
theirs lies beside them, in a file whose name begins with `_`, which readers of whole folders pass over.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from collector.export import document
from collector.export.document import Document
from collector.history.columns import Block, Column, fields, json_writers

FORMATS = ("parquet", "csv", "jsonl")


class Writer(Protocol):
    """Writes the rows of one file, from its beginning on."""

    def write(self, block: Block) -> None:
        """Write some rows."""

    def finish(self, document: Document) -> None:
        """Write what is left, and the document if it has a place in the file."""

    def abandon(self) -> None:
        """Let go of what is held; the file will be removed."""


class Format(NamedTuple):
    """A format.

    Attributes:
        suffix: how the names of its files end.
        open: makes a writer of a file that is open for writing.
        read_document: what a file says of itself; None of one that was not written here.
        has_sidecar: whether the document lies beside the file.

    """

    suffix: str
    open: Callable[[BinaryIO, Sequence[Column]], Writer]
    read_document: Callable[[Path], Document | None]
    has_sidecar: bool


def make_format(name: str) -> Format:
    """A format by its name, one of `FORMATS`.

    Raises:
        ModuleNotFoundError: Parquet needs pyarrow, which is not installed.

    """
    if name == "parquet":
        from collector.export import parquet  # noqa: PLC0415 - the other formats do without pyarrow

        return Format("parquet", parquet.ParquetWriter, parquet.read_document, has_sidecar=False)
    writers: dict[str, type[CsvWriter | JsonLinesWriter]] = {"csv": CsvWriter, "jsonl": JsonLinesWriter}
    return Format(name, writers[name], read_sidecar, has_sidecar=True)


def sidecar(path: Path) -> Path:
    """Where the document of a file without a place for it lies."""
    return path.with_name(f"_{path.name}.json")


def read_sidecar(path: Path) -> Document | None:
    """The document beside a file."""
    beside = sidecar(path)
    return document.decode(beside.read_bytes()) if beside.exists() else None


class CsvWriter:
    """RFC 4180, but for its newlines, with a header: numbers as stored, no value as an empty field."""

    def __init__(self, file: BinaryIO, columns: Sequence[Column]) -> None:
        self._file = file
        file.write(",".join(column.name for column in columns).encode() + b"\n")

    def write(self, block: Block) -> None:
        """Write some rows."""
        self._file.write(block.text)

    def finish(self, document: Document) -> None:
        """Nothing is left: every row is written as it comes."""

    def abandon(self) -> None:
        """Nothing is held."""


class JsonLinesWriter:
    """One JSON object a line: numbers with every digit that is stored, no value as null."""

    def __init__(self, file: BinaryIO, columns: Sequence[Column]) -> None:
        self._file = file
        self._writers = json_writers(columns)
        self._line = "{{" + ",".join(f'"{column.name}":{{}}' for column in columns) + "}}\n"

    def write(self, block: Block) -> None:
        """Write some rows."""
        writers, line = self._writers, self._line
        lines = [line.format(*[write(text) for write, text in zip(writers, row, strict=True)]) for row in fields(block)]
        self._file.write("".join(lines).encode())

    def finish(self, document: Document) -> None:
        """Nothing is left: every row is written as it comes."""

    def abandon(self) -> None:
        """Nothing is held."""
