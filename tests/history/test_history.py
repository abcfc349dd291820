"""What Python reads is what is stored: every row, every digit, every book, with constant memory."""

import csv
import io
import itertools
import json
import random
import tracemalloc
import warnings
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import psycopg
import pyarrow as pa
import pytest
from simulated_store import MIDNIGHT, PAIRS, over_midnight, records_of, simulate, store

from collector import history
from collector.errors import StorageUnavailable
from collector.history import rows as history_rows
from collector.kraken.times import format_time, read_time
from collector.records import BookRow, Trade
from collector.storage import stored_rows
from collector.storage.database import Connection

PAIR = PAIRS[0]
SECOND = timedelta(seconds=1)
BEGIN = MIDNIGHT - timedelta(minutes=2)
RECORDS = list(itertools.chain.from_iterable(over_midnight()))


@pytest.fixture
def connection(market_url: str) -> Iterator[Connection]:
    with history.connect(market_url) as opened:
        yield opened


def trades_of(pair: str, since: datetime, until: datetime) -> list[tuple]:
    """What the collector stored, as `history` has it."""
    return [
        (
            read_time(trade.event_time),
            Decimal(trade.price.decode()),
            Decimal(trade.volume.decode()),
            trade.side,
            trade.order_type,
            trade.trade_id,
        )
        for trade in sorted(
            (record for record in RECORDS if isinstance(record, Trade) and record.pair == pair),
            key=lambda trade: (trade.event_time, trade.trade_id),
        )
        if since <= read_time(trade.event_time) < until
    ]


def rows_of(pair: str) -> list[BookRow]:
    return [record for record in RECORDS if isinstance(record, BookRow) and record.pair == pair]


def replayed(rows: Iterable[history.BookUpdate]) -> tuple[dict, dict]:
    """A book by the plain rule: the last row of each price wins, size 0 and evicted are gone."""
    bids: dict[Decimal, Decimal] = {}
    asks: dict[Decimal, Decimal] = {}
    for row in rows:
        if row.type == "snapshot":
            bids, asks = {}, {}
        for side, levels in ((bids, row.bids), (asks, row.asks)):
            side.update(levels)
        for side, gone in ((bids, row.evicted and row.evicted.bids), (asks, row.evicted and row.evicted.asks)):
            for price in gone or []:
                del side[price]
    return {price: size for price, size in bids.items() if size}, {price: size for price, size in asks.items() if size}


def test_trades_are_those_that_are_stored(connection: Connection) -> None:
    """Prevents a trade from being lost at a cut, given twice, out of order or with other digits."""
    chance = random.Random(1)
    for pair in PAIRS:
        assert [tuple(trade) for trade in history.trades(connection, pair)] == trades_of(
            pair, BEGIN, BEGIN + timedelta(days=1)
        )
        times = [trade[0] for trade in trades_of(pair, BEGIN, BEGIN + timedelta(days=1))]
        for _ in range(5):
            since, until = sorted(chance.sample(times, 2))
            if since < until:
                found = list(history.trades(connection, pair, since, until))
                assert [tuple(trade) for trade in found] == trades_of(pair, since, until)
                digits = [str(trade.volume) for trade in found]
                assert digits == [str(trade[2]) for trade in trades_of(pair, since, until)]
    assert not list(history.trades(connection, "SOL/USD"))


def test_updates_are_the_rows_that_are_stored(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a row of a book from being lost between two windows or changed on its way."""
    monkeypatch.setattr(stored_rows, "WINDOW_BYTES", 2**13)
    for pair in PAIRS:
        found = list(history.updates(connection, pair))
        rows = sorted(rows_of(pair), key=lambda row: (row.chain, row.seq))
        assert [(row.chain, row.seq, row.type, row.checksum, format_time(row.event_time)) for row in found] == [
            (row.chain, row.seq, row.type, row.checksum, row.event_time) for row in rows
        ]
        for row, stored in zip(found, rows, strict=True):
            for levels, text in ((row.bids, stored.bids), (row.asks, stored.asks)):
                assert [list(level) for level in levels] == json.loads(text, parse_float=Decimal, parse_int=Decimal)
            evicted = None if stored.evicted is None else json.loads(stored.evicted, parse_float=Decimal)
            assert (None if row.evicted is None else row.evicted._asdict()) == evicted


def test_a_range_begins_with_the_book_as_it_was(connection: Connection) -> None:
    """Prevents a range that does not stand alone, and one whose books are not those of the database."""
    chance = random.Random(2)
    for _ in range(10):
        since = BEGIN + timedelta(seconds=chance.uniform(1, 170))
        until = since + timedelta(seconds=chance.uniform(0.1, 5))
        found = list(history.updates(connection, PAIR, since, until))
        assert found[0].type == "snapshot"
        assert found[0].event_time == since
        assert [row.seq for row in found] == list(range(found[0].seq, found[0].seq + len(found)))
        for at, rows in ((since, found[:1]), (until - timedelta(microseconds=1), found)):
            book = history.book_at(connection, PAIR, at)
            assert replayed(rows) == (dict(book.bids), dict(book.asks))
            assert replayed(history_levels(connection, since, at)) == (dict(book.bids), dict(book.asks))


def history_levels(connection: Connection, since: datetime, at: datetime) -> list[history.BookUpdate]:
    """The flat levels up to a time, put together as rows."""
    changes = history.levels(connection, PAIR, since, at + timedelta(microseconds=1))
    sides = {"bid": 0, "ask": 1}
    rows = []
    for change in changes:
        both: list[list] = [[], []]
        both[sides[change.side]].append(history.PriceLevel(change.price, change.size))
        rows.append(history.BookUpdate(change.event_time, *both, "update", 0, change.chain, change.seq, None))
    return rows


@pytest.mark.parametrize(
    ("name", "depth"), [("btcusd_depth10_2023-07-30.ndjson", 10), ("btcusd_depth10_2026-08-24_frames.ndjson", 10)]
)
def test_books_that_kraken_sent(migrated_url: str, recordings: Path, name: str, depth: int) -> None:
    """Prevents what Kraken really sends, such as levels that are pushed out and come back, from being read wrong."""
    frames = (recordings / name).read_bytes().splitlines()
    records = records_of(frames, [PAIR], depth)
    store(migrated_url, records)
    times = sorted({read_time(record.event_time) for record in records if isinstance(record, BookRow)})
    with history.connect(migrated_url) as connection:
        for since in random.Random(3).sample(times[1:-1], min(10, len(times) - 2)):
            until = times[min(len(times) - 1, times.index(since) + 50)]
            book = history.book_at(connection, PAIR, until - timedelta(microseconds=1))
            assert replayed(history.updates(connection, PAIR, since, until)) == (dict(book.bids), dict(book.asks))
            changes = list(history.levels(connection, PAIR, since, until))
            last = {(change.side, change.price): change.size for change in changes}
            held = {key: size for key, size in last.items() if size}
            assert held == {("bid", level.price): level.size for level in book.bids} | {
                ("ask", level.price): level.size for level in book.asks
            }


def test_a_day_begins_with_the_checkpoint_of_midnight(connection: Connection) -> None:
    """Prevents two snapshots where the collector has stored one for just this."""
    found = list(history.updates(connection, PAIR, MIDNIGHT))
    assert [row.event_time == MIDNIGHT for row in found[:2]] == [True, False]
    assert found[0] in list(history.updates(connection, PAIR, BEGIN))


def test_a_quiet_range_still_has_its_book(connection: Connection) -> None:
    """Prevents a range in which nothing happened from looking like one that nobody watched."""
    times = [read_time(row.event_time) for row in rows_of(PAIR) if row.chain < 100]
    before, after = max(itertools.pairwise(sorted(set(times))), key=lambda pair: pair[1] - pair[0])
    since = before + (after - before) / 3
    (snapshot,) = history.updates(connection, PAIR, since, since + (after - before) / 3)
    assert (snapshot.type, snapshot.event_time) == ("snapshot", since)
    assert not list(history.updates(connection, PAIR, MIDNIGHT + 70 * SECOND, MIDNIGHT + 80 * SECOND)), "in the gap"


@pytest.mark.parametrize("levels", [1, 12])
def test_samples_are_the_books_of_their_times(connection: Connection, levels: int) -> None:
    """Prevents a sample of another time, one that is missing, and one of a time that nobody watched."""
    every = timedelta(milliseconds=2500)
    since, until = BEGIN + timedelta(seconds=3.3), BEGIN + timedelta(seconds=269)
    found = {sample.event_time: sample for sample in history.top(connection, PAIR, every, levels, since, until)}
    at = BEGIN + 2 * every
    seen = 0
    while at < until:
        try:
            book = history.book_at(connection, PAIR, at, levels)
        except history.NoBook:
            assert at not in found
        else:
            assert (found[at].bids, found[at].asks) == (book.bids, book.asks)
            seen += 1
        at += every
    assert seen == len(found) > 50


def test_candles_are_cut_at_no_day(connection: Connection) -> None:
    """Prevents a candle that is given in two halves where the trades of two days are read one after the other."""
    for width in (timedelta(seconds=7), timedelta(minutes=5), timedelta(days=3)):
        found = [
            tuple(candle._replace(bucket=candle.bucket.replace(tzinfo=None)))
            for candle in history.candles(connection, PAIR, width)
        ]
        whole = connection.execute(
            "SELECT * FROM kraken_candles(%s, %s, '2000-01-01', '2100-01-01')", [PAIR, width]
        ).fetchall()
        assert found == whole


def test_coverage_is_the_table(connection: Connection) -> None:
    """Prevents a time from being called watched that was not."""
    found = list(history.coverage(connection))
    assert len(found) == 2 * 2 * 2
    stored = connection.execute(f"SELECT {', '.join(history.Run._fields)} FROM kraken_coverage").fetchall()
    utc = [
        tuple(value.replace(tzinfo=UTC) if isinstance(value, datetime) else value for value in row) for row in stored
    ]
    assert sorted(map(tuple, found), key=repr) == sorted(utc, key=repr)
    late = list(history.coverage(connection, PAIR, MIDNIGHT + 75 * SECOND))
    assert {(run.pair, run.channel) for run in late} == {(PAIR, "book"), (PAIR, "trade")}


def test_arrow_has_the_same_values(connection: Connection) -> None:
    """Prevents a digit, a time or a NULL from being changed on the way to Arrow."""
    for result in (
        history.trades(connection, PAIR),
        history.candles(connection, PAIR, timedelta(seconds=7)),
        history.levels(connection, PAIR),
        history.coverage(connection),
    ):
        rows = [row._asdict() for row in result]
        assert result.to_arrow().to_pylist() == rows
    updates = history.updates(connection, PAIR)
    for row, found in zip(updates.to_arrow().to_pylist(), updates, strict=True):
        assert [tuple(level.values()) for level in row["bids"]] == [tuple(level) for level in found.bids]
        assert [tuple(level.values()) for level in row["asks"]] == [tuple(level) for level in found.asks]
        assert row["evicted"] == (None if found.evicted is None else found.evicted._asdict())
        assert row["checksum"] == found.checksum
    nothing = history.trades(connection, "SOL/USD").to_arrow()
    assert (nothing.num_rows, nothing.schema) == (0, history.trades(connection, PAIR).to_arrow().schema)
    assert nothing.schema.field("price").type == pa.decimal128(38, 12)


def test_a_side_with_fewer_levels_is_padded(connection: Connection) -> None:
    """Prevents the columns of one level from being taken for those of another."""
    samples = history.top(connection, PAIR, timedelta(seconds=30), 12)
    for row, sample in zip(samples.to_arrow().to_pylist(), samples, strict=True):
        prices = [row[f"bid_price_{number}"] for number in range(1, 13)]
        assert prices == [*(level.price for level in sample.bids), None, None]
        assert row["ask_size_12"] is None


def test_text_is_what_postgresql_writes(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents CSV with other digits than those that are stored, and blocks that break a line."""
    monkeypatch.setattr(history_rows, "BLOCK_BYTES", 1000)
    blocks = list(history.trades(connection, PAIR).blocks())
    assert len(blocks) > 10
    text = b"".join(block.text for block in blocks).decode()
    rows = list(csv.reader(io.StringIO(text)))
    assert [block.text.count(b"\n") for block in blocks] == [block.rows for block in blocks]
    expected = connection.execute(
        "SELECT price::text, volume::text FROM kraken_trades WHERE pair = %s ORDER BY event_time, trade_id", [PAIR]
    ).fetchall()
    assert [tuple(row[1:3]) for row in rows] == expected


def test_a_long_result_is_not_held(migrated_url: str) -> None:
    """Prevents a result of a year from taking the memory of a year."""
    with history.connect(migrated_url) as connection:
        connection.execute(
            "INSERT INTO kraken_trades SELECT '2026-01-01'::timestamp + number * interval '1 second', 'BTC/USD',"
            " 60000.1, 0.12345678, 'buy', 'limit', number FROM generate_series(1, 150000) AS number"
        )
        tracemalloc.start()
        try:
            size = sum(len(block.text) for block in history.trades(connection, "BTC/USD").blocks())
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert size > 9_000_000
    assert peak < 3_000_000


def test_numbers_that_do_not_fit_arrow_are_refused(migrated_url: str) -> None:
    """Prevents a number from being rounded without a word, and words of Kraken's from being mangled."""
    with history.connect(migrated_url) as connection:
        for number, price in enumerate(["0.1234567890123", "1"]):
            connection.execute(
                "INSERT INTO kraken_trades VALUES ('2026-01-01', 'BTC/USD', %s, 1, 'buy', %s, %s)",
                [Decimal(price), 'an "odd",\nword', number + 1],
            )
        assert [(str(trade.price), trade.order_type) for trade in history.trades(connection, "BTC/USD")] == [
            ("0.1234567890123", 'an "odd",\nword'),
            ("1", 'an "odd",\nword'),
        ]
        with pytest.raises(history.DoesNotFit, match=r"decimal\(38, 12\)"):
            history.trades(connection, "BTC/USD").to_arrow()
        connection.execute("DELETE FROM kraken_trades WHERE price < 1")
        (row,) = history.trades(connection, "BTC/USD").to_arrow().to_pylist()
        assert (row["price"], row["order_type"]) == (1, 'an "odd",\nword')


def test_books_that_do_not_fit_arrow_are_refused(migrated_url: str) -> None:
    """Prevents levels, which take another way into Arrow than trades, from being rounded."""
    store(migrated_url, simulate(count=200))
    with history.connect(migrated_url) as connection:
        connection.execute(
            "UPDATE kraken_orderbook SET bids = '[[0.1234567890123, 1]]' WHERE pair = 'BTC/USD' AND seq = 5"
        )
        with pytest.raises(history.DoesNotFit, match=r"decimal\(38, 12\)"):
            history.updates(connection, "BTC/USD").to_arrow()


def test_rows_that_are_missing_are_told(migrated_url: str) -> None:
    """Prevents a damaged book from being read as if it were whole."""
    records = simulate()
    store(migrated_url, records)
    rows = [row for row in records if isinstance(row, BookRow) and row.pair == PAIR]
    lost = 20
    resumed = next(row.seq for row in rows if row.seq > lost and row.type == "snapshot")
    with history.connect(migrated_url) as connection:
        connection.execute("DELETE FROM kraken_orderbook WHERE pair = %s AND seq = %s", [PAIR, lost])
        with pytest.warns(history.MissingRows, match=f"row seq {lost} is missing"):
            found = list(history.updates(connection, PAIR))
        assert [row.seq for row in found] == [*range(lost), *range(resumed, len(rows))]
        told: list[str] = []
        last = replayed(history.updates(connection, PAIR, on_missing=told.append))
        assert len(told) == 1
        since, until = rows[0].event_time, rows[-1].event_time
        changes = [*history.levels(connection, PAIR, read_time(since), on_missing=told.append)]
        flat: tuple[dict, dict] = {}, {}
        for change in changes:
            flat[change.side == "ask"][change.price] = change.size
        assert tuple({price: size for price, size in side.items() if size} for side in flat) == last, until


def test_what_retention_left_is_read(migrated_url: str) -> None:
    """Prevents the rest of a chain, whose first snapshot was dropped, from being read as damaged or as a whole."""
    records = simulate()
    store(migrated_url, records)
    rows = [row for row in records if isinstance(row, BookRow) and row.pair == PAIR]
    kept = next(row for row in rows if row.seq and row.type == "snapshot")
    with history.connect(migrated_url) as connection, warnings.catch_warnings():
        warnings.simplefilter("error")
        connection.execute("DELETE FROM kraken_orderbook WHERE seq < %s", [kept.seq - 3])
        connection.execute("UPDATE kraken_coverage SET dropped_before = %s", [kept.event_time])
        assert [row.seq for row in history.updates(connection, PAIR)] == list(range(kept.seq, len(rows)))


def test_books_that_failed_an_audit_have_no_deep_samples(migrated_url: str) -> None:
    """Prevents levels from being given that an audit found wrong."""
    store(migrated_url, simulate())
    with history.connect(migrated_url) as connection:
        times = [sample.event_time for sample in history.top(connection, PAIR, SECOND, 11)]
        connection.execute("UPDATE kraken_coverage SET suspect_since = %s", [times[9].replace(tzinfo=None)])
        assert [sample.event_time for sample in history.top(connection, PAIR, SECOND, 11)] == times[:9]
        assert [sample.event_time for sample in history.top(connection, PAIR, SECOND, 10)] == times


def test_one_reading_at_a_time(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents two readings of one connection from mixing their rows, or failing in a way that nobody understands."""
    monkeypatch.setattr(history_rows, "BLOCK_BYTES", 1)
    first = iter(history.trades(connection, PAIR))
    next(first)
    with pytest.raises(RuntimeError, match="open a second connection"):
        next(iter(history.updates(connection, PAIR)))
    first.close()  # type: ignore[attr-defined]
    assert next(iter(history.updates(connection, PAIR))).seq == 0


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda c: history.trades(c, PAIR, datetime(2023, 1, 1)), "needs a zone"),  # noqa: DTZ001 - that is the fault
        (lambda c: history.updates(c, PAIR, MIDNIGHT, MIDNIGHT), "must be after since"),
        (lambda c: history.candles(c, PAIR, timedelta()), "must be positive"),
        (lambda c: history.top(c, PAIR, timedelta(), 1), "must be positive"),
        (lambda c: history.top(c, PAIR, SECOND, 0), "one level or more"),
    ],
)
def test_what_makes_no_sense_is_refused(connection: Connection, call, what: str) -> None:
    """Prevents an empty result where the question was wrong."""
    with pytest.raises(ValueError, match=what):
        call(connection)


def test_a_lost_database_is_told(market_url: str) -> None:
    """Prevents a result that ends early from being taken for all there is."""
    with history.connect(market_url) as connection:
        with psycopg.connect(market_url, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
        with pytest.raises(StorageUnavailable):
            list(history.updates(connection, PAIR))
