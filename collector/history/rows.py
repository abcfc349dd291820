"""A result of `collector.history`: read when it is asked for, as Python values, as CSV or as Arrow."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from psycopg.pq import TransactionStatus

from collector.history.columns import Block, Column, fields, python_readers
from collector.storage.database import Connection

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_BYTES = 2**18  # of CSV that are held at once: some thousand rows, which cost next to nothing one by one

Row_co = TypeVar("Row_co", covariant=True)


class Rows(Generic[Row_co]):
    """Rows of one kind, read from the database each time that they are iterated over, with constant memory.

    A connection serves one such reading at a time: finish it, or open another connection beside it.

    Attributes:
        columns: name and kind of each column, in order.

    """

    def __init__(
        self,
        connection: Connection,
        columns: Sequence[Column],
        make: Callable[..., Row_co],
        read: Callable[[], Iterator[bytes]],
    ) -> None:
        self.columns = tuple(columns)
        self._connection = connection
        self._make = make
        self._read = read

    def __iter__(self) -> Iterator[Row_co]:
        """Each row as a Python value: prices and sizes as `Decimal` with every digit, times as aware UTC.

        Raises:
            StorageUnavailable: the database was lost on the way.
            RuntimeError: another result of the same connection is still being read.

        """
        readers = python_readers(self.columns)
        make: Callable[..., Any] = self._make
        for block in self.blocks():
            for row in fields(block):
                yield make(*[read(text) for read, text in zip(readers, row, strict=True)])

    def blocks(self) -> Iterator[Block]:
        """The rows as CSV without a header, in blocks of whole lines; errors as when iterated over."""
        if self._connection.pgconn.transaction_status == TransactionStatus.ACTIVE:
            raise RuntimeError(
                "another result of this connection is still being read: finish it, or open a second connection"
            )
        return _blocks(self._read())

    def to_arrow(self) -> "pa.Table":
        """All rows as an Arrow table, which needs pyarrow; prices and sizes are decimal128(38, 12).

        Raises:
            DoesNotFit: a number has more digits than that, and is not rounded.
            StorageUnavailable: the database was lost on the way.
            RuntimeError: another result of the same connection is still being read.

        """
        from collector.history import arrow  # noqa: PLC0415 - pyarrow is needed by nothing else here

        return arrow.table(self.columns, self.blocks())


def _blocks(lines: Iterable[bytes]) -> Iterator[Block]:
    held: list[bytes] = []
    size = 0
    for line in lines:
        held.append(line)
        size += len(line)
        if size >= BLOCK_BYTES:
            yield Block(b"".join(held), len(held))
            held, size = [], 0
    if held:
        yield Block(b"".join(held), len(held))
