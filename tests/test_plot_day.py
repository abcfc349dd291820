"""The example of a plot draws what is stored: price, depth and gaps."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.image import imread
from simulated_store import PAIRS

PROJECT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("day", "status", "told"),
    [("2023-11-15", 0, "2 runs of the book"), ("2023-11-20", 2, "nobody watched the book of BTC/USD on 2023-11-20")],
)
def test_a_day_is_plotted(market_url: str, tmp_path: Path, day: str, status: int, told: str) -> None:
    """Prevents an example that does not run, and a picture without the price, the depth or the gap."""
    picture = tmp_path / "day.png"
    done = subprocess.run(
        [sys.executable, PROJECT / "scripts" / "plot_day.py", PAIRS[0], day, picture],
        env=os.environ | {"DATABASE_URL": market_url, "PYTHONPATH": str(PROJECT), "MPLCONFIGDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, told in done.stdout + done.stderr) == (status, True), done.stderr
    if status:
        assert not picture.exists()
        return
    pixels = (imread(picture)[:, :, :3] * 255).round().astype(int)
    colours = {tuple(colour) for colour in pixels.reshape(-1, 3)}
    assert (0xFF, 0x6F, 0x61) in colours, "the price"
    assert (0xD9, 0xD9, 0xD9) in colours, "the gap"
    assert len(colours) > 100, "the shades of the depth"
