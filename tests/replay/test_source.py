"""A replay as its clients see it, over the wire."""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal

import pytest
import trio
from collecting import open_kraken
from replaying import Tape, open_replay
from stored import read_digits

from collector.kraken.times import read_time
from collector.replay import clock
from collector.replay import source as replay_source
from collector.replay.readers import Readers
from collector.storage.database import connect
from collector.storage.history import book_at
from tests.kraken.client import DEADLINE, Client, connected
from tests.kraken.naive_book import NaiveBook

BOOK = '{"channel":"book"'


@pytest.fixture(autouse=True)
def _settle_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "SETTLE_TIME", 0.1)


def of_pair(frames: Sequence[bytes], symbol: str, channel: str = "book") -> list[str]:
    """The frames of a channel of one pair."""
    start, name = f'{{"channel":"{channel}"', f'"symbol":"{symbol}"'
    return [text for text in (frame.decode() for frame in frames) if text.startswith(start) and name in text]


def timestamps(frames: Sequence[str]) -> list[str]:
    """The times of frames."""
    return [json.loads(frame)["data"][0]["timestamp"] for frame in frames]


async def follow(client: Client, *, symbols: Sequence[str] = ("BTC/USD",), depth: int = 100) -> tuple[int, list[str]]:
    """Subscribe to books, and read until the connection is closed: the code, and what came."""
    answer = await client.subscribe("book", *symbols, depth=depth)
    assert answer["success"] is True
    code, _ = await client.closed()
    return code, [frame for frame in client.received if str(frame).startswith(BOOK)]


async def test_updates_come_as_they_were_up_to_the_hole_and_go_on_behind_it(tape: Tape) -> None:
    """Prevents a message with another byte than Kraken sent, and a hole that a client takes for a quiet market."""
    with trio.fail_after(DEADLINE):
        async with open_replay(tape.url) as source, open_kraken(source) as kraken:
            async with connected(kraken.address) as client:
                code, frames = await follow(client)
            assert code == 1001
            assert frames == of_pair(tape.before, "BTC/USD")
            async with connected(kraken.address) as client:
                await client.subscribe("book", "BTC/USD", depth=100)
                expected = of_pair(tape.after, "BTC/USD")
                assert [await client.frame() for _ in expected] == expected
                assert (await client.ask({"method": "ping"}))["method"] == "pong", "it stays open at the end"


async def test_pairs_and_channels_come_in_the_order_of_their_times(tape: Tape) -> None:
    """Prevents a bot that sees a trade of one pair long before a book of another that was earlier."""
    with trio.fail_after(DEADLINE):
        async with open_replay(tape.url) as source, open_kraken(source) as kraken, connected(kraken.address) as client:
            await client.subscribe("trade", "BTC/USD", "ETH/USD")
            await client.subscribe("book", "BTC/USD", "ETH/USD", depth=100)
            assert (await client.closed())[0] == 1001
    assert timestamps(client.data()) == sorted(timestamps(client.data()))
    for symbol in ("BTC/USD", "ETH/USD"):
        got = [frame.encode() for frame in client.data()]
        assert of_pair(got, symbol) == of_pair(tape.before, symbol)
        assert trades(of_pair(got, symbol, "trade")) == trades(of_pair(tape.before, symbol, "trade"))


def trades(frames: Sequence[str]) -> list[object]:
    """Every trade, with all digits, however many of them are in a message."""
    return [trade for frame in frames for trade in read_digits(frame)["data"]]


@pytest.mark.parametrize("eager", [False, True])
async def test_a_lower_depth_is_told_as_kraken_tells_it(tape: Tape, eager: bool) -> None:
    """Prevents a bot of depth 10, which most are, from failing over a market that was collected at depth 100."""
    with trio.fail_after(DEADLINE):
        async with open_replay(tape.url) as source, open_kraken(source) as kraken, connected(kraken.address) as client:
            _, frames = await follow(client, depth=10)
    deep, shallow = NaiveBook(100), NaiveBook(10, eager=eager)
    told = dict(zip(timestamps(frames), frames, strict=True))
    assert len(told) == len(frames) > 100
    for stored in of_pair(tape.before, "BTC/USD"):
        deep.apply(stored)
        if (frame := told.get(timestamps([stored])[0])) is not None:
            assert shallow.apply(frame)
        assert all(shallow.best(side) == deep.best(side, 10) for side in ("bids", "asks"))


async def test_a_replay_begins_in_the_middle_with_the_book_of_that_time(tape: Tape) -> None:
    """Prevents a snapshot from the past or the future, and updates that do not follow from it."""
    expected = of_pair(tape.before, "BTC/USD")
    since = read_time(timestamps(expected)[len(expected) // 2]).replace(tzinfo=None)
    with trio.fail_after(DEADLINE):
        async with (
            open_replay(tape.url, since=since) as source,
            open_kraken(source) as kraken,
            connected(kraken.address) as client,
        ):
            _, (snapshot, *frames) = await follow(client)
    assert frames == expected[-len(frames) :]
    assert len(frames) == len([time for time in timestamps(expected) if read_time(time).replace(tzinfo=None) >= since])
    book, truth = NaiveBook(100), NaiveBook(100)
    assert book.apply(snapshot)
    for frame in expected[: -len(frames)]:
        truth.apply(frame)
    assert book.sides == truth.sides
    assert all(book.apply(frame) for frame in frames)


async def test_each_client_begins_at_the_start(tape: Tape) -> None:
    """Prevents one client from moving another one's market, or from taking a part of it."""
    expected, received = of_pair(tape.before, "BTC/USD"), []

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        async with connected(kraken.address) as client:
            await client.subscribe("book", "BTC/USD", depth=100)
            for _ in range(10):
                await client.frame()
            task_status.started()
            assert (await client.closed())[0] == 1001
            received.append([frame for frame in client.received if str(frame).startswith(BOOK)])

    with trio.fail_after(DEADLINE):
        async with (
            open_replay(tape.url, 20.0) as source,
            open_kraken(source) as kraken,
            trio.open_nursery() as nursery,
        ):
            for _ in range(3):
                await nursery.start(run)
    assert received == [expected] * 3


async def test_a_place_is_kept_for_a_while_only(tape: Tape, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a bot that is started anew from beginning where another one has left, long ago."""
    monkeypatch.setattr(replay_source, "PLACE_KEPT", 0.0)
    with trio.fail_after(DEADLINE):
        async with open_replay(tape.url) as source, open_kraken(source) as kraken:
            for _ in range(2):
                async with connected(kraken.address) as client:
                    assert (await follow(client))[1] == of_pair(tape.before, "BTC/USD")


async def test_a_loop_closes_at_the_end_and_begins_again(tape: Tape) -> None:
    """Prevents a loop whose second round is not the first one again."""
    until = read_time(timestamps(of_pair(tape.before, "BTC/USD"))[300]).replace(tzinfo=None)
    rounds = []
    with trio.fail_after(DEADLINE):
        async with open_replay(tape.url, until=until, loop=True) as source, open_kraken(source) as kraken:
            for _ in range(2):
                async with connected(kraken.address) as client:
                    rounds.append(await follow(client))
    assert rounds == [(1001, of_pair(tape.before, "BTC/USD")[:300])] * 2


@pytest.mark.parametrize("speed", [1.0, 10.0])
async def test_the_original_spacing_is_kept(tape: Tape, speed: float) -> None:
    """Prevents a pace that drifts, or that is as fast as it goes.

    The bound is generous, since machines that test do other things, too.
    """
    arrived: list[tuple[float, float]] = []
    with trio.fail_after(DEADLINE):
        async with (
            open_replay(tape.url, speed) as source,
            open_kraken(source) as kraken,
            connected(kraken.address) as client,
        ):
            await client.subscribe("book", "BTC/USD", depth=100)
            await client.frame()  # the snapshot, which does not wait for the market to move
            while len(arrived) < 50:
                (time,) = timestamps([await client.frame()])
                arrived.append((trio.current_time(), read_time(time).timestamp()))
    (began, first), *rest = arrived
    late = [at - began - (time - first) / speed for at, time in rest]
    assert min(late) > -0.25
    assert sorted(late)[len(late) // 2] < 0.25


async def test_what_was_not_stored_is_refused_in_krakens_words(tape: Tape) -> None:
    """Prevents a bot from waiting for a pair, or trusting a depth, of which nothing is stored."""
    async with (
        open_replay(tape.url, pairs=["BTC/USD"]) as source,
        open_kraken(source) as kraken,
        connected(kraken.address) as client,
    ):
        for symbol, depth, error in [
            ("ETH/USD", 100, "Currency pair not supported ETH/USD"),
            ("BTC/USD", 500, "Subscription depth not supported"),
        ]:
            answer = await client.subscribe("book", symbol, depth=depth)
            assert (answer["success"], answer["error"], answer["symbol"]) == (False, error, symbol)
        answer = await client.subscribe("book", "BTC/USD", depth=27)
        assert (answer["success"], answer["error"]) == (False, "Subscription depth not supported")


async def test_instruments_have_the_decimals_of_what_is_stored(tape: Tape) -> None:
    """Prevents a bot that formats numbers by the instruments from computing other checksums."""
    async with open_replay(tape.url) as source, open_kraken(source) as kraken, connected(kraken.address) as client:
        await client.ask({"method": "subscribe", "params": {"channel": "instrument"}})
        pairs = (await client.message())["data"]["pairs"]
    assert {pair["symbol"]: (pair["price_precision"], pair["qty_precision"]) for pair in pairs} == {
        "BTC/USD": (1, 8),
        "ETH/USD": (2, 8),
    }


async def test_rest_agrees_with_the_websocket(tape: Tape) -> None:
    """Prevents REST from telling of the future, or of another book than the one that was sent."""
    with trio.fail_after(DEADLINE):
        async with open_replay(tape.url) as source, open_kraken(source) as kraken, connected(kraken.address) as client:
            await client.subscribe("trade", "BTC/USD")
            _, frames = await follow(client)
            book = NaiveBook(100)
            for frame in frames:
                book.apply(frame)
            bids, asks = await source.depth_page("BTC/USD", 20)
            assert [(row.price, row.qty) for row in bids] == book.best("bids", 20)
            assert [(row.price, row.qty) for row in asks] == book.best("asks", 20)
            sent = [int(trade["trade_id"]) for trade in trades(of_pair(tape.before, "BTC/USD", "trade"))]
            latest = await source.trades_page("BTC/USD", None, 1000)
            assert [trade.trade_id for trade in latest] == sent, "none from behind the hole"
            page = await source.trades_page("BTC/USD", latest[5].time, 3)
            assert [trade.trade_id for trade in page] == sent[5:8]


@pytest.fixture
def lost_row(tape: Tape) -> Iterator[datetime]:
    """The time of a row of ETH/USD that is missing as long as the test takes."""
    move = "UPDATE kraken_orderbook SET chain = -chain WHERE pair = 'ETH/USD' AND abs(chain) < 1000 AND seq = 40"
    with connect(tape.url, application_name="tests") as connection:
        (time,) = connection.execute(f"{move} RETURNING event_time").fetchone()
        yield time
        connection.execute(move)


async def test_missing_rows_end_the_connection(tape: Tape, lost_row: datetime) -> None:
    """Prevents updates from being applied to a book that they do not follow from."""
    expected = of_pair(tape.before, "ETH/USD")
    with trio.fail_after(DEADLINE):
        async with open_replay(tape.url) as source, open_kraken(source) as kraken:
            async with connected(kraken.address) as client:
                code, frames = await follow(client, symbols=["ETH/USD"])
            assert code == 1001
            assert frames == expected[: len(frames)]
            assert read_time(timestamps(expected)[len(frames)]).replace(tzinfo=None) == lost_row
            async with connected(kraken.address) as client:
                code, (snapshot, *frames) = await follow(client, symbols=["ETH/USD"])
    assert code == 1001
    book = NaiveBook(100)
    assert book.apply(snapshot), "the next checkpoint"
    assert all(book.apply(frame) for frame in frames)
    assert frames == expected[-len(frames) :]


async def test_a_lost_database_ends_the_connection_and_keeps_its_place(
    tape: Tape, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents a restart of the database from ending the replay of everybody."""
    expected = of_pair(tape.before, "BTC/USD")
    connections = []
    open_connection = Readers._connect

    def connect_and_note(readers: Readers):
        connections.append(open_connection(readers))
        if len(connections) == 1:
            connections[0].close()
        return connections[-1]

    monkeypatch.setattr(Readers, "_connect", connect_and_note)
    with trio.fail_after(DEADLINE):
        async with open_replay(tape.url) as source, open_kraken(source) as kraken:
            async with connected(kraken.address) as client:
                await client.subscribe("book", "BTC/USD", depth=100)
                assert await client.closed() == (1013, "Market data unavailable")
            async with connected(kraken.address) as client:
                assert (await follow(client))[1] == expected


async def test_the_book_at_the_end_is_the_one_that_the_database_has(tape: Tape) -> None:
    """Prevents a replay that ends elsewhere than the history that it shows."""
    with trio.fail_after(DEADLINE):
        async with open_replay(tape.url) as source, open_kraken(source) as kraken, connected(kraken.address) as client:
            _, frames = await follow(client, depth=25)
    book = NaiveBook(25)
    for frame in frames:
        book.apply(frame)
    at = read_time(timestamps(of_pair(tape.before, "BTC/USD"))[-1])
    with connect(tape.url, application_name="tests") as connection:
        stored = book_at(connection, "BTC/USD", at, 25)
    assert [(level.price, level.size) for level in stored.bids] == [
        (Decimal(price), Decimal(size)) for price, size in book.best("bids")
    ]
