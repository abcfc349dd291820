"""What was not seen, and how much was: held against a count of the seconds that no run covers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.storage.database import Connection, connect

PAIR = "BTC/USD"
MIDNIGHT = datetime(2026, 8, 24)  # noqa: DTZ001 - UTC without zone, like the columns
INSERT = """
INSERT INTO kraken_coverage
    (pair, channel, chain, started_at, last_at, updates, rows, end_reason, spool, dropped_before)
VALUES (%s, %s, %s, %s, %s, 0, 0, %s, %s, %s)
"""


@dataclass(frozen=True)
class Run:
    """A run in seconds after midnight."""

    start: int
    end: int
    reason: str | None = "closed_1012"


def moment(second: int) -> datetime:
    return MIDNIGHT + timedelta(seconds=second)


@pytest.fixture
def connection(migrated_url: str) -> Iterator[Connection]:
    with connect(migrated_url, application_name="tests") as opened:
        yield opened


def cover(connection: Connection, runs: Sequence[Run], channel: str = "book", kept_from: int | None = None) -> None:
    """Replace what was seen; what began before `kept_from` is marked as retention marks it."""
    connection.execute("DELETE FROM kraken_coverage WHERE channel = %s", [channel])
    for chain, run in enumerate(runs):
        mark = None if kept_from is None or run.start >= kept_from else moment(kept_from)
        values = (PAIR, channel, chain, moment(run.start), moment(run.end), run.reason, UUID(int=0), mark)
        connection.execute(INSERT, values)


def gaps(connection: Connection, channel: str = "book") -> list[tuple[int, int, str | None]]:
    rows = connection.execute(
        "SELECT started_at, ended_at, reason FROM kraken_gaps WHERE pair = %s AND channel = %s ORDER BY started_at",
        [PAIR, channel],
    )
    return [(second(start), second(end), reason) for start, end, reason in rows]


def second(time: datetime) -> int:
    return round((time - MIDNIGHT).total_seconds())


def completeness(connection: Connection, since: int, until: int) -> dict[str, float]:
    rows = connection.execute(
        "SELECT * FROM kraken_completeness(%s, %s, %s)", [PAIR, moment(since), moment(until)]
    ).fetchall()
    return dict(rows)


@st.composite
def one_run(draw: st.DrawFn) -> Run:
    start = draw(st.integers(0, 40))
    return Run(start, start + draw(st.integers(0, 15)), draw(st.sampled_from(["checksum", "closed_1012", None])))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    runs=st.lists(one_run(), max_size=8),
    kept_from=st.none() | st.integers(0, 60),
    since=st.integers(-5, 50),
    length=st.integers(1, 30),
)
def test_every_second_is_seen_or_told(
    connection: Connection, runs: list[Run], kept_from: int | None, since: int, length: int
) -> None:
    """Prevents a time from being claimed that was not seen, from being told twice, or from going untold."""
    cover(connection, runs, kept_from=kept_from)
    kept = kept_from or 0
    watched = {at for run in runs for at in range(run.start, run.end)}
    seen = {at for at in watched if at >= kept}
    told = [(at, reason) for start, end, reason in gaps(connection) for at in range(start, end)]
    times = range(min((run.start for run in runs), default=0), max((run.end for run in runs), default=0))
    assert sorted(at for at, _ in told) == [at for at in times if at not in seen]
    for at, reason in told:
        if at in watched:
            assert reason == "dropped_by_retention"
        else:
            last_end = max(run.end for run in runs if run.end <= at)
            assert reason in {run.reason for run in runs if run.end == last_end}
    share = completeness(connection, since, since + length)
    expected = Fraction(len(seen & set(range(since, since + length))), length)
    assert abs(Fraction(str(share["book"])) - expected) < Fraction(1, 10**15)
    assert share["trade"] == 0
    assert (share["book"] == 1) == (expected == 1)


def test_channels_and_pairs_do_not_stand_in_for_each_other(connection: Connection) -> None:
    """Prevents the trades that were seen from covering a hole of the book."""
    cover(connection, [Run(0, 10), Run(20, 30)])
    cover(connection, [Run(0, 30, None)], "trade")
    connection.execute("UPDATE kraken_coverage SET pair = 'ETH/USD' WHERE channel = 'book' AND chain = 1")
    assert gaps(connection) == []
    connection.execute("UPDATE kraken_coverage SET pair = 'BTC/USD'")
    assert gaps(connection) == [(10, 20, "closed_1012")]
    assert gaps(connection, "trade") == []
    shares = completeness(connection, 0, 30)
    assert (round(float(shares["book"]), 6), shares["trade"]) == (0.666667, 1)


def test_longer_run_of_another_collector_tells_the_reason(connection: Connection) -> None:
    """Prevents a gap from being put down to a run that had been over before, while another went on."""
    cover(connection, [Run(0, 20, "idle"), Run(5, 10, "checksum"), Run(30, 40, None)])
    assert gaps(connection) == [(20, 30, "idle")]


def test_time_that_never_was_is_refused(connection: Connection) -> None:
    """Prevents swapped bounds from reading like complete data."""
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="must be after"):
        completeness(connection, 10, 10)
