import itertools
import json
from datetime import datetime

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from collector.kraken.pairs import BOOK_DEPTHS, Instrument
from collector.kraken.server.source import SubscriberTooSlow, parse_nanoseconds
from collector.kraken.simulator import simulation
from collector.kraken.simulator.market import HISTORY_TRADES, Market
from collector.kraken.simulator.simulation import (
    DEFAULT_PAIRS,
    SUBSCRIBER_LAG,
    Simulation,
    open_simulation,
    simulated_frames,
)
from tests.kraken.naive_book import NaiveBook, read_digits

START = 1_700_000_000 * 10**9
SEEDS = st.integers(0, 2**32)


def market(seed: int = 1, **options) -> Market:
    precision, ticks = options.pop("precision", 1), options.pop("ticks", 623_456)
    return Market(Instrument("BTC/USD", precision, 8), ticks, seed=seed, time=START, rate=50, **options)


def true_levels(side, depth: int, precision: int) -> list[tuple[str, str]]:
    """The market's own levels as digits, written by other means than the simulator's."""

    def digits(number: int, decimals: int) -> str:
        text = str(number).rjust(decimals + 1, "0")
        return f"{text[:-decimals]}.{text[-decimals:]}" if decimals else text

    return [(digits(ticks, precision), digits(lots, 8)) for ticks, lots in side.best(depth)]


def follow(simulated: Market, depths: tuple[int, ...], steps: int, precision: int, eager: bool) -> None:
    books = {depth: NaiveBook(depth, eager=eager) for depth in depths}
    for depth, book in books.items():
        assert book.apply(simulated.snapshot(depth))
    for step in (simulated.step() for _ in range(steps)):
        for depth, frame in step.books.items():
            assert books[depth].apply(frame)
            assert not books[depth].is_crossed()
    for depth, book in books.items():
        assert book.best("bids") == true_levels(simulated.book.bids, depth, precision)
        assert book.best("asks") == true_levels(simulated.book.asks, depth, precision)


@settings(max_examples=8)
@given(seed=SEEDS, eager=st.booleans())
def test_shallow_books_are_followed_exactly(seed: int, eager: bool) -> None:
    """A client at depth 10, 25 or 100 loses the market's book, so that tests against the server fail for no reason."""
    follow(market(seed, depths=[10, 25, 100]), (10, 25, 100), steps=1500, precision=1, eager=eager)


@pytest.mark.parametrize("depth", BOOK_DEPTHS)
def test_every_depth_is_followed_over_thousands_of_messages(depth: int) -> None:
    """An error that shows only after long, as a level that came back into range without being published."""
    follow(market(depths=[depth]), (depth,), steps=4000, precision=1, eager=False)


@settings(max_examples=10)
@given(
    seed=SEEDS,
    levels=st.integers(1, 60),
    precision=st.integers(0, 9),
    ticks=st.integers(40, 10**7),
    eager=st.booleans(),
)
def test_thin_books_of_any_precision_are_followed(
    seed: int, levels: int, precision: int, ticks: int, eager: bool
) -> None:
    """Fewer levels than the depth, or than the checksum's ten, break the server where real thin pairs would not."""
    simulated = market(seed, levels=levels, precision=precision, ticks=ticks, depths=[10, 25])
    follow(simulated, (10, 25), steps=400, precision=precision, eager=eager)


def test_messages_have_all_the_shapes_that_kraken_sends() -> None:
    """A simulator that is too tame leaves a client's rules untested."""
    simulated = market(depths=[10])
    inside = {side: {ticks for ticks, _ in getattr(simulated.book, side).best(10)} for side in ("bids", "asks")}
    seen = set()
    for _ in range(20_000):
        step = simulated.step()
        if step.trades is not None:
            trades = json.loads(step.trades)["data"]
            seen |= {"burst"} if len(trades) > 20 else set()
            times = [trade["timestamp"] for trade in trades]
            seen |= {"same time"} if len(times) > len(set(times)) else set()
            seen |= {"several times"} if len(set(times)) > 1 else set()
            seen |= {trade["side"] for trade in trades} | {trade["ord_type"] for trade in trades}
        for frame in step.books.values():
            data = read_digits(frame)["data"][0]
            for side in ("bids", "asks"):
                prices = [entry["price"] for entry in data[side]]
                ranks = [float(price) for price in prices]
                seen |= {"no change"} if not prices else set()
                seen |= {"repeated price"} if len(prices) > len(set(prices)) else set()
                seen |= {"not by price"} if ranks not in (sorted(ranks), sorted(ranks, reverse=True)) else set()
                seen |= {entry["qty"] for entry in data[side] if entry["qty"] == "0.00000000"}
                removed = {entry["price"] for entry in data[side] if entry["qty"] == "0.00000000"}
                now = {ticks for ticks, _ in getattr(simulated.book, side).best(10)}
                gone = {f"{ticks // 10}.{ticks % 10}" for ticks in inside[side] - now}
                seen |= {"pushed out in silence"} if gone - removed else set()
                seen |= {"came back"} if {"0.00000000"} & {e["qty"] for e in data[side]} and len(prices) > 1 else set()
                inside[side] = now
    assert seen == {
        "burst",
        "same time",
        "several times",
        "buy",
        "sell",
        "market",
        "limit",
        "no change",
        "repeated price",
        "not by price",
        "0.00000000",
        "pushed out in silence",
        "came back",
    }


def test_trades_are_numbered_without_a_hole_and_never_go_back_in_time() -> None:
    """Ids with holes or times that go back would look like a fault of the collector."""
    simulated = market()
    for _ in range(5_000):
        simulated.step()
    assert [trade.trade_id for trade in simulated.trades] == list(range(1, len(simulated.trades) + 1))
    assert len(simulated.trades) > HISTORY_TRADES + 100
    times = [trade.time for trade in simulated.trades]
    assert times == sorted(times)


def test_messages_carry_the_trades_of_the_market() -> None:
    """WebSocket and REST disagree about a trade."""
    simulated = market()
    sent = [
        row
        for step in (simulated.step() for _ in range(3000))
        if step.trades is not None
        for row in read_digits(step.trades)["data"]
    ]
    kept = simulated.trades[HISTORY_TRADES:]
    assert [(int(row["trade_id"]), row["price"], row["qty"], row["side"], row["ord_type"]) for row in sent] == [
        (trade.trade_id, trade.price, trade.qty, trade.side, trade.order_type) for trade in kept
    ]
    assert [parse_nanoseconds(row["timestamp"]) for row in sent] == [trade.time // 1000 * 1000 for trade in kept]


def test_the_trade_snapshot_is_the_last_fifty() -> None:
    """A snapshot that does not join up with the updates behind it."""
    simulated = market()
    rows = json.loads(simulated.trade_snapshot())["data"]
    assert [row["trade_id"] for row in rows] == list(range(HISTORY_TRADES - 49, HISTORY_TRADES + 1))


@settings(max_examples=5)
@given(seed=SEEDS, cuts=st.lists(st.integers(1, 10**10), max_size=5))
def test_a_seed_gives_the_same_bytes_however_time_passes(seed: int, cuts: list[int]) -> None:
    """A failure that was seen once cannot be made to happen again."""
    end = START + 10**10
    pairs = ["BTC/USD", "ADA/USD"]
    at_once = list(Simulation(pairs, seed=seed).advance(end))
    simulation = Simulation(pairs, seed=seed)
    in_parts = [list(simulation.advance(START + cut)) for cut in sorted(cuts)] + [list(simulation.advance(end))]
    assert list(itertools.chain(*in_parts)) == at_once
    assert list(Simulation(pairs, seed=seed + 1).advance(end)) != at_once


def test_a_pair_is_the_same_whatever_the_other_pairs_and_depths() -> None:
    """Adding a pair or a subscription to a test changes what it sees of another pair."""
    alone = Simulation(["BTC/USD"], seed=3, depths=[10])
    among = Simulation(DEFAULT_PAIRS, seed=3)
    end = START + 5 * 10**9
    first = [(step.books.get(10), step.trades) for _, step in alone.advance(end)]
    second = [(step.books.get(10), step.trades) for symbol, step in among.advance(end) if symbol == "BTC/USD"]
    assert first == second


def test_the_rate_is_what_was_asked_for() -> None:
    """A load test that believes in 50 updates a second runs at another pace."""
    simulation = Simulation(["BTC/USD", "ETH/USD"], seed=1, rate=50)
    steps = [symbol for symbol, _ in simulation.advance(START + 200 * 10**9)]
    assert 9_000 < steps.count("BTC/USD") < 11_000
    assert 4_000 < steps.count("ETH/USD") < 6_000


def test_a_tape_has_a_snapshot_of_each_pair_and_then_what_happened() -> None:
    """A tape on which a book begins with an update, or that is longer or shorter than asked for."""
    frames = list(simulated_frames(["BTC/USD", "NEW/PAIR"], 25, seed=2, count=3000))
    assert len(frames) == 3000
    books: dict[str, NaiveBook] = {}
    times = []
    for frame in frames:
        message = json.loads(frame)
        symbol = message["data"][0]["symbol"]
        times.append(message["data"][-1]["timestamp"])
        if message["channel"] == "book":
            if message["type"] == "snapshot":
                books[symbol] = NaiveBook(25)
            assert books[symbol].apply(frame)
    assert set(books) == {"BTC/USD", "NEW/PAIR"}
    assert times == sorted(times)


async def test_a_live_market_gives_all_subscribers_the_same(autojump_clock: MockClock) -> None:
    """Two collectors of one market, or REST beside them, see different markets."""
    async with open_simulation(["BTC/USD"], seed=5, start=START) as source:
        async with source.open_session() as one, source.open_session() as two:
            streams = [session.book("BTC/USD", 10, snapshot=True) for session in (one, two)]
            received = [list(await anext(stream)) for stream in streams]
            for stream, frames in zip(streams, received, strict=True):
                while len(frames) < 200:
                    frames.extend(await anext(stream))
                await stream.aclose()
        assert received[0][:200] == received[1][:200]
        book = NaiveBook(10)
        assert all(book.apply(frame) for frame in received[0])


async def test_a_client_that_does_not_read_is_cut_off(autojump_clock: MockClock) -> None:
    """A client that hangs lets the simulator's memory grow for ever."""
    async with open_simulation(["BTC/USD"], seed=5, rate=SUBSCRIBER_LAG) as source:
        stream = source.book("BTC/USD", 1000, snapshot=True)
        await anext(stream)
        await trio.sleep(2)
        with pytest.raises(SubscriberTooSlow):
            async for _ in stream:
                pass


async def test_time_on_the_wire_is_the_clock_of_the_market(autojump_clock: MockClock) -> None:
    """A simulation that starts at a given time stamps its messages with another."""
    async with open_simulation(["BTC/USD"], seed=5, start=START) as source:
        stream = source.book("BTC/USD", 10, snapshot=True)
        frames = [frame for _ in range(30) for frame in await anext(stream)]
        await stream.aclose()
        times = [datetime.fromisoformat(json.loads(frame)["data"][0]["timestamp"]).timestamp() for frame in frames]
        assert times[0] >= START / 10**9
        assert times == sorted(times)
        assert times[-1] <= source.now() / 10**9


async def test_a_market_that_starts_again_goes_on_with_its_trade_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a second start from repeating ids, whose trades a collector would take for those of the first."""
    highest = 0
    for seconds in (0, 10):
        monkeypatch.setattr(simulation.time, "time_ns", lambda later=seconds: START + later * 10**9)
        async with open_simulation(["BTC/USD"]) as source:
            trades = source.markets["BTC/USD"].trades
            assert trades[0].trade_id > highest
            highest = trades[-1].trade_id
