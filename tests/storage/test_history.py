"""The book as SQL rebuilds it: equal, on every level, to a replay that shares no code with the collector."""

import json
import random
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import psycopg
import pytest

from collector.errors import UnusableDatabase
from collector.kraken.messages import BookMessage, Decoder
from collector.kraken.simulator.simulation import Simulation
from collector.kraken.times import format_time, read_time
from collector.records import Audit, BookRow, Coverage, Difference, Record
from collector.rows import BookRows, ChainNumbers
from collector.storage.database import Connection, connect
from collector.storage.history import NoBook, book_at
from collector.storage.segments import Header, encode_header, encode_records, read_segment
from collector.storage.shipping import prepare, ship

PAIR = "BTC/USD"
START = datetime(2026, 8, 24, 22, 30, tzinfo=UTC)
NOON = "2026-08-24T12:00:00.000000Z"
Levels: TypeAlias = tuple[list[tuple[str, str]], list[tuple[str, str]]]  # bids and asks: price, size


@pytest.fixture
def connection(migrated_url: str) -> Iterator[Connection]:
    with connect(migrated_url, application_name="tests") as opened:
        prepare(opened)
        yield opened


def store(connection: Connection, records: Sequence[Record]) -> None:
    """Ship records as the collector does, in segments of a spool of their own."""
    spool = uuid4()
    for number, first in enumerate(range(0, len(records), 5000)):
        header = encode_header(Header(spool, number, None, 0))
        segment = read_segment(header + encode_records(records[first : first + 5000]))
        assert segment is not None
        ship(connection, segment)
    connection.execute("ANALYZE kraken_orderbook")


def rows_of(frames: Sequence[str], depth: int, reason: str | None = None) -> list[Record]:
    """What the collector stores of one connection's book frames."""
    decoder = Decoder(lambda: datetime.now(UTC))
    numbers = ChainNumbers(lambda: datetime.now(UTC), 0)
    books: dict[str, BookRows] = {}
    records: list[Record] = []
    for frame in frames:
        for message in decoder.decode(frame):
            if isinstance(message, BookMessage):
                if message.pair not in books:
                    books[message.pair] = BookRows(message.pair, depth, 600, numbers)
                    books[message.pair].subscribed()
                records += books[message.pair].take(message, 0.0)
    runs = [book.run for book in books.values()]
    records += [run.coverage(0.0, reason) for run in runs if run is not None]
    return records


class Replay:
    """A book kept the plain way: two dictionaries, cut after each message."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.bids: dict[Decimal, Decimal] = {}
        self.asks: dict[Decimal, Decimal] = {}

    def apply(self, message: dict[str, Any]) -> None:
        if message["type"] == "snapshot":
            self.bids, self.asks = {}, {}
        for name in ("bids", "asks"):
            side = getattr(self, name)
            for level in message[name]:
                side.pop(level["price"], None)  # not only its size: its price may come with other digits
                if level["qty"]:
                    side[level["price"]] = level["qty"]
            while len(side) > self.depth:
                del side[min(side) if name == "bids" else max(side)]

    @property
    def levels(self) -> Levels:
        return digits(sorted(self.bids.items(), reverse=True)), digits(sorted(self.asks.items()))


def digits(levels: Iterable[tuple[Decimal, Decimal]]) -> list[tuple[str, str]]:
    return [(str(price), str(size)) for price, size in levels]


def read(connection: Connection, pair: str, at: datetime) -> Levels:
    book = book_at(connection, pair, at)
    return digits(book.bids), digits(book.asks)


def book_messages(frames: Sequence[str]) -> list[dict[str, Any]]:
    parsed = (json.loads(frame, parse_float=Decimal, parse_int=Decimal) for frame in frames)
    return [
        book | {"type": frame["type"]} for frame in parsed if frame.get("channel") == "book" for book in frame["data"]
    ]


def after(minutes: float) -> int:
    """A time of the simulation, in nanoseconds."""
    return int((START + timedelta(minutes=minutes)).timestamp()) * 10**9


@pytest.mark.parametrize("depth", [10, 1000])
def test_book_at_any_time_of_an_hour(connection: Connection, depth: int) -> None:
    """Prevents a book that was ever cut, checkpointed, carried over midnight or broken off from being read wrong."""
    pairs = (PAIR, "ETH/USD")
    simulation = Simulation(pairs, seed=depth, rate=5, depths=[depth], start=after(0))
    tapes = []
    for minutes in (95, 125):  # over midnight; the second begins 1 minute after the end of the first
        frames = [market.snapshot(depth) for market in simulation.markets.values()]
        frames += [step.books[depth] for _, step in simulation.advance(after(minutes)) if depth in step.books]
        tapes.append([frame.decode() for frame in frames])
        store(connection, rows_of(tapes[-1], depth, "closed_1012"))
        deque(simulation.advance(after(minutes + 1)), maxlen=0)
    chance = random.Random(depth)
    times = sorted(START + timedelta(minutes=chance.uniform(65, 124.9)) for _ in range(500))
    for pair in pairs:
        tape = iter([message for frames in tapes for message in book_messages(frames) if message["symbol"] == pair])
        message, replay, unseen = next(tape), Replay(depth), 0
        for at in times:
            while read_time(message["timestamp"]) <= at:
                replay.apply(message)
                message = next(tape)
            if after(95) < at.timestamp() * 10**9 < after(96) - 10**9:
                unseen += 1
                with pytest.raises(NoBook, match="closed_1012"):
                    book_at(connection, pair, at)
            else:
                assert read(connection, pair, at) == replay.levels
        assert unseen


RECORDINGS = {
    "btcusd_depth10_2023-07-30.ndjson": (10, 1),
    "btcusd_depth10_2023-08-30_reshaped.ndjson": (10, 1),
    "btcusd_depth10_2026-08-24_frames.ndjson": (10, 1),
    "tenpairs_depth1000_2021-04-17_reshaped.ndjson": (1000, 5),
}


@pytest.mark.parametrize("name", RECORDINGS)
def test_book_at_every_time_of_a_recording(connection: Connection, recordings: Path, name: str) -> None:
    """Prevents what Kraken really sends, such as levels that are pushed out and come back, from being read wrong."""
    depth, step = RECORDINGS[name]
    frames = (recordings / name).read_text().splitlines()
    store(connection, rows_of(frames, depth))
    messages = book_messages(frames)
    for pair in sorted({message["symbol"] for message in messages}):
        own = [message for message in messages if message["symbol"] == pair]
        times = [read_time(message.get("timestamp") or own[1]["timestamp"]) for message in own]
        replay, applied = Replay(depth), 0
        assert times == sorted(times)
        for at in times[::step]:
            for message in own[applied : (applied := bisect_right(times, at))]:
                replay.apply(message)
            assert read(connection, pair, at) == replay.levels


def disordered_run(chance: random.Random, chain: int) -> list[BookRow]:
    """A run of single levels whose times waver by 4 seconds, and at times are hours ahead."""
    rows = []
    held: dict[int, int] = {}
    for seq in range(300):
        at = START + timedelta(seconds=seq + chance.uniform(-4, 4))
        if seq and chance.random() < 0.02:
            at += timedelta(hours=chance.uniform(0, 20))
        price, size = chance.randint(1, 20), chance.choice([0, chance.randint(1, 10**9)])
        if size and price not in held and len(held) == 8:
            evicted = b'{"bids":[],"asks":[%d]}' % max([*held, price])
        else:
            evicted = None
        held[price] = size
        held = {key: value for key, value in sorted(held.items())[:8] if value} if evicted is None else held
        if evicted is not None:
            del held[max(held)]
        held = {key: value for key, value in held.items() if value}
        if seq % 50:
            asks = b"[[%d,%d]]" % (price, size)
        else:
            asks, evicted = b"[" + b",".join(b"[%d,%d]" % level for level in sorted(held.items())) + b"]", None
        kind: Any = "update" if seq % 50 else "snapshot"
        rows.append(BookRow(format_time(START if seq == 0 else at), PAIR, b"[]", asks, kind, 0, chain, seq, evicted))
    return rows


def last_row_per_price(rows: Sequence[BookRow]) -> list[tuple[str, str]]:
    held: dict[Any, Any] = {}
    for row in rows:
        if row.type == "snapshot":
            held = {}
        for price, size in json.loads(row.asks):
            held[price] = size
        for price in json.loads(row.evicted)["asks"] if row.evicted else ():
            held[price] = 0
    return [(str(price), str(size)) for price, size in sorted(held.items()) if size]


@pytest.mark.parametrize("seed", range(3))
def test_times_that_do_not_rise(connection: Connection, seed: int) -> None:
    """Prevents a row whose time is ahead of, or behind, those around it from being left out of the book."""
    chance = random.Random(seed)
    rows = disordered_run(chance, 1)
    last_at = max(row.event_time for row in rows)
    store(connection, [*rows, Coverage(PAIR, "book", 1, rows[0].event_time, last_at, 299, 300)])
    for _ in range(60):
        at = START + timedelta(seconds=chance.uniform(0, 310))
        largest = max(row.seq for row in rows if read_time(row.event_time) <= at)
        assert read(connection, PAIR, at) == ([], last_row_per_price(rows[: largest + 1]))


def snapshot(at: str, chain: int, seq: int = 0, size: int = 1) -> BookRow:
    return BookRow(at, PAIR, b"[[99.50,%d]]" % size, b"[[100.0,%d],[101,5]]" % size, "snapshot", 0, chain, seq, None)


def run(chain: int, started_at: str, last_at: str, end_reason: str | None = None) -> Coverage:
    ended_at = last_at if end_reason else None
    return Coverage(PAIR, "book", chain, started_at, last_at, 0, 1, ended_at, end_reason)


def test_levels_limit_each_side(connection: Connection) -> None:
    """Prevents the best levels of the two sides from being mixed up."""
    store(connection, [snapshot(NOON, 1), run(1, NOON, NOON)])
    book = book_at(connection, PAIR, read_time(NOON), 1)
    assert (digits(book.bids), digits(book.asks)) == ([("99.50", "1")], [("100.0", "1")])


def test_last_entry_of_a_row_wins(connection: Connection) -> None:
    """Prevents a level that one message names twice from keeping its first size."""
    asks = b"[[100.00,7],[100,0],[101.0,6],[101,0],[101.0,8]]"
    update = BookRow(NOON, PAIR, b"[]", asks, "update", 0, 1, 1, None)
    store(connection, [snapshot(NOON, 1), update, run(1, NOON, NOON)])
    assert read(connection, PAIR, read_time(NOON))[1] == [("101.0", "8")]


def test_overlapping_runs_are_not_mixed(connection: Connection) -> None:
    """Prevents the books of two collectors that watched at once from being taken for one."""
    later = NOON.replace("12:00", "12:01")
    end = NOON.replace("12:00", "12:02")
    store(connection, [snapshot(NOON, 1, size=1), run(1, NOON, end)])
    store(connection, [snapshot(later, 2, size=2), run(2, later, later, "taken_over")])
    sizes = [book_at(connection, PAIR, read_time(at)).asks[0].size for at in (NOON, later, end)]
    assert sizes == [1, 2, 1]


def test_empty_book_is_a_book(connection: Connection) -> None:
    """Prevents a market without an offer from being told as one that nobody watched."""
    empty = BookRow(NOON, PAIR, b"[]", b"[]", "snapshot", 0, 1, 0, None)
    store(connection, [empty, run(1, NOON, NOON)])
    assert read(connection, PAIR, read_time(NOON)) == ([], [])


@pytest.mark.parametrize(
    ("pair", "at", "reason"),
    [
        ("BTC/EUR", "12:00", "nobody has ever watched it; books were collected of BTC/USD"),
        (PAIR, "11:59", "nobody was watching before 2026-08-24 12:00:00"),
        (PAIR, "12:15", r"nobody was watching from 2026-08-24 12:10:00 to 2026-08-24 12:20:00 \(closed_1012\)"),
        (PAIR, "12:35", r"nobody was watching from 2026-08-24 12:30:00 to 2026-08-24 12:40:00 \(nobody told why\)"),
        (PAIR, "12:51", "it is known up to 2026-08-24 12:50:00"),
        (PAIR, "12:45", "1 row of its run 3 is missing"),
    ],
)
def test_time_without_a_book_says_why(connection: Connection, pair: str, at: str, reason: str) -> None:
    """Prevents a stale book, or one with a hole, from being given for a time of which there is none."""
    minute = {text: NOON.replace("12:00", text) for text in ("12:10", "12:20", "12:30", "12:40", "12:44", "12:50")}
    store(connection, [snapshot(NOON, 1), run(1, NOON, minute["12:10"], "closed_1012")])
    store(connection, [snapshot(minute["12:20"], 2), run(2, minute["12:20"], minute["12:30"])])
    after_hole = BookRow(minute["12:44"], PAIR, b"[]", b"[[100,3]]", "update", 0, 3, 2, None)
    store(connection, [snapshot(minute["12:40"], 3), after_hole, run(3, minute["12:40"], minute["12:50"])])
    with pytest.raises(NoBook, match=f"no verified book of {pair} at 2026-08-24 {at}:00: {reason}"):
        book_at(connection, pair, read_time(NOON.replace("12:00", at)))


def test_database_without_any_book_says_so(connection: Connection) -> None:
    """Prevents an empty database from answering with half a sentence."""
    with pytest.raises(NoBook, match="nobody has ever watched it; no book of any pair has been collected yet"):
        book_at(connection, PAIR, START)


def test_run_that_failed_an_audit_gives_its_ten_best_levels_alone(connection: Connection) -> None:
    """Prevents a book that an audit found wrong from being given, and what is proved of it from being refused."""
    audit, end = NOON.replace("12:00", "12:01"), NOON.replace("12:00", "12:03")
    audits = [Audit(PAIR, 1, audit, []), Audit(PAIR, 1, end, [Difference("bid", "99.50", "1", None)])]
    store(connection, [snapshot(NOON, 1, size=1), run(1, NOON, end), *audits])
    assert read(connection, PAIR, read_time(audit) - timedelta(microseconds=1))[0] == [("99.50", "1")]
    for at in (audit, end):
        for levels in (None, 11):
            with pytest.raises(NoBook, match=r"an audit found it wrong below its ten best levels since .* 12:01:00"):
                book_at(connection, PAIR, read_time(at), levels)
        for levels in (1, 10):
            assert digits(book_at(connection, PAIR, read_time(at), levels).bids) == [("99.50", "1")]


def test_another_run_is_read_instead_of_one_that_failed_an_audit(connection: Connection) -> None:
    """Prevents a failed audit of one collector from hiding what another one saw right."""
    later, end = NOON.replace("12:00", "12:01"), NOON.replace("12:00", "12:03")
    store(connection, [snapshot(NOON, 1, size=1), run(1, NOON, end), snapshot(later, 2, size=2), run(2, later, end)])
    connection.execute("UPDATE kraken_coverage SET suspect_since = '2026-08-24 12:01' WHERE chain = 2")
    assert read(connection, PAIR, read_time(end))[0] == [("99.50", "1")]
    assert digits(book_at(connection, PAIR, read_time(end), 1).bids) == [("99.50", "2")]


def test_wrong_arguments_are_refused(connection: Connection) -> None:
    """Prevents a missing time or a count of 0 from reading like an empty book."""
    with pytest.raises(psycopg.errors.NullValueNotAllowed):
        connection.execute("SELECT kraken_book_at('BTC/USD', NULL)")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="levels must be 1 or more"):
        connection.execute("SELECT kraken_book_at('BTC/USD', '2026-08-24', 0)")


def test_database_of_an_older_collector_is_told(database_url: str) -> None:
    """Prevents a missing schema from being told as a fault of SQL."""
    with connect(database_url, application_name="tests") as bare, pytest.raises(UnusableDatabase, match="migrate"):
        book_at(bare, PAIR, START)
