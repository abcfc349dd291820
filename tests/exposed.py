"""The metrics of a collector that is made up, for tests of what reads them."""

from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

from prometheus_client import Metric

from collector.assignment import Assignment
from collector.health import Running
from collector.metrics import metrics
from collector.rows import Run
from collector.settings import Settings
from collector.statistics import Statistics
from collector.storage.spool import Spool


def made(statistics: Statistics | None = None, *, watched: bool = True) -> dict[str, Metric]:
    """The metrics of a collector of two pairs, of which one is watched."""
    run = Run("BTC/USD", "book", 1, "2026-08-24T00:00:00.000000Z", 95.0)
    run.rows = 42
    books = SimpleNamespace(runs=lambda: [run] if watched else [], silence=lambda of: 100.0 - of.last_seen)
    spool = Spool(Path("none"), -1)
    spool.database = UUID(int=1)
    configured = Settings(database_url="postgresql://user:secret@h/d", spool_max_bytes=2**30)
    running = Running(configured, statistics or Statistics(), spool, Assignment(["BTC/USD", "ETH/USD"]), lambda: books)
    return {metric.name: metric for metric in metrics(running, 100.0)}
