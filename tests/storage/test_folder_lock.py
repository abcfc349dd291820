"""The lock on a spool's folder: one process at a time."""

import os
import subprocess
import sys
from pathlib import Path

from collecting import clean_environment
from spooling import opened


def test_one_process_holds_the_folder(tmp_path: Path) -> None:
    """Prevents two collectors from writing one spool, and leaves a person with the owner's number."""
    opening = "import pathlib, collector.storage.spool as s; s.Spool.open(pathlib.Path.cwd())"
    with opened(tmp_path):
        refused = subprocess.run(
            [sys.executable, "-c", opening],
            env=clean_environment(),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert refused.returncode != 0
        assert f"SPOOL_DIR {tmp_path} is in use by process {os.getpid()};" in refused.stderr
    subprocess.run([sys.executable, "-c", opening], env=clean_environment(), cwd=tmp_path, check=True)
    with opened(tmp_path):  # as the other process ended without closing it
        pass
