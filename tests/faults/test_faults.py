"""Each fault of the catalogue under a running collector: nothing is lost, nothing stored twice, coverage is true."""

from pathlib import Path

import pytest
from faults.catalogue import GROUPS
from faults.injections.spool import disk_full, small_disk
from faults.trial import TryFaults


@pytest.mark.parametrize("group", GROUPS)
async def test_faults(try_faults: TryFaults, group: str) -> None:
    """Whatever fails around the collector would lose rows, store them twice, hold it up, or leave a hole untold."""
    await try_faults(GROUPS[group])


async def test_full_disk(try_faults: TryFaults, tmp_path: Path) -> None:
    """A disk that another program fills would end the collector, or cost it what it had received."""
    with small_disk(tmp_path / "disk"):
        await try_faults([disk_full(tmp_path / "disk" / "spool")])
