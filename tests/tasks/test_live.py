"""The live line: what it shows, and that it is one line."""

import io
import sys
from collections import Counter
from pathlib import Path

import pytest
import trio
from samples import batch

from collector.statistics import PairStatistics, Statistics
from collector.storage.spool import Spool
from collector.tasks import live
from collector.tasks.live import live_line, show_live


def test_line_shows_the_digits_as_sent() -> None:
    """Prevents a price on the screen from being another than the one that is stored."""
    statistics = Statistics()
    statistics.pairs["BTC/USD"] = PairStatistics(b"62999.90", b"63000.10", b"63000.00", Counter(checksum=2))
    line = live_line(statistics, 1234, "BTC/USD", 1234.6)
    assert line.startswith("BTC/USD  bid 62999.90  ask 63000.10  last trade 63000.00  |")
    assert "1,235 rows/s" in line
    assert "1,234 waiting" in line
    assert "2 checksum failures" in line


def test_line_before_the_first_message() -> None:
    """Prevents the line from failing while nothing is known yet."""
    assert live_line(Statistics(), 0, "no pair", 0.0).startswith("no pair  bid -  ask -  last trade -")


async def shown(monkeypatch: pytest.MonkeyPatch, directory: Path, *, terminal: bool) -> str:
    """What is written within some turns."""
    monkeypatch.setattr(live, "TERMINAL_INTERVAL", 0.05)
    monkeypatch.setattr(live, "PLAIN_INTERVAL", 0.05)
    output = io.StringIO()
    monkeypatch.setattr(output, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stdout", output)
    statistics = Statistics()
    statistics.pairs.update({"BTC/USD": PairStatistics(), "ETH/USD": PairStatistics()})
    spool = Spool.open(directory)
    spool.append(batch(0, 3))
    with trio.move_on_after(0.5):
        await show_live(statistics, spool)
    spool.close()
    return output.getvalue()


async def test_terminal_line_is_written_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Prevents a terminal from filling with lines, and a pair from never being shown."""
    output = await shown(monkeypatch, tmp_path, terminal=True)
    assert "\n" not in output
    first, second = output.split(live.CLEAR_LINE)[1:3]
    assert (first[:7], second[:7]) == ("BTC/USD", "ETH/USD")
    assert "6 waiting" in first


async def test_pipe_gets_lines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Prevents a file or a pipe from getting a terminal's control characters."""
    output = await shown(monkeypatch, tmp_path, terminal=False)
    assert output.isascii()
    assert "\x1b" not in output
    assert "\r" not in output
    assert len(output.splitlines()) >= 2
