"""The lock on a spool's folder: one process at a time, and whoever comes second is told the number of the first."""

import fcntl
import os
from pathlib import Path

from collector.errors import UnusableSpool

_FILE = "lock"
_NUMBER_BYTES = 20  # of the longest process number


def hold_folder(directory: Path) -> int:
    """Hold the folder until this process ends, however it ends; return the file to be closed to let go of it sooner.

    Raises:
        UnusableSpool: another process holds it.

    """
    file = os.open(directory / _FILE, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(file, _NUMBER_BYTES).decode(errors="replace").strip()
        os.close(file)
        raise UnusableSpool(
            f"SPOOL_DIR {directory} is in use by process {owner}; give each collector a folder of its own"
        ) from None
    os.ftruncate(file, 0)
    os.write(file, str(os.getpid()).encode())
    return file
