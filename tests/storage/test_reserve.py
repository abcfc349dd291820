"""The disk reserve: blocks that are really taken, and given back when they are needed."""

import errno
import os
from pathlib import Path

import pytest

from collector.storage.reserve import RESERVE_BYTES, Reserve


def test_reserve_takes_blocks_and_gives_them_back(tmp_path: Path) -> None:
    """Prevents a reserve that is only a number from leaving nothing to write to on a full disk."""
    reserve = Reserve(tmp_path)
    assert not reserve.is_kept
    for _ in range(2):
        assert reserve.keep()
        assert reserve.is_kept
        (file,) = tmp_path.iterdir()
        assert file.stat().st_blocks * 512 >= RESERVE_BYTES
    for _ in range(2):
        reserve.release()
        assert not reserve.is_kept
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_no_room_for_it(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a full disk from passing for one with a reserve, and a broken one from passing for a full one."""

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", fail)
    reserve = Reserve(tmp_path)
    if number == errno.EIO:
        with pytest.raises(OSError, match="Input/output"):
            reserve.keep()
    else:
        assert not reserve.keep()
    assert not reserve.is_kept
    assert list(tmp_path.iterdir()) == []
