"""Logs: one event a line on standard error, as JSON in production and readable on a terminal.

An event is a word or some in snake case, and what it is about is in fields that are named alike everywhere (the tests
hold the list). Trouble that goes on is told a few times a minute and otherwise counted, in the field `repeated`;
at DEBUG each time.
"""

import logging
import sys
import time
from typing import Any

import msgspec
import structlog

from collector.repeats import Repeats
from collector.settings import Settings

CLEAR_LINE = "\r\x1b[K"  # to the line's beginning, then erase to its end
# Alike within so many seconds that are told: two outages in a minute are, each try within one is not.
REPEATS_TOLD, REPEATS_SECONDS = 5, 60.0
# What makes two events alike; all else is how much, how often, or when the next try comes.
ALIKE_BY = ("event", "pair", "channel", "chain", "segment", "task", "intake", "reason", "error")
TROUBLE = frozenset({"warning", "error", "critical"})


def configure_logs(settings: Settings, *, over_live_line: bool = False) -> None:
    """Set up structlog, and what the libraries log through the standard library.

    `over_live_line` is for a terminal on which the live line stands: an event takes that line's place.
    """
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    console = settings.log_format == "console"
    colors = sys.stderr.isatty()
    # Plain, since the pretty tracebacks show local variables, and with them a password in an address.
    plain = structlog.dev.plain_traceback
    last: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain)]
        if console
        else [structlog.processors.format_exc_info, _first_things_first]
    )
    if not console:
        last.append(structlog.processors.JSONRenderer(default=msgspec.to_builtins))
    if over_live_line and sys.stderr.isatty():
        last.append(_take_the_line)
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        # At DEBUG everything is told: then somebody looks for what the counting would leave out.
        processors=[*shared, *([] if level <= logging.DEBUG else [_CountRepeats()]), *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
        )
    )
    # No library's DEBUG or INFO, whatever LOG_LEVEL is: the WebSocket's logs every frame, HTTP's every request.
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler])


class _CountRepeats:
    """A processor that leaves out what has just been told several times."""

    def __init__(self) -> None:
        self._repeats = Repeats(REPEATS_TOLD, REPEATS_SECONDS)

    def __call__(self, _logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if event["level"] in TROUBLE or "error" in event:
            left_out = self._repeats.take(tuple(str(event.get(name)) for name in ALIKE_BY), time.monotonic())
            if left_out is None:
                raise structlog.DropEvent
            if left_out:
                event["repeated"] = left_out
        return event


def _first_things_first(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """When, how bad and what, before the details."""
    return {name: event.pop(name) for name in ("timestamp", "level", "event") if name in event} | dict(event)


def _take_the_line(_logger: object, _method: str, text: Any) -> str:
    return f"{CLEAR_LINE}{text}"
