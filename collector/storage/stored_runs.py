"""Runs read back from kraken_coverage."""

from collections.abc import Sequence
from datetime import datetime

from collector.storage.database import Connection, translated
from collector.verification.checks import StoredRun

_COLUMNS = (
    "pair, channel, chain, started_at::text, last_at::text, updates, rows, ended_at::text, end_reason,"
    " dropped_before::text, suspect_since::text"
)
_RUNS = f"""
SELECT {_COLUMNS} FROM kraken_coverage
WHERE (%(pairs)s::text[] IS NULL OR pair = ANY(%(pairs)s))
      AND (%(since)s::timestamp IS NULL OR last_at >= %(since)s)
      AND (%(until)s::timestamp IS NULL OR started_at < %(until)s)
ORDER BY chain
"""  # noqa: S608 - the columns are constants
_RUNS_OF = f"SELECT {_COLUMNS} FROM kraken_coverage WHERE channel = 'book' AND chain = ANY(%s)"  # noqa: S608 - likewise
_SPAN = "SELECT min(started_at)::text, max(last_at)::text FROM kraken_coverage"


def stored_runs(
    connection: Connection, pairs: Sequence[str] | None, since: datetime | None, until: datetime | None
) -> list[StoredRun]:
    """The runs of some pairs (None: of all) that have a part in a range of time, both channels, in order of chain."""
    arguments = {"pairs": None if pairs is None else list(pairs), "since": since, "until": until}
    with translated():
        return [StoredRun(*row) for row in connection.execute(_RUNS, arguments)]


def book_runs(connection: Connection, chains: Sequence[int]) -> list[StoredRun]:
    """The runs of some chains of the book, as they are now."""
    with translated():
        return [StoredRun(*row) for row in connection.execute(_RUNS_OF, [list(chains)])]


def covered_span(connection: Connection) -> tuple[str, str] | None:
    """From when to when any run goes; None while there is none."""
    with translated():
        row = connection.execute(_SPAN).fetchone()
    return None if row is None or row[0] is None else (str(row[0]), str(row[1]))
