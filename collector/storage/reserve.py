"""The disk reserve: space beside the spool that is given back when the disk is full, for what must be written then."""

import errno
import os
from pathlib import Path

# Bytes that are kept from other users of the disk: on a full one they make room for what was received already, for
# the ends of the runs, and for the trades until the intake has stopped.
RESERVE_BYTES = 4 * 2**20
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FILE = "reserve"


class Reserve:
    """A file in a folder whose blocks are taken from the disk, and which holds nothing."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / _FILE

    @property
    def is_kept(self) -> bool:
        """Whether it is taken from the disk now."""
        return self._path.exists()

    def keep(self) -> bool:
        """Take it from the disk, if it is not taken already; return whether there was room for it."""
        if self.is_kept:
            return True
        try:
            with self._path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
        except OSError as error:
            self._path.unlink(missing_ok=True)
            if error.errno not in DISK_FULL:
                raise
            return False
        return True

    def release(self) -> None:
        """Give it back to the disk, for what must be written now."""
        self._path.unlink(missing_ok=True)
