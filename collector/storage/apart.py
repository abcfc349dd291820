"""Rows that the database must not have: kept in files, one for each segment, with the reason, and nowhere else.

Each line of a file is a JSON object: the row's table, why it is there, and the row itself as COPY takes it.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from collector.storage.segments import Segment

FOLDER = "rejected"


@dataclass(frozen=True, slots=True)
class Apart:
    """What was set apart: of which pair, of which book run (None for a trade), why, and in which file.

    `reason` is what coverage tells of the run's end; `error` is PostgreSQL's where it rejected this row, else None.
    """

    pair: str
    chain: int | None
    reason: str
    error: str | None
    file: Path


class KeptRow(msgspec.Struct, frozen=True):
    """A line of such a file."""

    table: Literal["kraken_orderbook", "kraken_trades"]
    error: str
    line: str


def file_of(segment: Segment, directory: Path) -> Path:
    """The file of a segment's rows, in the folder of a spool."""
    return directory / FOLDER / f"{segment.header.spool}-{segment.header.number}.jsonl"


def keep(segment: Segment, directory: Path, rows: list[KeptRow]) -> Path:
    """Add rows to a segment's file, each once: shipping the segment may be tried many times."""
    path = file_of(segment, directory)
    path.parent.mkdir(exist_ok=True)
    known = set(path.read_bytes().splitlines(keepends=True)) if path.exists() else set()
    lines = [line for line in (msgspec.json.encode(row) + b"\n" for row in rows) if line not in known]
    with path.open("ab") as file:
        file.write(b"".join(lines))
        file.flush()
        os.fsync(file.fileno())
    return path
