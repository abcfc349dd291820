"""Events in, records out: what is stored is gapless, verified, and exactly what coverage claims."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import chain as joined
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from collector import books
from collector.books import COVERAGE_INTERVAL, MAX_SILENCE, Books
from collector.feed import Alive, Connected, Disconnected, Doubts, FeedEvent, Subscribed
from collector.kraken.messages import BookMessage, Decoder, Malformed, TradeMessage
from collector.kraken.orderbook import OrderBook, parse_level
from collector.kraken.times import format_time
from collector.records import BookRow, Coverage, Record, Trade
from collector.rows import ChainNumbers
from collector.settings import Settings
from collector.statistics import Statistics

START = datetime(2026, 8, 24, 23, 59, 30, tzinfo=UTC)
PAIRS = ("BTC/USD", "ETH/EUR")
DEPTH = 10
COPIES = 20


def at(seconds: float) -> str:
    return format_time(START + timedelta(seconds=seconds))


class Kraken:
    """The true book of a pair, and messages about it."""

    def __init__(self, pair: str, depth: int = DEPTH) -> None:
        self.pair = pair
        self.book = OrderBook(depth)
        self.change(
            "".join(f"{20 - tick}.0:1.50 " for tick in range(9)), "".join(f"{31 + tick}.0:2.00 " for tick in range(9))
        )

    def change(self, bids: str = "", asks: str = "", time: str | None = None) -> BookMessage:
        sides = [[parse_level(*entry.encode().split(b":")) for entry in side.split()] for side in (bids, asks)]
        self.book.apply(*sides)
        return BookMessage(self.pair, "update", *sides, self.book.checksum(), time)

    def snapshot(self, time: str | None) -> BookMessage:
        sides = [side.best(DEPTH) for side in (self.book.bids, self.book.asks)]
        return BookMessage(self.pair, "snapshot", *sides, self.book.checksum(), time)


class Asked(list[tuple[int, str]]):
    """The resyncs that were asked for."""

    def add(self, connection: int, pair: str) -> None:
        self.append((connection, pair))


class World:
    """Books on a connection, what was asked of it, and what has been stored of it."""

    def __init__(self, pairs: tuple[str, ...] = PAIRS, depth: int = DEPTH, *, clock_steps_back: bool = False) -> None:
        self.asked, self.statistics, self.stored = Asked(), Statistics(), list[Record]()
        hours = iter(range(10**9)) if clock_steps_back else iter(lambda: 0, None)
        numbers = ChainNumbers(lambda: START - timedelta(hours=next(hours)), 0)
        configured = Settings(database_url="postgresql://h/d", pairs=pairs, book_depth=depth, snapshot_interval=60)
        self.books = Books(configured, self.asked, Doubts(), numbers, self.statistics, lambda: START)

    def take(self, *events: FeedEvent, now: float = 0.0) -> list[Record]:
        records = self.books.take(list(events), now)
        self.stored += records
        return records

    def opened(self, *pairs: str, connection: int = 1) -> None:
        self.take(Connected(connection))
        for pair in pairs or PAIRS:
            self.take(
                Subscribed(connection, "trade", pair, at(0)),
                Subscribed(connection, "book", pair, at(0)),
                Kraken(pair).snapshot(at(0)),
            )

    def coverage(self) -> dict[int, Coverage]:
        """The last word on each run."""
        return {record.chain: record for record in self.stored if isinstance(record, Coverage)}

    def chains(self) -> dict[int, list[BookRow]]:
        chains: dict[int, list[BookRow]] = {}
        for row in self.stored:
            if isinstance(row, BookRow):
                chains.setdefault(row.chain, []).append(row)
        return chains

    def check(self) -> None:
        """What holds at any moment: chains without holes, and coverage of exactly what is stored."""
        claimed = {number: coverage for number, coverage in self.coverage().items() if coverage.channel == "book"}
        assert {number: len(rows) for number, rows in self.chains().items()} == {
            number: coverage.rows for number, coverage in claimed.items()
        }
        for number, rows in self.chains().items():
            assert [row.seq for row in rows] == list(range(len(rows)))
            assert {row.pair for row in rows} == {claimed[number].pair}
            assert claimed[number].started_at == rows[0].event_time <= rows[-1].event_time <= claimed[number].last_at
            assert claimed[number].updates == sum(row.type == "update" for row in rows)


def rebuilt_checksums(rows: list[BookRow]) -> list[int]:
    """The checksum after each row of a chain, by the rule of plain SQL: the last word on each price counts."""
    words: dict[str, dict[Decimal, tuple[bytes, bytes]]] = {"bids": {}, "asks": {}}
    checksums = []
    for row in rows:
        evicted = msgspec.json.decode(row.evicted or b"{}", type=dict[str, list[msgspec.Raw]])
        book = OrderBook(1000)
        for side, target in (("bids", book.bids), ("asks", book.asks)):
            if row.type == "snapshot":
                words[side] = {}
            for price, size in msgspec.json.decode(getattr(row, side), type=list[tuple[msgspec.Raw, msgspec.Raw]]):
                words[side][Decimal(bytes(price).decode())] = (bytes(price), bytes(size))
            for price in evicted.get(side, []):
                del words[side][Decimal(bytes(price).decode())]
            target.apply(parse_level(*word) for word in words[side].values())
        checksums.append(book.checksum())
    return checksums


def trade(trade_id: int, pair: str = "BTC/USD") -> Trade:
    return Trade(at(1), pair, b"25.5", b"1", "buy", "limit", trade_id)


@pytest.mark.parametrize(
    ("name", "depth", "rows", "trades"),
    [
        ("btcusd_depth10_2023-07-30.ndjson", 10, 510, 0),
        ("btcusd_depth10_2023-08-30_reshaped.ndjson", 10, 980, 0),
        ("tenpairs_depth1000_2021-04-17_reshaped.ndjson", 1000, 4279, 10),
    ],
)
def test_recordings_become_rows_that_rebuild_the_book(
    recordings: Path, name: str, depth: int, rows: int, trades: int
) -> None:
    """Prevents any loss between Kraken's wire and the records, snapshots without a time included."""
    decoder = Decoder(lambda: START)
    messages = list(joined.from_iterable(map(decoder.decode, (recordings / name).read_text().splitlines())))
    pairs = tuple(dict.fromkeys(message.pair for message in messages if isinstance(message, BookMessage)))
    world = World(pairs, depth)
    world.take(Connected(1), *[Subscribed(1, channel, pair, None) for pair in pairs for channel in ("trade", "book")])
    for start in range(0, len(messages), 500):
        world.take(*messages[start : start + 500])
        world.check()
    kinds = Counter(type(record) for record in world.stored)
    assert (sum(row.seq == 0 for row in world.stored if isinstance(row, BookRow)), kinds[Trade]) == (len(pairs), trades)
    own_checkpoints = sum(row.type == "snapshot" and row.seq > 0 for chain in world.chains().values() for row in chain)
    assert kinds[BookRow] - own_checkpoints == rows
    assert (world.asked, world.statistics.desyncs.total()) == ([], 0)
    for chain in world.chains().values() if depth == DEPTH else []:
        assert rebuilt_checksums(chain) == [row.checksum for row in chain]


def test_trades_of_several_pairs_by_their_ids() -> None:
    """Prevents trades of two pairs from being stored as of one, out of order, or with pairs that nobody asked for."""
    world = World()
    world.opened()
    theirs = [trade(7), trade(3, "ETH/EUR"), trade(6), trade(5, "ADA/USD")]
    records = world.take(TradeMessage("update", theirs))
    assert [record for record in records if isinstance(record, Trade)] == [theirs[1], theirs[2], theirs[0]]
    claimed = {coverage.pair: coverage.rows for coverage in records if isinstance(coverage, Coverage)}
    assert claimed == {"BTC/USD": 2, "ETH/EUR": 1}
    assert world.statistics.pairs["BTC/USD"].last_trade == b"25.5"


def test_pairs_that_nobody_asked_for_are_ignored() -> None:
    """Prevents a crash, or a book that nobody holds, when the server sends something else."""
    world = World()
    world.opened()
    assert world.take(Kraken("ADA/USD").snapshot(at(0)), Malformed("bad", "book", "ADA/USD", "x")) == []
    assert world.asked == []


def test_desync_costs_one_pair_one_resync() -> None:
    """Prevents a request for each bad message, which Kraken answers by refusing all, and harm to other pairs."""
    world, kraken, other = World(), Kraken("BTC/USD"), Kraken("ETH/EUR")
    world.opened(connection=4)
    bad = msgspec.structs.replace(kraken.change("19.5:1", time=at(1)), checksum=0)
    world.take(
        bad, bad, Malformed("bad", "book", "BTC/USD", "x"), other.change("19.5:1", time=at(1)), kraken.snapshot(at(1))
    )
    assert world.asked == [(4, "BTC/USD")]
    world.check()
    ends = {coverage.pair: coverage.end_reason for coverage in world.coverage().values() if coverage.channel == "book"}
    assert ends == {"BTC/USD": "checksum", "ETH/EUR": None}
    world.take(Subscribed(4, "book", "BTC/USD", at(2)), kraken.snapshot(at(2)), kraken.change("19.5:2", time=at(3)))
    world.check()
    assert len(world.chains()) == 3
    assert world.statistics.desyncs == {"checksum": 1}


def test_malformed_is_counted_sampled_and_resynced_where_it_matters() -> None:
    """Prevents a lost book message from going unnoticed, and a lost trade from costing the book."""
    world = World()
    world.opened("BTC/USD")
    for _ in range(COPIES):
        world.take(Malformed("bad", "trade", "BTC/USD", "x"), Malformed("bad", None, None, "x"))
    assert world.asked == []
    world.take(*[Malformed("bad", "book", "BTC/USD", "x")] * 3)
    assert world.asked == [(1, "BTC/USD")]
    world.take(Subscribed(1, "book", "BTC/USD", at(1)), Malformed("bad snapshot", "book", "BTC/USD", "x"))
    assert world.asked == [(1, "BTC/USD")] * 2
    assert world.statistics.malformed == {"trade": COPIES, "frame": COPIES, "book": 4}


def test_first_bad_message_of_a_kind_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a flood of bad messages from filling the log, and the rest of them from being out of anybody's reach."""
    monkeypatch.setattr(books, "MALFORMED_LOGGED_EVERY", 5)
    world = World()
    with capture_logs() as logs:
        world.take(*[Malformed("bad", channel, None, "the frame") for channel in ("trade", None) for _ in range(7)])
    assert [log["count"] for log in logs if log["log_level"] == "warning"] == [1, 6, 1, 6]
    assert [log["count"] for log in logs] == [*range(1, 8)] * 2
    assert {(log["event"], log["reason"], log["sample"]) for log in logs} == {("malformed_message", "bad", "the frame")}


def test_each_connection_is_watched_for_itself() -> None:
    """Prevents the life of one connection from vouching for another, and its end from ending the other's runs."""
    world, kraken = World(), Kraken("ETH/EUR")
    world.opened("BTC/USD", connection=1)
    world.opened("ETH/EUR", connection=2)
    for second in range(1, 11):
        world.take(kraken.change(f"19.5:{second}", time=at(second)), now=float(second))
    ended = world.take(Disconnected(1, "silent", 0.5), now=11.0)
    assert {(run.pair, run.last_at) for run in ended} == {("BTC/USD", at(0.5))}
    (report,) = [run for run in world.take(Alive(2), now=11.0) if run.channel == "book"]
    assert (report.pair, report.last_at, report.end_reason) == ("ETH/EUR", at(11), None)


def test_disconnect_ends_every_run_when_it_was_last_alive() -> None:
    """Prevents coverage of the time in which a dead connection was not noticed, and runs across connections."""
    world, kraken = World(), Kraken("BTC/USD")
    world.opened()
    ended = world.take(Disconnected(1, "silent", 1.5), now=13.0)
    assert {(run.pair, run.channel, run.ended_at, run.end_reason) for run in ended} == {
        (pair, channel, at(1.5), "silent") for pair in PAIRS for channel in ("book", "trade")
    }
    assert world.take(kraken.change("19.5:1", time=at(14)), Disconnected(1, "again", 14.0), now=14.0) == []
    world.opened(connection=2)
    assert len(world.chains()) == 4
    world.take(msgspec.structs.replace(kraken.snapshot(at(15)), checksum=0))
    assert world.asked == [(2, "BTC/USD")]


def test_quiet_runs_are_reported_at_intervals() -> None:
    """Prevents a quiet market from looking like one that nobody watched, and a report for each heartbeat."""
    world = World()
    world.opened("BTC/USD")
    reports = [len(world.take(Alive(1), now=1.0 + second)) for second in range(int(2 * COVERAGE_INTERVAL))]
    assert reports == [0, 0, 0, 0, 2, 0, 0, 0, 0, 2]
    assert {coverage.last_at for coverage in world.coverage().values()} == {at(10)}


def test_time_in_which_nothing_was_read_is_not_watched() -> None:
    """Prevents coverage of the hours for which the process was frozen, when it then reads what had come before."""
    world = World()
    world.opened("BTC/USD")
    world.take(Alive(1), Disconnected(1, "closed_1006", 3600.0), now=3600.0)
    assert {coverage.ended_at for coverage in world.coverage().values()} == {at(MAX_SILENCE)}


def test_trade_run_without_a_time_begins_now() -> None:
    """Prevents a run without a beginning when the server's answer tells no time."""
    world = World()
    world.take(Connected(1), Subscribed(1, "trade", "BTC/USD", None), TradeMessage("update", []))
    for second in range(int(COVERAGE_INTERVAL)):
        world.take(Alive(1), now=1.0 + second)
    assert [coverage.started_at for coverage in world.coverage().values()] == [at(0)]


def test_market_as_last_seen() -> None:
    """Prevents a live line that shows old prices, or digits that Kraken never sent."""
    world, kraken = World(), Kraken("BTC/USD")
    world.opened()
    world.take(kraken.change("20.50:1", "30.10:1 31.0:0", at(1)))
    state = world.statistics.pairs["BTC/USD"]
    assert (state.best_bid, state.best_ask) == (b"20.50", b"30.10")


happenings = st.sampled_from(
    [*["update"] * 12, "spoilt", "missed", "unasked", "timeless", "malformed", "reconnect", "day"]
)
prices = st.sampled_from([f"{tick}.{half}" for tick in range(11, 21) for half in ("0", "5")])
steps = st.tuples(happenings, st.sampled_from(PAIRS), prices, st.sampled_from(["0", "0.5", "1.00"]), st.booleans())


@settings(max_examples=100)
@given(st.lists(st.lists(steps, max_size=8), max_size=12))
def test_any_stream_gives_gapless_chains_that_rebuild_the_book(
    batches: list[list[tuple[str, str, str, str, bool]]],
) -> None:
    """Prevents a hole in seq, an unverified row, wrong coverage, or a resync too many, whatever happens and when."""
    world, markets, seconds, connection = World(clock_steps_back=True), {pair: Kraken(pair) for pair in PAIRS}, 0.0, 0
    waiting: set[str] = set()
    for batch in [[("reconnect", PAIRS[0], "11.0", "1", True)], *batches]:
        events: list[FeedEvent] = []
        for happening, pair, price, size, dated in batch:
            seconds += 86_400 if happening == "day" else 7
            market, time = markets[pair], at(seconds)
            message = market.change(f"{price}:{size}", f"{Decimal(price) + 20}:{size}", time)
            if happening == "reconnect":
                connection += 1
                events += [Disconnected(connection - 1, "closed_1012", seconds), Connected(connection)]
                waiting = set(PAIRS)
            if pair in waiting:
                waiting.remove(pair)
                events += [Subscribed(connection, "book", pair, time), market.snapshot(time if dated else None)]
            elif happening == "unasked":
                events.append(market.snapshot(time))
            elif happening == "malformed":
                events.append(Malformed("bad", "book", pair, "x"))
            elif happening == "timeless":
                events.append(msgspec.structs.replace(message, timestamp=None))
            elif happening != "missed":
                events.append(msgspec.structs.replace(message, checksum=message.checksum ^ (happening == "spoilt")))
        before = len(world.asked)
        world.take(*events, now=seconds)
        waiting |= {pair for number, pair in world.asked[before:] if number == connection}
        world.check()
    world.stored += world.books.shut_down()
    world.check()
    assert len(world.asked) == world.statistics.desyncs.total()
    assert all(coverage.end_reason for coverage in world.coverage().values())
    assert list(world.chains()) == sorted(world.chains())
    for rows in world.chains().values():
        assert rebuilt_checksums(rows) == [row.checksum for row in rows]
