"""Logs: one event a line on standard error, as JSON in production and readable on a terminal."""

import logging
import sys
from typing import Any

import structlog

from collector.settings import Settings

CLEAR_LINE = "\r\x1b[K"  # to the line's beginning, then erase to its end


def configure_logs(settings: Settings, *, over_live_line: bool = False) -> None:
    """Set up structlog, and what the libraries log through the standard library.

    `over_live_line` is for a terminal on which the live line stands: an event takes that line's place.
    """
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    console = settings.log_format == "console"
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()) if console else structlog.processors.JSONRenderer()
    )
    exceptions = [] if console else [structlog.processors.format_exc_info]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *exceptions,
            renderer,
            *([_take_the_line] if over_live_line and sys.stderr.isatty() else []),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=max(level, logging.WARNING), format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("trio-websocket").setLevel(logging.INFO)  # at DEBUG it logs every frame


def _take_the_line(_logger: object, _method: str, text: Any) -> str:
    return f"{CLEAR_LINE}{text}"
