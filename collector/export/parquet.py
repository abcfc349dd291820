"""Parquet files. Needs pyarrow."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from collector.export.document import Document, decode, encode
from collector.history import arrow
from collector.history.columns import Block, Column

METADATA_KEY = b"collector"
# Of CSV: some 200,000 trades. Readers skip by row group and read one at a time, and one is what is held here.
ROW_GROUP_BYTES = 16 * 2**20


class ParquetWriter:
    """Prices and sizes are decimal(38, 12), times are UTC in microseconds; books are lists of prices and sizes."""

    def __init__(self, file: BinaryIO, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._writer = pq.ParquetWriter(file, arrow.schema(columns), compression="zstd")
        self._held: list[Block] = []
        self._held_bytes = 0

    def write(self, block: Block) -> None:
        """Take some rows; they are written a row group at a time.

        Raises:
            DoesNotFit: a number has too many digits.

        """
        self._held.append(block)
        self._held_bytes += len(block.text)
        if self._held_bytes >= ROW_GROUP_BYTES:
            self._write_row_group()

    def finish(self, document: Document) -> None:
        """Write what is left, and the document as the file's metadata."""
        if self._held:
            self._write_row_group()
        self._writer.add_key_value_metadata({METADATA_KEY: encode(document)})
        self._writer.close()

    def abandon(self) -> None:
        """Let go of what is held; it would be written when it is collected as garbage."""
        with suppress(OSError):  # a full disk stays full
            self._writer.close()

    def _write_row_group(self) -> None:
        table = arrow.table(self._columns, self._held)
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        self._held, self._held_bytes = [], 0


def read_document(path: Path) -> Document | None:
    """What a file says of itself; None of one that is no Parquet file, or was not written here."""
    try:
        metadata = pq.read_metadata(path).metadata or {}
    except (pa.ArrowInvalid, OSError):
        return None
    return decode(metadata.get(METADATA_KEY, b""))
