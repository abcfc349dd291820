"""The spool on a disk that is full, broken or not to be written to: nothing that was appended is lost."""

import errno
import os
from pathlib import Path

import pytest
from samples import batch, book_row, trade
from spooling import lines, opened, seal, segments

from collector.errors import UnusableSpool
from collector.storage.copy_text import book_line, trade_line
from collector.storage.spool import Spool


@pytest.mark.parametrize("failing", ["raises", "is short"])
def test_failed_write_keeps_the_records(failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a full disk from costing a record, and half of a record from being left in the file."""
    write = os.write

    def write_to_full_disk(file: int, data: bytes) -> int:
        if failing == "raises":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data[: len(data) // 2])

    with opened(tmp_path) as spool:
        spool.append(batch(0, 2))
        path = spool._path(1)
        before = path.read_bytes()
        with monkeypatch.context() as full_disk:
            full_disk.setattr(os, "write", write_to_full_disk)
            for records in (batch(2, 2), []):
                with pytest.raises(OSError, match="No space left"):
                    spool.append(records)
                assert path.read_bytes() == before
            with pytest.raises(OSError, match="No space left"):
                spool.seal()  # the header of the next one does not fit either
            assert list(tmp_path.glob("*.segment")) == [path]
        assert (spool.rows, spool.open_rows, spool.sealed) == (4, 4, {})
        spool.append(batch(4, 2))
        assert (spool.rows, spool.open_rows) == (12, 12)
        seal(spool)
        book, trades = lines(segments(spool))
    assert book == b"".join(map(book_line, map(book_row, range(6))))
    assert trades == b"".join(map(trade_line, map(trade, range(6))))


def test_failed_sync_closes_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents each failing fsync of a broken disk from costing a file descriptor."""
    with opened(tmp_path) as spool:
        spool.append(batch(0, 1))
        file = spool.seal()
        assert file is not None

        def fail(_file: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="Input/output"):
            spool.sync(file)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(file)
        assert {number: sealed.rows for number, sealed in spool.sealed.items()} == {1: 2}


def test_folder_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a wrong SPOOL_DIR from ending in a traceback, and a failed start from keeping the folder locked."""
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UnusableSpool, match=r"SPOOL_DIR .*file: .*; it takes a folder"):
        Spool.open(file)

    def fail(_file: int, _data: bytes) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    directory = tmp_path / "spool"
    with monkeypatch.context() as read_only:
        read_only.setattr("collector.storage.spool._write_all", fail)
        with pytest.raises(UnusableSpool, match="Read-only"):
            Spool.open(directory)
    with opened(directory):
        pass
