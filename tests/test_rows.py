"""The rows of one pair, and the coverage that they prove, against a server whose book we keep ourselves."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import BookDesync
from collector.kraken.messages import BookMessage
from collector.kraken.orderbook import Level, OrderBook, parse_level
from collector.kraken.times import format_time
from collector.records import BookRow, Coverage, Trade
from collector.rows import CHECKPOINT_UPDATES, BookRows, ChainNumbers, TradeRows

START = datetime(2026, 8, 24, 12, 0, 0, tzinfo=UTC)
INTERVAL = 600.0  # seconds between checkpoints
DEPTH = 3


def at(seconds: float) -> str:
    return format_time(START + timedelta(seconds=seconds))


def levels(text: str) -> list[Level]:
    """Read `price size, price size`."""
    return [parse_level(*entry.encode().split()) for entry in text.split(",") if entry.strip()]


class Server:
    """Kraken's side: the true book, and messages about it."""

    def __init__(self, depth: int = DEPTH) -> None:
        self.book = OrderBook(depth)
        self.book.replace(levels("9.0 1.50, 8.0 2.00, 7.0 1.00"), levels("10.0 1.00, 11.0 2.50"))

    def snapshot(self, time: str | None) -> BookMessage:
        bids, asks = (side.best(DEPTH) for side in (self.book.bids, self.book.asks))
        return BookMessage("BTC/USD", "snapshot", bids, asks, self.book.checksum(), time)

    def update(self, time: str | None, bids: str = "", asks: str = "") -> BookMessage:
        self.book.apply(levels(bids), levels(asks))
        return BookMessage("BTC/USD", "update", levels(bids), levels(asks), self.book.checksum(), time)


def spoilt(message: BookMessage) -> BookMessage:
    return msgspec.structs.replace(message, checksum=message.checksum ^ 1)


def new_rows(depth: int = DEPTH) -> BookRows:
    rows = BookRows("BTC/USD", depth, INTERVAL, ChainNumbers(lambda: START, 0))
    rows.subscribed()
    return rows


def take(rows: BookRows, *messages: BookMessage, now: float = 0.0) -> list[BookRow]:
    return [row for message in messages for row in rows.take(message, now)]


def desync(rows: BookRows, message: BookMessage, reason: str) -> list[Coverage]:
    """The run that a message ends because it breaks the book."""
    with pytest.raises(BookDesync, match=reason):
        rows.take(message, 0.0)
    return rows.end(reason, 0.0)


def test_snapshot_and_updates_become_rows() -> None:
    """Prevents lost digits, a wrong order of levels, and columns that differ from the contract."""
    server, rows = Server(), new_rows()
    chain = (START - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    snapshot, update = server.snapshot(at(0)), server.update(at(1), bids="9.5 0.10, 8.0 0.00000000", asks="10.0 3")
    assert take(rows, snapshot, update) == [
        BookRow(
            *(at(0), "BTC/USD", b"[[9.0,1.50],[8.0,2.00],[7.0,1.00]]", b"[[10.0,1.00],[11.0,2.50]]"),
            *("snapshot", snapshot.checksum, chain, 0, None),
        ),
        BookRow(
            *(at(1), "BTC/USD", b"[[9.5,0.10],[8.0,0.00000000]]", b"[[10.0,3]]"),
            *("update", update.checksum, chain, 1, None),
        ),
    ]


def test_evicted_prices_are_told() -> None:
    """Prevents rows from which plain SQL cannot rebuild the book."""
    server, rows = Server(), new_rows()
    (_, both, none) = take(
        rows,
        server.snapshot(at(0)),
        server.update(at(1), "9.9 1, 9.8 1", "9.95 1, 12 1"),
        server.update(at(2), "9.8 2"),
    )
    assert (both.evicted, none.evicted) == (b'{"bids":[8.0,7.0],"asks":[12]}', None)


def test_undated_snapshot_takes_the_time_of_the_first_update() -> None:
    """Prevents a snapshot with a time of our own clock, or with none."""
    server, rows = Server(), new_rows()
    assert take(rows, server.snapshot(None)) == []
    snapshot, update, later = take(rows, server.update(at(5), "9.5 1"), server.update(at(6), "9.5 2"))
    assert (snapshot.event_time, snapshot.type, snapshot.seq) == (at(5), "snapshot", 0)
    assert (update.event_time, update.type, update.seq) == (at(5), "update", 1)
    assert (later.event_time, later.type, later.seq, later.chain) == (at(6), "update", 2, snapshot.chain)
    assert rows.run is not None
    assert rows.run.started_at == at(5)


def test_undated_snapshot_starts_nothing_when_the_first_update_is_bad() -> None:
    """Prevents a run that begins at the time of a message that is not to be trusted."""
    server, rows = Server(), new_rows()
    take(rows, server.snapshot(None))
    assert desync(rows, spoilt(server.update(at(5), "9.5 1")), "checksum") == []


@pytest.mark.parametrize(
    ("bids", "time", "reason"),
    [("9.5 1", at(2), "checksum"), ("9.5 1", None, "update_without_time"), ("11.5 1", at(2), "crossed")],
)
def test_bad_message_makes_no_row_and_ends_the_run(bids: str, time: str | None, reason: str) -> None:
    """Prevents unverified rows, and coverage that claims them."""
    server, rows = Server(), new_rows()
    take(rows, server.snapshot(at(0)), server.update(at(1), "9.5 2"))
    message = server.update(time, bids)
    (ended,) = desync(rows, spoilt(message) if reason == "checksum" else message, reason)
    assert (ended.rows, ended.updates, ended.ended_at, ended.end_reason) == (2, 1, at(1), reason)


@pytest.mark.parametrize("snapshot", [spoilt(Server().snapshot(at(0))), spoilt(Server().snapshot(None))])
def test_bad_snapshot_starts_nothing(snapshot: BookMessage) -> None:
    """Prevents a run that begins with a book that was never right."""
    rows = new_rows()
    with pytest.raises(BookDesync, match="checksum"):
        take(rows, snapshot)
    assert rows.end("checksum", 0.0) == []
    assert take(rows, Server().update(at(1), "9.5 1")) == []


@pytest.mark.parametrize("time", [at(0), None])
def test_snapshot_that_nobody_asked_for_ends_the_run(time: str | None) -> None:
    """Prevents a run across two books, between which anything may have been missed."""
    server, rows = Server(), new_rows()
    take(rows, server.snapshot(time))
    with pytest.raises(BookDesync, match="unasked_snapshot"):
        take(rows, server.snapshot(at(1)))
    assert [coverage.rows for coverage in rows.end("unasked_snapshot", 0.0)] == ([1] if time else [])


@pytest.mark.parametrize("held", [[], [Server().snapshot(None)], [Server().snapshot(at(0))]])
def test_nothing_of_what_was_awaited_or_held_outlives_the_end(held: list[BookMessage]) -> None:
    """Prevents a snapshot of the connection before from entering the one after, and an update from starting a run."""
    server, rows = Server(), new_rows()
    take(rows, *held)
    rows.end("disconnect", 0.0)
    assert not rows.is_listening
    assert take(rows, server.update(at(1), "9.5 1"), server.snapshot(at(2)), server.update(at(3), "9.5 2")) == []


def test_all_is_ignored_until_the_snapshot_after_the_new_answer() -> None:
    """Prevents a late message of the old subscription from entering, or breaking, the new book."""
    server, rows = Server(), new_rows()
    first = take(rows, server.snapshot(at(0)))[0]
    desync(rows, spoilt(server.update(at(1), "9.5 1")), "checksum")
    assert not rows.is_listening
    assert take(rows, server.update(at(2), "9.5 2"), spoilt(server.snapshot(at(3))), server.update(None)) == []
    rows.subscribed()
    assert rows.is_listening
    assert take(rows, spoilt(server.update(at(4), "9.5 3"))) == []
    again = take(rows, server.snapshot(at(5)), server.update(at(6), "9.5 4"))
    assert [row.seq for row in again] == [0, 1]
    assert again[0].chain > first.chain


def test_checkpoint_by_interval_holds_the_whole_book() -> None:
    """Prevents a reader from having to apply hours of updates, or from getting a book that is not the verified one."""
    server, rows = Server(), new_rows()
    take(rows, server.snapshot(at(0)), server.update(at(INTERVAL - 1), "9.5 1.0"))
    update, checkpoint = take(rows, server.update(at(INTERVAL), asks="10.5 0.70"))
    assert (update.type, update.seq, checkpoint.type, checkpoint.seq) == ("update", 2, "snapshot", 3)
    assert (checkpoint.event_time, checkpoint.checksum) == (at(INTERVAL), server.book.checksum())
    assert checkpoint.bids == b"[[9.5,1.0],[9.0,1.50],[8.0,2.00]]"
    assert checkpoint.asks == b"[[10.0,1.00],[10.5,0.70],[11.0,2.50]]"
    assert len(take(rows, server.update(at(2 * INTERVAL - 1), "9.5 2"))) == 1
    assert len(take(rows, server.update(at(2 * INTERVAL), "9.5 3"))) == 2
    assert rows.run is not None
    assert (rows.run.rows, rows.run.updates) == (7, 4)


def test_checkpoint_by_count() -> None:
    """Prevents a busy pair from growing a tail of updates that nobody can read quickly."""
    server, rows = Server(), new_rows()
    updates = [server.update(at(1), f"9.5 {1 + number % 2}") for number in range(2 * CHECKPOINT_UPDATES)]
    taken = take(rows, Server().snapshot(at(0)), *updates)
    assert [row.seq for row in taken] == list(range(2 * CHECKPOINT_UPDATES + 3))
    checkpoints = [row.seq for row in taken if row.type == "snapshot"]
    assert checkpoints == [0, CHECKPOINT_UPDATES + 1, 2 * (CHECKPOINT_UPDATES + 1)]


def test_each_day_begins_with_the_book_as_it_entered_it() -> None:
    """Prevents a day that cannot be read once the day before is dropped."""
    server, rows = Server(), new_rows()
    take(rows, server.snapshot(at(0)), server.update("2026-08-24T23:59:59.999999Z", "9.5 1.0"))
    held = server.book.checksum()
    checkpoint, update = take(rows, server.update("2026-08-26T00:00:00.000001Z", "9.5 2"))
    assert (checkpoint.type, checkpoint.event_time) == ("snapshot", "2026-08-26T00:00:00.000000Z")
    assert (checkpoint.checksum, checkpoint.bids) == (held, b"[[9.5,1.0],[9.0,1.50],[8.0,2.00]]")
    assert (checkpoint.seq, update.type, update.seq) == (3, "update", 4)


def test_a_day_whose_first_update_is_bad_does_not_begin() -> None:
    """Prevents a checkpoint that claims the book at midnight although a message before it may have been missed."""
    server, rows = Server(), new_rows()
    take(rows, server.snapshot(at(0)), server.update("2026-08-24T23:59:59.999999Z", "9.5 1.0"))
    (ended,) = desync(rows, spoilt(server.update("2026-08-26T00:00:00.000001Z", "9.5 2")), "checksum")
    assert (ended.rows, ended.ended_at) == (3, "2026-08-24T23:59:59.999999Z")


def test_coverage_is_krakens_time_and_the_monotonic_time_since() -> None:
    """Prevents coverage by our own wall clock, coverage past the last sign of life, and time that runs backwards."""
    server, rows = Server(), new_rows()
    take(rows, server.snapshot(at(0)), now=1000.0)
    take(rows, server.update(at(2), "9.5 1"), server.update(at(1), "9.5 2"), now=1003.0)
    assert rows.run is not None
    assert rows.run.coverage(1003.0).last_at == at(2)
    assert rows.run.coverage(1010.5).last_at == at(9.5)
    assert rows.run.coverage(900.0).last_at == at(2)
    (ended,) = rows.end("closed_1012", 1005.25)
    assert (ended.started_at, ended.last_at, ended.ended_at, ended.end_reason) == (
        at(0),
        at(4.25),
        at(4.25),
        "closed_1012",
    )
    assert rows.end("again", 1006.0) == []


@given(st.lists(st.timedeltas(timedelta(hours=-1), timedelta(hours=1)), min_size=1), st.integers(0, 2 * 10**15))
def test_numbers_increase_though_the_clock_steps_back(steps: list[timedelta], last: int) -> None:
    """Prevents two runs of one number, whose rows would be taken for duplicates, and numbers below the spool's."""
    clock = iter(steps)
    numbers = ChainNumbers(lambda: START + next(clock), last)
    given_out = [numbers.next() for _ in steps]
    assert all(one < other for one, other in pairwise([last, *given_out]))


def trade(trade_id: int, seconds: float) -> Trade:
    return Trade(at(seconds), "BTC/USD", b"9.5", b"1", "buy", "limit", trade_id)


def test_trades_are_a_run_from_the_answer_to_the_end() -> None:
    """Prevents a snapshot's older trades from moving a run's times, and trades outside of it from being claimed."""
    rows = TradeRows("BTC/USD", ChainNumbers(lambda: START, 0))
    rows.take(trade(1, 0), 5.0)
    assert rows.end("early", 5.0) == []
    rows.subscribed(at(10), 100.0)
    rows.take(trade(2, 3), 101.0)
    assert rows.run is not None
    assert rows.run.coverage(101.0).last_at == at(10)
    rows.take(trade(3, 12), 102.0)
    (ended,) = rows.end("silent", 104.0)
    assert (ended.channel, ended.started_at, ended.ended_at, ended.updates, ended.rows) == (
        "trade",
        at(10),
        at(14),
        2,
        2,
    )
