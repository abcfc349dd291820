"""What waits in a spool's folder, seen from outside: the folder is neither locked nor changed.

A collector may be writing there meanwhile, so that a segment which is shipped while it is counted is just not counted.
"""

from pathlib import Path

import msgspec

SEGMENT_FILES = "*.segment"


class Backlog(msgspec.Struct, frozen=True):
    """What is in a folder of segments.

    Attributes:
        directory: the folder.
        segments: segments in it, the one being written included.
        bytes: their size.
        set_apart: files in its subfolders, by folder: what was rejected, damaged, or of another database.

    """

    directory: str
    segments: int
    bytes: int
    set_apart: dict[str, int]


def read_backlog(directory: Path) -> Backlog | None:
    """Look into a folder; None where it is not there, or not to be read by this user."""
    try:
        sizes = [size for path in directory.glob(SEGMENT_FILES) if (size := _size(path)) is not None]
        folders = sorted(path for path in directory.iterdir() if path.is_dir())
        set_apart = {folder.name: sum(1 for _ in folder.iterdir()) for folder in folders}
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    return Backlog(str(directory), len(sizes), sum(sizes), set_apart)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # shipped and deleted since it was listed
        return None
