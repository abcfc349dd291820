"""The queries, over rows that are put there one by one."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from collector.dashboard import queries
from collector.storage.database import Connection, connect

NOON = datetime(2026, 1, 31, 12)  # noqa: DTZ001 - as the tables have it
SECOND = timedelta(seconds=1)
PAIR = "BTC/USD"
RUN = """
INSERT INTO kraken_coverage (pair, channel, chain, started_at, last_at, updates, rows, ended_at, end_reason, spool)
VALUES (%s, %s, %s, %s, %s, 0, 0, %s, %s, gen_random_uuid())
"""


@pytest.fixture
def connection(migrated_url: str) -> Iterator[Connection]:
    with connect(migrated_url, application_name="tests") as connection:
        yield connection


def put_run(
    connection: Connection, chain: int, begun: int, last: int, reason: str | None = None, channel: str = "book"
) -> None:
    last_at = NOON + last * SECOND
    connection.execute(
        RUN, [PAIR, channel, chain, NOON + begun * SECOND, last_at, None if reason is None else last_at, reason]
    )


def put_trade(connection: Connection, number: int | None, second: int, pair: str = PAIR) -> None:
    connection.execute(
        "INSERT INTO kraken_trades VALUES (%s, %s, 100.10, 0.00000001, 'buy', 'limit', %s)",
        [NOON + second * SECOND, pair, number],
    )


def test_nothing_is_stored(connection: Connection) -> None:
    """Prevents a fault in the first minute of a collection."""
    assert queries.known_pairs(connection) == []
    assert queries.origin(connection) is None
    assert queries.latest_run(connection, PAIR, None, SECOND) is None
    assert queries.coverage(connection, PAIR, NOON, NOON + SECOND) == []
    assert queries.new_trades(connection, PAIR, -1, 10) == []


def test_open_run_that_is_followed_keeps_its_place(connection: Connection) -> None:
    """Prevents a book that is begun anew at each look where two collectors report in turns."""
    put_run(connection, 1, 0, 100)
    put_run(connection, 2, 10, 105)

    def found(followed: int | None) -> int:
        run = queries.latest_run(connection, PAIR, followed, 10 * SECOND)
        assert run is not None
        return run.chain

    assert (found(None), found(1), found(2)) == (2, 1, 2)
    connection.execute("UPDATE kraken_coverage SET last_at = last_at + interval '1 minute' WHERE chain = 2")
    assert found(1) == 2, "the other one has fallen back"
    connection.execute("UPDATE kraken_coverage SET last_at = %s, ended_at = %s WHERE chain = 1", [NOON, NOON])
    assert found(1) == 2


def test_trades_are_those_that_are_new(connection: Connection) -> None:
    """Prevents a trade that is shown twice, of another pair, or without all digits."""
    for number in range(1, 8):
        put_trade(connection, number, number)
    put_trade(connection, 9, 9, "ETH/USD")
    found = queries.new_trades(connection, PAIR, 3, 3)
    assert [trade.trade_id for trade in found] == [7, 6, 5]
    assert str(found[0].volume) == "1E-8"
    assert queries.new_trades(connection, PAIR, 7, 3) == []


def test_past_trades_are_those_before(connection: Connection) -> None:
    """Prevents trades of after the moment that is looked at, or of long before."""
    put_trade(connection, 1, -3601)
    put_trade(connection, None, -10)
    put_trade(connection, 2, 0)
    put_trade(connection, 3, 1)
    assert [trade.trade_id for trade in queries.past_trades(connection, PAIR, NOON, 10)] == [2, None]


def test_coverage_counts_from_the_first_run(connection: Connection) -> None:
    """Prevents a young collection from looking like one that has missed a day, and a gap from being left out."""
    put_run(connection, 1, 0, 40, "closed_1012")
    put_run(connection, 2, 50, 95)
    put_run(connection, 3, 0, 80, "shutdown", "trade")
    book, trade = queries.coverage(connection, PAIR, NOON - timedelta(days=1), NOON + 100 * SECOND)
    assert book.share == pytest.approx(Decimal(85) / 95)
    assert [(gap.started_at, gap.ended_at, gap.reason) for gap in book.gaps] == [
        (NOON + 40 * SECOND, NOON + 50 * SECOND, "closed_1012")
    ]
    assert (book.end_reason, trade.end_reason) == (None, "shutdown")
    assert trade.share == Decimal(80) / 100
    (later, _) = queries.coverage(connection, PAIR, NOON + 50 * SECOND, NOON + 100 * SECOND)
    assert (later.share, later.gaps) == (1, [])
