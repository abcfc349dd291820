import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from collector.kraken.server.source import parse_nanoseconds
from collector.kraken.server.tape import TapeSource
from collector.kraken.simulator.simulation import simulated_frames
from tests.kraken.client import connected, serving
from tests.kraken.naive_book import NaiveBook

TAPES = (
    "btcusd_depth10_2023-07-30.ndjson",
    "btcusd_depth10_2023-08-30_reshaped.ndjson",
    "btcusd_depth10_2026-08-24_frames.ndjson",
    "btcusd_trades_2026-09-16_frames.ndjson",
    "tenpairs_depth1000_2021-04-17_reshaped.ndjson",
)
BOOK_START, TRADE_START = b'{"channel":"book"', b'{"channel":"trade"'


def streams_of(frames: list[bytes]) -> dict[tuple[str, str], list[bytes]]:
    """The data frames of a tape by channel and pair."""
    streams: dict[tuple[str, str], list[bytes]] = {}
    for frame in frames:
        if frame.startswith((BOOK_START, TRADE_START)):
            message = json.loads(frame)
            streams.setdefault((message["channel"], message["data"][0]["symbol"]), []).append(frame)
    return streams


@pytest.mark.parametrize("name", TAPES)
async def test_real_recordings_arrive_verbatim_and_verify(recordings: Path, name: str) -> None:
    """A byte that the server changes makes every checksum of a replay worthless."""
    recorded = streams_of((recordings / name).read_bytes().splitlines())
    source = TapeSource((recordings / name).read_bytes().splitlines())
    ((depth,), *_) = source.depths.values()
    wanted = sum(map(len, recorded.values()))
    async with serving(source) as address, connected(address) as client:
        for request, (channel, symbol) in enumerate(recorded):
            params = {"depth": depth} if channel == "book" else {}
            assert (await client.subscribe(channel, symbol, req_id=request, **params))["success"] is True
        while len(client.data()) < wanted:
            for _ in range(wanted - len(client.data())):
                await client.frame()
    assert streams_of([frame.encode() for frame in client.data()]) == recorded
    for (channel, _), frames in recorded.items():
        if channel == "book":
            book = NaiveBook(depth)
            assert all(book.apply(frame) for frame in frames)


async def test_acks_carry_the_time_of_the_tape(recordings: Path) -> None:
    """A tape of 2023 is acked with today's date, and what was not seen looks years long."""
    frames = (recordings / TAPES[0]).read_bytes().splitlines()
    async with serving(TapeSource(frames)) as address, connected(address) as client:
        answer = await client.subscribe("book", "BTC/USD", depth=10)
        assert answer["time_in"].startswith("2023-07-30T")
        while len(client.data()) < len(frames):
            await client.frame()
        end = (await client.ask({"method": "ping"}))["time_in"]
        assert end == json.loads(frames[-1])["data"][0]["timestamp"]


def tape(count: int = 2000) -> list[bytes]:
    return list(simulated_frames(["BTC/USD", "ETH/USD"], 25, seed=9, count=count))


async def take(stream: AsyncGenerator[Sequence[bytes], None], batches: int) -> list[bytes]:
    """So many batches, used; the next one is offered and not used."""
    taken: list[bytes] = []
    async with aclosing(stream):
        async for batch in stream:
            if batches == 0:
                break
            taken += batch
            batches -= 1
    return taken


async def test_a_second_subscription_goes_on_with_a_snapshot_of_the_book_there() -> None:
    """A resync in the middle of a tape starts over, skips frames, or gets a book that does not verify."""
    recorded = streams_of(tape())["book", "BTC/USD"]
    truth = NaiveBook(25)
    async with TapeSource(tape()).open_session() as session:
        got = await take(session.book("BTC/USD", 25, snapshot=True), 3)
        more = got
        while len(got) < len(recorded):
            for frame in more:
                truth.apply(frame)
            snapshot, *more = await take(session.book("BTC/USD", 25, snapshot=True), 3)
            resynced = NaiveBook(25)
            assert resynced.apply(snapshot)
            assert (resynced.best("bids"), resynced.best("asks")) == (truth.best("bids"), truth.best("asks"))
            assert all(resynced.apply(frame) for frame in more)
            got += more
    assert got == recorded


async def test_resyncs_in_quick_succession_lose_and_repeat_nothing() -> None:
    """A stream that has not quite ended when the next begins sends the same frames twice."""
    recorded = [frame.decode() for frame in streams_of(tape(20_000))["book", "BTC/USD"]]
    book = {"channel": "book", "symbol": ["BTC/USD"], "depth": 25}
    async with serving(TapeSource(tape(20_000))) as address, connected(address) as client:
        await client.subscribe("book", "BTC/USD", depth=25)
        for _ in range(30):
            await client.send({"method": "unsubscribe", "params": book})
            await client.send({"method": "subscribe", "params": book})
            await client.until(lambda message: message.get("method") == "subscribe")
        while recorded[-1] not in client.received[-1000:]:
            await client.frame()
    got = client.data()
    assert [frame for frame in got if '"type":"update"' in frame] == recorded[1:]
    resynced = NaiveBook(25)
    assert all(resynced.apply(frame) for frame in got)


async def test_without_a_snapshot_the_updates_go_on() -> None:
    """A subscription that wants no snapshot gets the tape's first one, or misses an update."""
    recorded = streams_of(tape())["book", "BTC/USD"]
    async with TapeSource(tape()).open_session() as session:
        got = await take(session.book("BTC/USD", 25, snapshot=False), 2)
        got += await take(session.book("BTC/USD", 25, snapshot=False), 10**6)
    assert got == recorded[1:]


async def test_a_trade_snapshot_is_of_the_last_fifty_that_were_sent() -> None:
    """Trades of the tape's future are told before their time."""
    recorded = [
        trade["trade_id"] for frame in streams_of(tape(9000))["trade", "BTC/USD"] for trade in json.loads(frame)["data"]
    ]
    async with TapeSource(tape(9000)).open_session() as session:
        (first,) = await take(session.trades("BTC/USD", snapshot=True), 1)
        assert json.loads(first)["data"] == []
        sent = await take(session.trades("BTC/USD", snapshot=False), 1)
        ids = [trade["trade_id"] for frame in sent for trade in json.loads(frame)["data"]]
        assert ids == recorded[: len(ids)]
        (second,) = await take(session.trades("BTC/USD", snapshot=True), 1)
        assert [trade["trade_id"] for trade in json.loads(second)["data"]] == ids[-50:]


@pytest.mark.parametrize("resume", [False, True])
async def test_a_new_connection_begins_at_the_start_or_where_the_last_one_was(resume: bool) -> None:
    """A replay to several clients gives each a part, or a tape ends at the first reconnect."""
    recorded = streams_of(tape())["book", "BTC/USD"]
    source = TapeSource(tape(), resume=resume)
    async with source.open_session() as session:
        first = await take(session.book("BTC/USD", 25, snapshot=True), 2)
    async with source.open_session() as session:
        second = await take(session.book("BTC/USD", 25, snapshot=True), 10**6)
    assert first == recorded[:128]
    if resume:
        assert second[1:] == recorded[128:]
        assert b'"type":"snapshot"' in second[0]
    else:
        assert second == recorded


async def test_rest_has_the_trades_of_the_whole_tape(recordings: Path) -> None:
    """A gap on the WebSocket cannot be repaired from the tape's own REST."""
    source = TapeSource((recordings / TAPES[3]).read_bytes().splitlines())
    page = await source.trades_page("BTC/USD", None, 1000)
    assert [trade.trade_id for trade in page][:2] == [107927359, 107927363]
    assert page[0].price == "75920.6"
    assert page[0].time == parse_nanoseconds("2026-09-16T12:48:24.551288Z")
    assert await source.trades_page("BTC/USD", page[1].time, 2) == page[1:3]
    assert await source.trades_page("BTC/USD", None, 2) == page[-2:]
    assert await source.trades_page("ETH/USD", 0, 2) == []


async def test_rest_shows_the_book_where_the_connection_is() -> None:
    """An audit against REST compares with another time's book."""
    source = TapeSource(tape())
    async with source.open_session() as session:
        sent = await take(session.book("BTC/USD", 25, snapshot=True), 4)
    book = NaiveBook(25)
    for frame in sent:
        book.apply(frame)
    bids, asks = await source.depth_page("BTC/USD", 10)
    assert [(row.price, row.qty) for row in bids] == book.best("bids", 10)
    assert [(row.price, row.qty) for row in asks] == book.best("asks", 10)
    assert await source.depth_page("XRP/USD", 10) == ([], [])


async def test_precisions_are_read_off_the_tape(recordings: Path) -> None:
    """The instruments of a tape promise other digits than it has."""
    source = TapeSource((recordings / TAPES[4]).read_bytes().splitlines())
    assert set(map(tuple, source.depths.values())) == {(1000,)}
    assert source.instruments["ADA/BTC"].price_precision == 9
    assert len(source.instruments) == 10


@pytest.mark.parametrize(
    ("frames", "problem"),
    [
        ([], "neither a book nor a trade"),
        ([b'{"channel":"heartbeat"}'], "neither a book nor a trade"),
        (tape(5)[2:], "does not begin with a snapshot"),
    ],
)
def test_a_tape_that_cannot_be_played_is_refused(frames: list[bytes], problem: str) -> None:
    """A wrong file plays as silence."""
    with pytest.raises(ValueError, match=problem):
        TapeSource(frames)
