"""A person is told what an export's data lacks, and is not buried in it."""

from datetime import timedelta

from simulated_store import MIDNIGHT, PAIRS

from collector import history
from collector.export.datasets import make_datasets
from collector.export.notices import GAPS_TOLD, notices
from collector.history.spans import Span

PAIR = PAIRS[0]
BEGIN = MIDNIGHT.replace(tzinfo=None)
DATASETS = list(make_datasets(width=timedelta(minutes=1), levels=10, every=timedelta(seconds=1)).values())
RUN = """
INSERT INTO kraken_coverage
    (pair, channel, chain, started_at, last_at, updates, rows, ended_at, end_reason, spool, suspect_since)
VALUES (%s, 'book', %s, %s, %s, 1, 1, %s, 'desync', gen_random_uuid(), %s)
"""


def test_gaps_are_told_and_then_counted(migrated_url: str) -> None:
    """Prevents a gap from being kept quiet, and a thousand of them from filling the screen."""
    runs = GAPS_TOLD + 4
    with history.connect(migrated_url) as connection:
        for number in range(runs):
            begin = BEGIN + timedelta(minutes=2 * number)
            end = begin + timedelta(minutes=1)
            connection.execute(RUN, [PAIR, number, begin, end, end, None])
        told = list(notices(connection, DATASETS, [PAIR], Span(None, None)))
        edges = list(notices(connection, DATASETS, [PAIR], Span(BEGIN - timedelta(minutes=1), BEGIN)))
    assert told[0] == (
        "BTC/USD, book: not watched from 2023-11-15T00:01:00.000000Z to 2023-11-15T00:02:00.000000Z (desync)"
    )
    assert len(told) == GAPS_TOLD + 1
    assert told[-1].startswith(f"BTC/USD, book: not watched {runs - 1 - GAPS_TOLD} more times")
    assert [line.partition(" not")[0] for line in edges] == ["BTC/USD, book:", "BTC/USD, trade:"]


def test_books_to_doubt_are_told(migrated_url: str) -> None:
    """Prevents an audit that failed from having no consequence for whoever takes the data out."""
    end, suspect = BEGIN + timedelta(minutes=9), BEGIN + timedelta(minutes=3)
    with history.connect(migrated_url) as connection:
        connection.execute(RUN, [PAIR, 1, BEGIN, end, end, suspect])
        whole = list(notices(connection, DATASETS, [PAIR], Span(None, None)))
        before = list(notices(connection, DATASETS, [PAIR], Span(None, suspect - timedelta(seconds=1))))
    (line,) = whole
    assert line.startswith(
        "BTC/USD, book: from 2023-11-15T00:03:00.000000Z to 2023-11-15T00:09:00.000000Z the book may"
    )
    assert not [line for line in before if "audit" in line]
