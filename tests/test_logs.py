"""Logs: a line each event on standard error, in the form and from the level that the settings ask for."""

import ast
import json
import os
import pty
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import structlog
from collecting import clean_environment

from collector import logs
from collector.logs import ALIKE_BY, CLEAR_LINE, REPEATS_TOLD

COLLECTOR = Path(__file__).parent.parent / "collector"
# Field: what it holds, wherever it is. A new one is added here, and only if none of these says it.
FIELDS = {
    "again": "whether the same was asked before",
    "bytes": "a size",
    "bytes_lost": "a size of what cannot be read",
    "chain": "a run's number",
    "channel": "book or trade",
    "connection": "a connection's number in this process",
    "count": "how often it has happened so far",
    "database": "a database's id",
    "day": "a day of the order book",
    "depths": "levels of each side, by pair and pattern",
    "detail": "what a person wants to know beside the reason",
    "disk_full": "whether the disk is",
    "effect": "what follows from it",
    "error": "what somebody else said went wrong",
    "exc_info": "a crash's traceback",
    "fetched_to": "the time up to which history is there",
    "first_id": "the first of some trade ids",
    "first_segment": "the first of some segments, by its number",
    "full": "the share of a limit",
    "gone": "pairs that are not listed any more",
    "hours_left": "how long it will take",
    "ids": "ranges of trade ids",
    "intake": "what is taken in: all, trades or nothing",
    "keep_days": "BOOK_RETENTION_DAYS",
    "last_id": "the last of some trade ids",
    "last_segment": "the last of some segments",
    "levels": "levels of a book that differ",
    "migration": "a migration's name",
    "missing": "trades that are still missing",
    "moved_to": "the file or folder where it is now",
    "nearest": "names that are like it",
    "new": "pairs that are listed now",
    "pair": "Kraken's symbol of a market",
    "pairs": "several of them",
    "port": "a port",
    "reason": "one word for why, as in kraken_coverage where it ends a run",
    "repaired": "trades that were missing and are there now",
    "repeated": "how many like it were left out since one was told",
    "request": "a request's number",
    "retry_in": "seconds until the next try",
    "sample": "the beginning of a bad message",
    "segment": "a segment's number",
    "segments": "how many segments wait",
    "session_changed": "whether a lock's connection led to another process of PostgreSQL",
    "signal": "a signal's name",
    "since": "a time from which on",
    "spool": "a spool's folder or id",
    "system": "the state of Kraken's engine",
    "task": "a task's name",
    "trades": "a number of trades",
    "trades_per_second": "a rate",
    "unpublished": "messages that Redis' subscribers missed",
    "url": "an address without secrets",
    "what_to_do": "what a person can do about it",
}

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
for name in ("trio-websocket", "wsproto", "httpx2"):
    logging.getLogger(name).debug("a frame")
    logging.getLogger(name).info("a frame")
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


def logged_events() -> Iterator[tuple[str, ast.expr, list[ast.keyword]]]:
    """Every call of the collector that logs: where it is, its event and its fields."""
    for path in sorted(COLLECTOR.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="log"), attr="log"), args=[_, name]):
                    yield f"{path.name}:{node.lineno}", name, node.keywords
                case ast.Call(func=ast.Attribute(value=ast.Name(id="log")), args=[name]):
                    yield f"{path.name}:{node.lineno}", name, node.keywords
                case ast.Call(func=ast.Attribute(value=ast.Name(id="log"))):
                    raise AssertionError(f"{path.name}:{node.lineno}")


def test_events_and_fields_are_named_alike() -> None:
    """Prevents the same thing from having two names in the log, and text with values in it that nobody can search."""
    used = set()
    for place, event, keywords in logged_events():
        assert isinstance(event, ast.Constant), f"{place}: values belong into fields"
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", event.value), place
        fields = {keyword.arg: keyword.value for keyword in keywords if keyword.arg is not None}
        assert fields.keys() <= FIELDS.keys(), place
        assert not isinstance(fields.get("reason"), ast.Constant | ast.JoinedStr), f"{place}: a sentence is a detail"
        used |= fields.keys()
    assert FIELDS.keys() - used == {"repeated"}, "nobody uses it: logs.py has this one"
    assert set(ALIKE_BY) - {"event"} <= FIELDS.keys()


FLOOD = """
import sys
import structlog
from collector.logs import configure_logs
from collector.settings import Settings
configure_logs(Settings(_env_file=None, database_url="postgresql://h/d", log_format="json", log_level=sys.argv[1]))
log = structlog.get_logger()
for number in range(100):
    log.warning("book_desync", pair="BTC/USD", reason="checksum", retry_in=number)
    log.info("repair_waits", error="no route", retry_in=number)
    log.info("migrated", migration=str(number))
    log.debug("malformed_message", reason="bad", count=number)
log.warning("book_desync", pair="ETH/USD", reason="checksum")
"""


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("info", {"book_desync": REPEATS_TOLD + 1, "repair_waits": REPEATS_TOLD, "migrated": 100}),
        ("debug", {"book_desync": 101, "repair_waits": 100, "migrated": 100, "malformed_message": 100}),
    ],
)
def test_repeated_trouble_is_told_a_few_times(level: str, expected: dict[str, int]) -> None:
    """Prevents an outage from filling the log with its tries, and a limit from hiding another pair's trouble."""
    done = subprocess.run(
        [sys.executable, "-c", FLOOD, level],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert Counter(event["event"] for event in events) == expected
    assert events[-1]["pair"] == "ETH/USD"


def test_what_was_left_out_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents an event from standing for one where there were many."""
    now = [0.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    processor = logs._CountRepeats()
    told = []
    for second in range(200):
        now[0] = float(second)
        with suppress(structlog.DropEvent):
            told.append(processor(None, "warning", {"level": "warning", "event": "disconnected", "reason": "silent"}))
    assert sum(1 + event.get("repeated", 0) for event in told) == 185
    assert [event.get("repeated") for event in told if "repeated" in event] == [55, 55, 55]
