"""The spool: numbered segments in a folder, the only road to the database.

Whatever is appended is in a file before `append` returns, so that it survives the end of this process by any means;
a segment is fsynced when it is sealed, so that it survives a power cut too. Nothing is deleted before the database
has it.

The highest segment in the folder is always the one being written: a new one is made before the old one can be
shipped and deleted. So the numbering goes on where it was however the process ended, without a file of its own.
"""

import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self
from uuid import UUID, uuid4

import structlog

from collector.errors import UnusableSpool
from collector.records import BookRow, Coverage, Record, Trade
from collector.storage.folder_lock import hold_folder
from collector.storage.reserve import Reserve
from collector.storage.segments import Header, Segment, encode_header, encode_records, read_segment

_SUFFIX = ".segment"
_NUMBER_WIDTH = 20  # digits: names sort as their numbers do
_ROWS = (BookRow, Trade)

_SEE_DISK = "nothing after a power cut; else have a look at the disk: what can't be read is kept in the folder damaged"

log = structlog.get_logger()


class Sealed(NamedTuple):
    """A segment that waits to be shipped: its rows (0 where an earlier process left it) and its size in bytes."""

    rows: int
    size: int


class Spool:
    """A folder of segments, held by one process at a time.

    Attributes:
        reserve: disk space that is kept for what must be written on a full disk.
        identity: by which the database knows the spool.
        database: the database that new segments belong to, None until one was met.
        last_chain: the highest chain number that the spool has seen.
        sealed: the segments that wait to be shipped, in order of their numbers.
        number: the number of the segment being written, above that of every other.
        bytes: the size of all segments.
        first_number: the number of the first segment of this process.
        synced_to: the number up to which sealed segments outlast a power cut. Only these may be shipped: one that is
            deleted while an earlier one could still be lost would let its number come again.
        renamed_from: the number from which on segments are shipped under this identity, whatever is in them.
        successor: a database that was met in the place of `database`, for whose rows a new spool is to begin.
        open_bytes: bytes in the segment being written, beside its header.
        open_rows: trades and book rows in it.
        rows: trades and book rows that were appended since the folder was taken.

    """

    def __init__(self, directory: Path, lock: int) -> None:
        self.directory = directory
        self.reserve = Reserve(directory)
        self.database: UUID | None = None
        self.last_chain = 0
        self.sealed: dict[int, Sealed] = {}
        self.bytes = 0
        self.open_bytes = 0
        self.open_rows = 0
        self.rows = 0
        self.identity = uuid4()
        self.first_number = 0
        self.synced_to = 0
        self.renamed_from: int | None = None
        self.successor: UUID | None = None
        self._lock = lock
        self.number = 0
        self._file = -1
        self._open_size = 0
        self._unwritten: list[Record] = []

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Take the folder, made where it is missing, with all that an earlier process left in it.

        Raises:
            UnusableSpool: another process holds it, or it cannot be written to.

        """
        try:
            directory.mkdir(parents=True, exist_ok=True)
            spool = cls(directory, hold_folder(directory))
            try:
                spool._recover()
                spool.reserve.release()
                spool._begin_segment()
                spool.first_number = spool.number
            except BaseException:
                os.close(spool._lock)
                raise
        except OSError as error:
            raise UnusableSpool(f"SPOOL_DIR {directory}: {error.strerror}; it takes a folder to write to") from error
        return spool

    @property
    def waiting_rows(self) -> int:
        """Rows of this process that are appended and not shipped."""
        return self.open_rows + sum(segment.rows for segment in self.sealed.values())

    @property
    def is_behind(self) -> bool:
        """Whether records are kept that could not be written yet."""
        return bool(self._unwritten)

    @property
    def shippable(self) -> int:
        """How many segments may be shipped."""
        return sum(number <= self.synced_to for number in self.sealed)

    def close(self) -> None:
        """Let go of the folder; what is in it waits for the next process."""
        os.close(self._file)
        os.close(self._lock)

    def append(self, records: list[Record]) -> None:
        """Write records to the open segment, all or none.

        Raises:
            OSError: they could not be written; they are kept, and written first by the next call.

        """
        self._unwritten += records
        if not self._unwritten:
            return
        self._write(encode_records(self._unwritten))
        proofs = [record for record in self._unwritten if not isinstance(record, _ROWS)]
        rows = len(self._unwritten) - len(proofs)
        self.rows += rows
        self.open_rows += rows
        self.last_chain = max([self.last_chain, *_chains(proofs)])
        self._unwritten = []

    def seal(self) -> int | None:
        """Go on in a new segment; return the old one's file for `sync`, None where there is nothing in it yet."""
        return self._go_on() if self.open_bytes else None

    def _go_on(self) -> int:
        number, file, sealed = self.number, self._file, Sealed(self.open_rows, self._open_size)
        self._begin_segment()
        self.sealed[number] = sealed
        return file

    @staticmethod
    def sync(file: int) -> None:
        """Make a sealed segment outlast a power cut. Blocks for the disk: for a worker thread."""
        try:
            os.fsync(file)
        finally:
            os.close(file)

    def read(self, number: int) -> Segment | None:
        """Read a sealed segment; None where there is none to ship, since it is shipped already or damaged throughout.

        A damaged one is moved aside, so that it holds up nothing.
        """
        path = self._path(number)
        try:
            data = path.read_bytes()
        except FileNotFoundError:  # by a call that was given up, and finished all the same
            return None
        segment = read_segment(data)
        if not data:  # the power went before any of it was on the disk; the next one shows that it is missing
            self.delete(number)
        elif segment is None:
            target = self.set_damaged_apart(number)
            log.error("segment_damaged", segment=number, bytes=len(data), moved_to=str(target), what_to_do=_SEE_DISK)
        elif segment.torn:
            log.error("segment_torn", segment=number, bytes_lost=segment.torn, what_to_do=_SEE_DISK)
        return segment

    def set_damaged_apart(self, number: int) -> Path:
        """Move a damaged segment into a folder for a person to look at: what is in it is nowhere else."""
        return self._aside(number, "damaged")

    def set_apart(self, number: int, database: UUID) -> None:
        """Move a segment that belongs to another database into a folder named by it, which is a spool of its own.

        This spool goes on under a new identity (see `belongs_to`).
        """
        self.identity = uuid4()
        target = self._aside(number, f"of-database-{database}")
        log.error(
            "segment_of_another_database",
            segment=number,
            moved_to=str(target),
            what_to_do="run the collector with that database's DATABASE_URL and this folder as SPOOL_DIR to ship it",
        )

    def delete(self, number: int) -> None:
        """Remove the file of a segment that the database has."""
        self._path(number).unlink(missing_ok=True)

    def forget(self, number: int) -> None:
        """Count a segment no more whose file is gone."""
        self.bytes -= self.sealed.pop(number).size

    def disk_free(self) -> int:
        """Bytes that are free on the disk."""
        disk = os.statvfs(self.directory)
        return disk.f_bavail * disk.f_frsize

    def belongs_to(self, database: UUID) -> None:
        """Note the database that segments belong to from now on.

        After another one, what follows is a new spool: the other database's segments keep their identity, under which
        they can still be shipped to where they belong, and neither ever takes a number of the one for one of the
        other.
        """
        before, self.database = self.database, database
        if before not in (None, database):
            self._begin_anew(before)
        self.successor = None

    def start_over(self) -> None:
        """Number anew: the database has numbers of this process already, from another life of this folder.

        So it is with a folder that was restored from a backup, or copied. What this process has sealed until now is
        shipped under the new identity, too.
        """
        self._begin_anew(self.database)
        self.renamed_from = self.first_number

    def _begin_anew(self, database_before: UUID | None) -> None:
        """Go on as a new spool, in a segment whose header says so."""
        identity_before, self.identity = self.identity, uuid4()
        number = self.number
        try:
            self.sync(self._go_on())
            self.synced_to = number
        except OSError:
            self.identity, self.database = identity_before, database_before
            raise

    def _aside(self, number: int, folder: str) -> Path:
        target = self.directory / folder
        target.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):  # moved already, by a call that was given up and finished all the same
            self._path(number).rename(target / self._path(number).name)
        return target

    def _recover(self) -> None:
        """Take over the segments in the folder."""
        numbers = sorted(int(path.stem) for path in self.directory.glob(f"*{_SUFFIX}") if path.stem.isdecimal())
        if numbers and not self._path(numbers[-1]).stat().st_size:  # made just when the process or the power went
            self.number = numbers.pop() - 1
        self.sealed = {number: Sealed(0, self._path(number).stat().st_size) for number in numbers}
        self.bytes = sum(segment.size for segment in self.sealed.values())
        self.number = self.synced_to = numbers[-1] if numbers else self.number
        for number in reversed(numbers):  # of the last, the header may not have reached the disk before a power cut
            segment = read_segment(self._path(number).read_bytes())
            if segment is not None:
                self.identity = segment.header.spool
                self.last_chain = max([segment.header.chain, *_chains(segment.coverage)])
                return

    def _begin_segment(self) -> None:
        number = self.number + 1
        header = encode_header(Header(self.identity, number, self.database, self.last_chain))
        path = self._path(number)
        file = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o644)
        try:
            _write_all(file, header)
        except OSError:
            os.close(file)
            path.unlink()
            raise
        self.number, self._file = number, file
        self.open_bytes = self.open_rows = 0
        self._open_size = len(header)
        self.bytes += len(header)

    def _write(self, data: bytes) -> None:
        end = os.lseek(self._file, 0, os.SEEK_CUR)
        try:
            _write_all(self._file, data)
        except OSError:
            os.ftruncate(self._file, end)
            os.lseek(self._file, end, os.SEEK_SET)
            raise
        self.open_bytes += len(data)
        self._open_size += len(data)
        self.bytes += len(data)

    def _path(self, number: int) -> Path:
        return self.directory / f"{number:0{_NUMBER_WIDTH}d}{_SUFFIX}"


def _write_all(file: int, data: bytes) -> None:
    if os.write(file, data) < len(data):  # a file takes less than it was given only when the disk is full
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _chains(records: Iterable[Record]) -> list[int]:
    return [record.chain for record in records if isinstance(record, Coverage)]
