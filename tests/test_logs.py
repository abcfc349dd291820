"""Logs: a line each event on standard error, in the form and from the level that the settings ask for."""

import json
import os
import pty
import subprocess
import sys

import pytest
from collecting import clean_environment

from collector.logs import CLEAR_LINE

PROGRAM = """
import logging, sys
import structlog
from collector.logs import configure_logs
from collector.settings import Settings
settings = Settings(_env_file=None, database_url="postgresql://u:secret@h/d", log_format=sys.argv[1],
                    log_level=sys.argv[2])
configure_logs(settings, over_live_line=len(sys.argv) > 3)
log = structlog.get_logger()
for level in ("debug", "info", "warning", "error"):
    getattr(log, level)("an_event", level_was=level, pair="BTC/USD")
logging.getLogger("trio-websocket").debug("a frame")
logging.getLogger("library").info("nothing to do about it")
logging.getLogger("library").error("something is wrong")
try:
    1 / 0
except ZeroDivisionError as error:
    log.error("crashed", exc_info=ExceptionGroup("of a nursery", [error]))
"""


def logged(*arguments: str) -> list[str]:
    """What a process writes with these settings."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "", "standard output is for the live line and for results"
    return done.stderr.splitlines()


@pytest.mark.parametrize(("level", "count"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_level(level: str, count: int) -> None:
    """Prevents LOG_LEVEL from hiding what it should show, and libraries from flooding the log."""
    lines = logged("json", level)
    assert sum("an_event" in line for line in lines) == count
    assert not any("a frame" in line or "nothing to do" in line for line in lines)
    assert sum("something is wrong" in line for line in lines) == 1


def test_json_is_one_object_a_line() -> None:
    """Prevents a traceback or anything else from breaking a line in two, which no log collector puts together."""
    events = [json.loads(line) for line in logged("json", "info")]
    assert [event["event"] for event in events] == ["an_event"] * 3 + ["something is wrong", "crashed"]
    assert all(list(event)[:3] == ["timestamp", "level", "event"] for event in events)
    assert events[0]["pair"] == "BTC/USD"
    assert all(event["timestamp"].endswith("Z") and event["level"] for event in events)
    assert "ZeroDivisionError: division by zero" in events[-1]["exception"]
    assert "of a nursery" in events[-1]["exception"]


def test_console_is_readable() -> None:
    """Prevents a terminal's colours from getting into a file, and a crash from being shown without its traceback."""
    text = "\n".join(logged("console", "info"))
    assert "\x1b" not in text
    assert "an_event" in text
    assert "pair=BTC/USD" in text
    assert "ZeroDivisionError" in text


def test_event_takes_the_place_of_the_live_line() -> None:
    """Prevents an event from being written onto the end of the line that a terminal shows."""
    terminal, end = pty.openpty()
    try:
        command = [sys.executable, "-c", PROGRAM, "json", "error", "over the live line"]
        subprocess.run(command, env=clean_environment(), stderr=end, check=True, timeout=60)
        text = os.read(terminal, 100_000).decode()
    finally:
        os.close(end)
        os.close(terminal)
    lines = [line for line in text.splitlines() if "event" in line]
    assert len(lines) == 3
    assert text.count(CLEAR_LINE + "{") == 3


def test_file_gets_no_control_characters() -> None:
    """Prevents a terminal's control characters from getting into a log that is no terminal."""
    assert not any(CLEAR_LINE in line for line in logged("json", "info", "over the live line"))
