"""Which trades the database lacks, asked of a real one."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.id_ranges import IdRange
from collector.storage.database import Connection, connect
from collector.storage.missing_trades import (
    adopted_until,
    first_id,
    look,
    nanoseconds,
    neighbour,
    record_absent,
)

PAIR = "BTC/USD"
START = datetime.fromisoformat("2026-08-24T12:00:00.345678")  # UTC without zone, like the column
with_one_database = settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def connection(migrated_url: str) -> Iterator[Connection]:
    with connect(migrated_url, application_name="tests") as connection:
        yield connection


def store(connection: Connection, ids: list[int | None], pair: str = PAIR, start: datetime = START) -> None:
    """Store trades, a second apart by their ids; those without an id at the start."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO kraken_trades VALUES (%s, %s, 1, 1, 'buy', 'limit', %s)",
            [(start + timedelta(seconds=number or 0), pair, number) for number in ids],
        )


def all_missing(connection: Connection, first: int, limit: int) -> list[IdRange]:
    """Everything that is missing, slice by slice."""
    missing: list[IdRange] = []
    for _ in range(1000):
        found = look(connection, PAIR, first, limit)
        missing += found.missing
        if found.is_last:
            return missing
        assert found.known_to > first
        first = found.known_to
    raise AssertionError("the slices never end")


@with_one_database
@given(
    st.sets(st.integers(1, 40), min_size=1),
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 3)), max_size=4),
    st.integers(2, 50),
)
def test_what_lies_between_and_is_not_absent_is_missing(
    connection: Connection, ids: set[int], absent: list[tuple[int, int]], limit: int
) -> None:
    """Prevents a hole from being overlooked, wherever a slice ends, and what Kraken lacks from being asked for."""
    connection.execute("TRUNCATE kraken_trades, kraken_absent_trades")
    store(connection, sorted(ids))
    store(connection, [1, 20, 40], pair="ETH/USD")
    ranges = [IdRange(first, first + more) for first, more in absent]
    record_absent(connection, PAIR, ranges)
    record_absent(connection, "ETH/USD", [IdRange(2, 19)])
    known = ids | {number for first, last in ranges for number in range(first, last + 1)}
    expected = [number for number in range(min(ids), max(ids)) if number not in known]
    missing = all_missing(connection, min(ids), limit)
    assert [number for first, last in missing for number in range(first, last + 1)] == expected
    assert all(high.first - low.last > 1 for low, high in pairwise(missing))


def test_look_goes_on_where_the_last_one_ended(connection: Connection) -> None:
    """Prevents each look from reading the whole table, and a hole behind the last one from being overlooked."""
    store(connection, [1, 2, 5])
    assert look(connection, PAIR, 1) == ([IdRange(3, 4)], 5, True)
    assert look(connection, PAIR, 5) == ([], 5, True)
    store(connection, [9])
    assert look(connection, PAIR, 5) == ([IdRange(6, 8)], 9, True)


def test_nothing_stored_is_nothing_missing(connection: Connection) -> None:
    """Prevents a pair that has not traded from crashing the repair."""
    assert look(connection, PAIR, 7) == ([], 7, True)
    assert first_id(connection, PAIR, None) is None
    assert adopted_until(connection, PAIR) is None
    assert neighbour(connection, PAIR, 7) is None


def test_slices_read_the_index_alone(connection: Connection) -> None:
    """Prevents a look at one slice from reading the table, whose size it must not depend on."""
    connection.execute(
        "INSERT INTO kraken_trades SELECT now(), 'BTC/USD', 1, 1, 'buy', 'limit', id"
        " FROM generate_series(1, 50000) AS id"
    )
    connection.execute("VACUUM ANALYZE kraken_trades")
    for number in (1, 49_000):
        plan = connection.execute(
            "EXPLAIN SELECT trade_id FROM kraken_trades WHERE pair = 'BTC/USD' AND trade_id >= %s"
            " ORDER BY trade_id LIMIT 100",
            [number],
        ).fetchall()
        assert "Index Only Scan" in str(plan), plan
    plan = connection.execute("EXPLAIN SELECT max(event_time) FROM kraken_trades WHERE pair = 'A' AND trade_id IS NULL")
    assert "kraken_trades_adopted" in str(plan.fetchall())


def test_rows_of_an_earlier_collector_are_no_ids(connection: Connection) -> None:
    """Prevents adopted rows from being taken for trades with numbers, and fetched once more."""
    store(connection, [None, None, None, 5, 7])
    store(connection, [None], start=START + timedelta(seconds=6))
    assert adopted_until(connection, PAIR) == START + timedelta(seconds=6)
    assert first_id(connection, PAIR, START + timedelta(seconds=6)) == 7
    assert first_id(connection, PAIR, None) == 5
    assert look(connection, PAIR, 5) == ([IdRange(6, 6)], 7, True)
    assert first_id(connection, PAIR, START + timedelta(days=1)) is None


def test_id_of_zero_is_none(connection: Connection) -> None:
    """Prevents a defect that REST once had from making all of history a hole."""
    store(connection, [0, 500, 501])
    assert first_id(connection, PAIR, None) == 500


def test_neighbour_is_the_nearest_below(connection: Connection) -> None:
    """Prevents a page from being asked for that begins behind the gap."""
    store(connection, [3, 5, 9])
    assert neighbour(connection, PAIR, 9) == (5, START + timedelta(seconds=5))
    assert neighbour(connection, PAIR, 7) == (5, START + timedelta(seconds=5))
    assert neighbour(connection, PAIR, 3) is None


def test_absence_is_recorded_once_and_grows(connection: Connection) -> None:
    """Prevents a second finding of the same ids from crashing the repair, or from making the range smaller."""
    for ranges in ([IdRange(3, 4), IdRange(9, 9)], [IdRange(3, 3)], [IdRange(3, 5)], []):
        record_absent(connection, PAIR, ranges)
    rows = connection.execute("SELECT first_id, last_id FROM kraken_absent_trades ORDER BY 1").fetchall()
    assert rows == [(3, 5), (9, 9)]


def test_nanoseconds_are_exact() -> None:
    """Prevents a cursor that went through a float."""
    assert nanoseconds(START) == 1_787_572_800_345_678_000
    assert nanoseconds(datetime.fromisoformat("1970-01-01T00:00:00.000001")) == 1000
