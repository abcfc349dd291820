"""What is stored is read back whole and in order, a bounded part at a time."""

import random
from datetime import datetime, timedelta

import pytest
from simulated_store import PAIRS, simulate, store

from collector.records import BookRow, Trade
from collector.storage import stored_rows
from collector.storage.database import Connection, connect
from collector.storage.migrations import migrate
from collector.storage.stored_rows import (
    Snapshot,
    Window,
    book_rows,
    has_book,
    last_snapshots,
    prepare_reading,
    rows_since,
    rows_without_chain,
    windows,
)
from collector.storage.stored_runs import book_runs, stored_runs
from collector.storage.stored_trades import TradeSpan, stored_pairs, time_at, trade_ids, trade_span

TAPE_DAY = datetime.fromisoformat("2023-11-14")


def keys(rows) -> list[tuple[str, int, int]]:
    return [(row[1].decode(), int(row[6]), int(row[7])) for row in rows]


@pytest.fixture
def connection(migrated_url: str):
    store(migrated_url, simulate())
    with connect(migrated_url, application_name="tests") as connection:
        prepare_reading(connection)
        yield connection


def scatter(connection: Connection) -> None:
    """Put the rows where PostgreSQL might put them, anywhere in the table, and their times over some hours."""
    connection.execute("CREATE TEMPORARY TABLE scattered AS SELECT * FROM kraken_orderbook ORDER BY md5(seq::text)")
    connection.execute("UPDATE scattered SET event_time = %s + (event_time - %s - interval '22h') * 20", [TAPE_DAY] * 2)
    connection.execute("DELETE FROM kraken_orderbook")
    connection.execute("INSERT INTO kraken_orderbook SELECT * FROM scattered")


def test_rows_are_read_in_the_order_of_their_chain(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a replay in another order than that of the book, wherever the rows lie and however small a window is."""
    monkeypatch.setattr(stored_rows, "WINDOW_BYTES", 2**13)
    scatter(connection)
    written = sorted(
        (row.pair, row.chain, row.seq, row.bids.replace(b",", b", "), row.checksum)
        for row in simulate()
        if isinstance(row, BookRow)
    )
    parts = [list(book_rows(connection, window, None)) for window in windows(connection, None, None)]
    assert sum(map(bool, parts)) > 1, "the table is read in parts"
    for part in parts:
        assert [key[1:] for key in keys(part)] == sorted(key[1:] for key in keys(part))
    read = sorted((*key, row[2], int(row[5])) for part in parts for key, row in zip(keys(part), part, strict=True))
    assert read == written


def test_windows_are_the_whole_range(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a time from being read twice or not at all."""
    monkeypatch.setattr(stored_rows, "WINDOW_BYTES", 2**13)
    since, until = TAPE_DAY + timedelta(hours=3), TAPE_DAY + timedelta(days=1, hours=1)
    for begin, end in ((None, None), (since, until), (until, None), (None, since)):
        parts = windows(connection, begin, end)
        assert (parts[0].since, parts[-1].until) == (begin, end)
        assert [part.until for part in parts[:-1]] == [part.since for part in parts[1:]]


def test_rows_before_a_range_begin_with_the_last_snapshot(connection: Connection) -> None:
    """Prevents a range in the middle of a chain from being replayed without the book that it begins with."""
    rows = [row for row in simulate() if isinstance(row, BookRow)]
    times = sorted({row.event_time for row in rows})
    for time in random.Random(1).sample(times[5:], 10):
        before = datetime.fromisoformat(time).replace(tzinfo=None)
        earlier = [row for row in rows if row.event_time < time]
        runs = [(run.pair, run.chain, run.started_at) for run in stored_runs(connection, None, None, before)]
        found = last_snapshots(connection, runs, before)
        assert {(start.pair, start.chain, start.seq) for start in found} == {
            (pair, chain, max(row.seq for row in earlier if row.chain == chain and row.type == "snapshot"))
            for pair, chain in {(row.pair, row.chain) for row in earlier}
        }
        starts = {start.chain: start.seq for start in found}
        expected = sorted((row.chain, row.seq) for row in earlier if row.seq >= starts[row.chain])
        assert [key[1:] for key in keys(rows_since(connection, found, before))] == expected


def test_nothing_before_the_range_needs_no_statement(connection: Connection) -> None:
    """Prevents a range without earlier chains from failing."""
    none: list[Snapshot] = []
    assert not list(rows_since(connection, none, TAPE_DAY))


def test_pairs_and_runs_are_told_apart(connection: Connection) -> None:
    """Prevents one pair's rows from being verified as another's."""
    whole = Window(None, None)
    assert {key[0] for key in keys(book_rows(connection, whole, ["ETH/USD"]))} == {"ETH/USD"}
    assert {run.pair for run in stored_runs(connection, ["ETH/USD"], None, None)} == {"ETH/USD"}
    assert not stored_runs(connection, None, datetime.fromisoformat("2030-01-01"), None)
    assert not stored_runs(connection, None, None, datetime.fromisoformat("2020-01-01"))
    assert stored_pairs(connection) == sorted(PAIRS)
    assert has_book(connection, "BTC/USD")
    assert not has_book(connection, "SOL/USD")
    chains = {run.chain for run in stored_runs(connection, None, None, None) if run.channel == "book"}
    assert {run.chain for run in book_runs(connection, list(chains))} == chains


def test_rows_of_an_earlier_collector_are_counted_and_not_read(database_url: str) -> None:
    """Prevents an adopted table, which has no chains, from being taken for damage, or from being passed over."""
    with connect(database_url, application_name="tests") as connection:
        connection.execute("CREATE TABLE kraken_orderbook (event_time TIMESTAMP, pair TEXT, bids JSONB, asks JSONB)")
        connection.execute(
            "INSERT INTO kraken_orderbook SELECT '2024-01-01'::timestamp + n * interval '1 hour', 'BTC/USD', '[]', '[]'"
            " FROM generate_series(1, 50) AS n"
        )
        migrate(connection)
    store(database_url, simulate())
    with connect(database_url, application_name="tests") as connection:
        rows = sum(isinstance(record, BookRow) for record in simulate())
        parts = windows(connection, None, None)
        assert sum(len(list(book_rows(connection, part, None))) for part in parts) == rows
        assert rows_without_chain(connection, Window(None, None), None) == {"BTC/USD": 50}
        assert rows_without_chain(connection, Window(datetime.fromisoformat("2024-01-02"), None), None) == {
            "BTC/USD": 27
        }
        assert rows_without_chain(connection, Window(None, None), ["ETH/USD"]) == {}


def test_trades_of_a_range_are_found_by_their_ids(connection: Connection) -> None:
    """Prevents a range from being checked without its edges, where a hole may begin or end."""
    trades = [trade for trade in simulate() if isinstance(trade, Trade) and trade.pair == "BTC/USD"]
    ids, times = [trade.trade_id for trade in trades], [trade.event_time for trade in trades]
    assert trade_span(connection, "SOL/USD", None, None) is None
    assert trade_span(connection, "BTC/USD", None, None) == TradeSpan(ids[0], ids[0], ids[-1] + 1, ids[-1])
    chance = random.Random(2)
    for _ in range(20):
        since, until = sorted(chance.sample(times, 2))
        bounds = [datetime.fromisoformat(time).replace(tzinfo=None) for time in (since, until)]
        span = trade_span(connection, "BTC/USD", *bounds)
        inside = [trade.trade_id for trade in trades if since <= trade.event_time < until]
        before = [trade.trade_id for trade in trades if trade.event_time < since]
        assert span is not None
        if inside:
            assert (span.first, span.end) == (inside[0], inside[-1] + 1)
            edges = [*before[-1:], *inside, *[number for number in ids if number > inside[-1]][:1]]
            assert list(trade_ids(connection, "BTC/USD", span)) == edges
    after = trade_span(connection, "BTC/USD", datetime.fromisoformat("2030-01-01"), None)
    assert after is not None
    assert after.first == after.end
    assert time_at(connection, "BTC/USD", ids[3]) == str(datetime.fromisoformat(times[3]).replace(tzinfo=None))
