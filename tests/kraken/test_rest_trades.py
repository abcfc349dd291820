"""Trades that come over REST, held against what the WebSocket says of the same ones."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from itertools import pairwise
from pathlib import Path

import httpx2
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import RestError, UnknownPair
from collector.kraken.digits import with_decimals
from collector.kraken.messages import Decoder, TradeMessage
from collector.kraken.rest import (
    Precision,
    RestTrade,
    fetch_precision,
    fetch_trades,
    parse_precision,
    parse_trades,
    to_trade,
)
from collector.kraken.server.faults import Faults
from collector.kraken.server.serving import serve
from collector.kraken.server.tape import TapeSource
from collector.kraken.simulator.simulation import SimulatedSource, Simulation, simulated_frames
from collector.records import Trade

PAIR_WITH_FEW_DECIMALS, PAIR_WITH_MANY = "BTC/USD", "DOGE/USD"


@asynccontextmanager
async def client_of(source: TapeSource | SimulatedSource, faults: Faults | None = None) -> AsyncIterator:
    """A client of the project's own server."""
    async with trio.open_nursery() as nursery:
        address = await nursery.start(partial(serve, source, faults=faults))
        async with httpx2.AsyncClient(base_url=address.rest_url) as client:
            yield client
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("digits", "decimals", "expected"),
    [
        (b"30243.40000", 1, b"30243.4"),
        (b"30243.00000", 1, b"30243.0"),
        (b"30243.00000", 0, b"30243"),
        (b"30243.40010", 1, b"30243.4001"),
        (b"0.1234567", 5, b"0.1234567"),
        (b"0.12", 5, b"0.12000"),
        (b"7", 2, b"7.00"),
        (b"100", 0, b"100"),
    ],
)
def test_zeros_are_cut_to_the_decimals_of_the_pair(digits: bytes, decimals: int, expected: bytes) -> None:
    """Prevents one trade from having two sets of digits, by the way on which it came."""
    assert with_decimals(digits, decimals) == expected


@given(st.decimals(0, 10**9, allow_nan=False, places=9), st.integers(0, 18))
def test_cutting_zeros_never_changes_the_number(number: Decimal, decimals: int) -> None:
    """Prevents a price from losing a digit that is none of the padding."""
    cut = with_decimals(f"{number:f}".encode(), decimals)
    assert Decimal(cut.decode()) == number
    assert len(cut.partition(b".")[2]) >= decimals


def test_recorded_page_goes_through_with_exact_times(recordings: Path) -> None:
    """Prevents a time from being rounded: 405 of these trades would move by a microsecond."""
    body = (recordings / "rest_trades_xbtusdt_2025-11-10.json").read_bytes()
    precision = parse_precision((recordings / "rest_asset_pairs.json").read_bytes())
    recorded = json.loads(body, parse_float=Decimal)["result"]["XBTUSDT"]
    assert precision == Precision(1, 8)
    moved = 0
    for told, row in zip(parse_trades(body).trades, recorded, strict=True):
        trade = to_trade(told, "BTC/USDT", precision)
        microseconds = int(row[2] * 10**6)
        moved += row[2] * 10**7 % 10 >= 5
        time = datetime.fromtimestamp(microseconds // 10**6, UTC).replace(microsecond=microseconds % 10**6)
        assert datetime.fromisoformat(trade.event_time) == time
        assert Decimal(trade.price.decode()) == Decimal(row[0])
        assert len(trade.price.partition(b".")[2]) == 1
        assert trade.volume.decode() == row[1]
        assert (trade.pair, trade.trade_id) == ("BTC/USDT", row[6])
    assert moved == 405


@pytest.mark.parametrize("pair", [PAIR_WITH_FEW_DECIMALS, PAIR_WITH_MANY])
async def test_trade_that_comes_both_ways_is_one_row(pair: str) -> None:
    """Prevents any difference between a trade as the WebSocket sends it and the same one over REST."""
    frames = [frame for frame in simulated_frames([pair], 10, 3, 20_000) if b'"channel":"trade"' in frame]
    decoder = Decoder(lambda: datetime.now(UTC))
    messages = [message for frame in frames for message in decoder.decode(frame.decode())]
    sent = [trade for message in messages if isinstance(message, TradeMessage) for trade in message.trades]
    assert len(sent) > 500
    async with client_of(TapeSource(frames)) as client:
        precision = await fetch_precision(client, pair)
        told = (await fetch_trades(client, pair, 0)).trades
        assert [to_trade(trade, pair, precision) for trade in told] == sent[: len(told)]


async def test_paging_by_cursor_shows_everything_once() -> None:
    """Prevents a cursor of less than nanoseconds, and rows that are lost or repeated where two pages meet."""
    source = SimulatedSource(Simulation(["BTC/USD"], seed=5, depths=[10]))
    since, ids = 0, []
    async with client_of(source) as client:
        while (page := await fetch_trades(client, "BTC/USD", since, 100)).trades[-1].trade_id not in ids:
            ids += [trade.trade_id for trade in page.trades if trade.trade_id not in ids]
            assert page.last is not None
            assert page.last == source.markets["BTC/USD"].trades[len(ids) - 1].time
            since = page.last - 1
    assert ids == [trade.trade_id for trade in source.markets["BTC/USD"].trades]
    assert all(high - low == 1 for low, high in pairwise(ids))


@pytest.mark.parametrize(
    ("error", "not_before"),
    [
        ("EGeneral:Too many requests", 0),
        ("EAPI:Rate limit exceeded", 0),
        ("EService:Throttled: 1700000123", 1700000123),
        ("EService: Throttled: 1700000123", 1700000123),
        ("EService:Throttled: soon", 0),
        ("EService:Unavailable", 0),
        ("EService:Busy", 0),
    ],
)
async def test_error_in_an_answer_of_status_200(error: str, not_before: int) -> None:
    """Prevents an error from passing for an empty page, and a time to wait from being lost."""
    faults = Faults()
    faults.rest_error(error)
    async with client_of(SimulatedSource(Simulation(["BTC/USD"], seed=5, depths=[10])), faults) as client:
        for fetch in (partial(fetch_trades, since=0), fetch_precision):
            with pytest.raises(RestError, match=error) as caught:
                await fetch(client, "BTC/USD")
            assert (str(caught.value), caught.value.not_before) == (error, not_before)
            assert not isinstance(caught.value, UnknownPair)


async def test_pair_that_is_not_known_is_told_apart() -> None:
    """Prevents requests without end for a pair that REST will never know."""
    async with client_of(SimulatedSource(Simulation(["BTC/USD"], seed=5, depths=[10]))) as client:
        with pytest.raises(UnknownPair):
            await fetch_trades(client, "NOT/THERE", 0)
        with pytest.raises(UnknownPair):
            await fetch_precision(client, "NOT/THERE")


@pytest.mark.parametrize(
    "result",
    ["{}", '{"A":{}}', '{"A":{"pair_decimals":1}}', '{"A":{"pair_decimals":-1,"lot_decimals":8}}', "[]", '{"A":1}'],
)
def test_decimals_that_are_not_as_documented_are_refused(result: str) -> None:
    """Prevents prices from being stored with decimals that nobody told."""
    with pytest.raises(RestError):
        parse_precision(f'{{"error":[],"result":{result}}}'.encode())


def test_row_that_no_table_takes_makes_no_page() -> None:
    """Prevents a time beyond all calendars from crashing the repair, and a NUL from reaching PostgreSQL."""
    page = '{"error":[],"result":{"X":[["1.0","1.0",%s,"b","%s","",7]],"last":"1"}}'
    assert parse_trades((page % ("1700000000.5", "q")).encode()).trades[0].order_type == "q"
    for time, order_type in (("9e18", "m"), ("1700000000.5", "\\u0000")):
        with pytest.raises(RestError, match="not as documented"):
            parse_trades((page % (time, order_type)).encode())


def test_time_is_cut() -> None:
    """Prevents the last hundred nanoseconds of a microsecond from becoming the next one."""
    told = RestTrade(1, 1_700_000_000_999_999_900, b"1.00000", b"2.00000000", "sell", "market")
    expected = Trade("2023-11-14T22:13:20.999999Z", "BTC/USD", b"1.0", b"2.00000000", "sell", "market", 1)
    assert to_trade(told, "BTC/USD", Precision(1, 8)) == expected
