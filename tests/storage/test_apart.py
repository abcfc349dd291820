"""Rows that are set apart: each once in its segment's file, however often its shipping is tried."""

import json
from pathlib import Path
from uuid import UUID

from collector.storage.apart import KeptRow, file_of, keep
from collector.storage.segments import Header, Segment


def test_each_row_is_kept_once(tmp_path: Path) -> None:
    """Prevents retries from filling the disk with one row, and a later row from taking the place of an earlier one."""
    segment = Segment(Header(UUID(int=1), 7, None, 0), [], [], [], 0)
    rows = [KeptRow("kraken_orderbook", "row_rejected", f"row {number}\n") for number in (1, 11, 2)]
    for some in (rows[:2], rows, [], rows[1:]):
        assert keep(segment, tmp_path, some) == file_of(segment, tmp_path)
    (file,) = (tmp_path / "rejected").iterdir()
    assert file.name == f"{UUID(int=1)}-7.jsonl"
    assert [json.loads(line) for line in file.read_text().splitlines()] == [
        {"table": "kraken_orderbook", "error": "row_rejected", "line": row.line} for row in rows
    ]
