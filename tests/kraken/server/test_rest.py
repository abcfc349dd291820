import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from collector.kraken.pairs import v2_symbol
from collector.kraken.server.rest import pair_names
from collector.kraken.server.serving import Address
from collector.kraken.server.tape import TapeSource
from collector.kraken.simulator.simulation import SimulatedSource, open_simulation, simulated_frames
from tests.kraken.client import serving

START = 1_700_000_000 * 10**9
PAIRS = ["BTC/USD", "DOGE/USD", "ADA/USD"]


@pytest.fixture
async def market() -> AsyncIterator[SimulatedSource]:
    async with open_simulation(PAIRS, seed=1, rate=100) as source:
        yield source


@pytest.fixture
async def address(market: SimulatedSource) -> AsyncIterator[Address]:
    async with serving(market) as address:
        yield address


@pytest.fixture
async def http(address: Address) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=f"{address.rest_url}/0/public") as client:
        yield client


async def result(http: httpx2.AsyncClient, path: str, **query: str | int) -> dict:
    answer = await http.get(path, params=query)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    body = json.loads(answer.text, parse_float=str)
    assert body["error"] == []
    return body["result"]


async def refusal(http: httpx2.AsyncClient, path: str, **query: str | int) -> str:
    answer = await http.get(path, params=query)
    assert answer.status_code == 200
    (error,) = answer.json()["error"]
    return error


@pytest.mark.parametrize("count", [7, 400, 1000])
async def test_paging_by_last_reaches_every_trade(
    http: httpx2.AsyncClient, market: SimulatedSource, count: int
) -> None:
    """A backfill skips trades, or fetches the same page for ever."""
    trades = market.markets["BTC/USD"].trades
    first, known = trades[0].trade_id, len(trades)
    ids: set[int] = set()
    since, pages = "0", 0
    while len(ids) < known:
        page = await result(http, "/Trades", pair="BTC/USD", since=since, count=count)
        rows = page["BTC/USD"]
        assert len(rows) <= count
        assert [row[6] for row in rows] == sorted(row[6] for row in rows)
        assert pages == 0 or rows[0][6] in ids, "a page begins with the trade that the cursor names"
        ids |= {row[6] for row in rows}
        assert int(page["last"]) >= int(since)
        since = page["last"]
        pages += 1
        assert pages <= known
    assert ids >= set(range(first, first + known))


async def test_a_row_is_written_as_kraken_writes_it(http: httpx2.AsyncClient, market: SimulatedSource) -> None:
    """The digits of a REST trade disagree with those of the WebSocket's."""
    trades = market.markets["BTC/USD"].trades
    page = await result(http, "/Trades", pair="XBTUSD", since=0, count=1000)
    for row, trade in zip(page["XXBTZUSD"], trades, strict=False):
        assert row[:2] == [trade.price + "0000", trade.qty]
        assert row[3:] == [trade.side[0], trade.order_type[0], "", trade.trade_id]
        seconds, _, decimals = row[2].partition(".")
        assert 1 <= len(decimals) <= 7
        assert int(seconds + decimals.ljust(7, "0")) == trade.time // 100
    assert page["last"] == str(trades[999].time)


async def test_without_a_cursor_the_latest_trades_come(http: httpx2.AsyncClient) -> None:
    """A start of the collector takes the oldest trades for the newest."""
    rows = (await result(http, "/Trades", pair="BTC/USD", count=5))["BTC/USD"]
    assert rows[0][6] > 1
    assert [row[6] for row in rows] == list(range(rows[0][6], rows[0][6] + 5))


async def test_a_cursor_may_be_in_seconds(http: httpx2.AsyncClient, market: SimulatedSource) -> None:
    """A cursor in seconds is taken for nanoseconds after 1970, and gives the whole history."""
    trade = market.markets["BTC/USD"].trades[100]
    seconds = f"{trade.time // 10**9}.{trade.time % 10**9:09d}"
    for since in (seconds, str(trade.time)):
        assert (await result(http, "/Trades", pair="BTC/USD", since=since))["BTC/USD"][0][6] == trade.trade_id
    whole = (await result(http, "/Trades", pair="BTC/USD", since=str(trade.time // 10**9)))["BTC/USD"][0][6]
    assert whole <= trade.trade_id


async def test_an_empty_page_keeps_the_cursor(http: httpx2.AsyncClient) -> None:
    """A cursor beyond the last trade is thrown back to the beginning."""
    page = await result(http, "/Trades", pair="BTC/USD", since=str(4 * 10**18))
    assert page == {"BTC/USD": [], "last": str(4 * 10**18)}


@pytest.mark.parametrize(
    ("path", "query", "error"),
    [
        ("/Trades", {"pair": "XBT/USD"}, "EQuery:Unknown asset pair"),
        ("/Trades", {"pair": "ETH/USD"}, "EQuery:Unknown asset pair"),
        ("/Trades", {}, "EQuery:Unknown asset pair"),
        ("/Trades", {"pair": "BTC/USD", "count": 1001}, "EGeneral:Invalid arguments:count"),
        ("/Trades", {"pair": "BTC/USD", "count": 0}, "EGeneral:Invalid arguments:count"),
        ("/Trades", {"pair": "BTC/USD", "since": "yesterday"}, "EGeneral:Invalid arguments:since"),
        ("/Depth", {"pair": "BTC/USD", "count": 501}, "EGeneral:Invalid arguments:count"),
        ("/Ticker", {"pair": "BTC/USD"}, "EGeneral:Unknown method"),
    ],
)
async def test_errors_come_with_status_200(http: httpx2.AsyncClient, path: str, query: dict, error: str) -> None:
    """A client that judges by the HTTP status takes an error for an answer."""
    assert await refusal(http, path, **query) == error


@pytest.mark.parametrize(
    ("pair", "key"),
    [
        ("BTC/USD", "BTC/USD"),
        ("XBTUSD", "XXBTZUSD"),
        ("XXBTZUSD", "XXBTZUSD"),
        ("XDGUSD", "XDGUSD"),
        ("DOGE/USD", "DOGE/USD"),
        ("ADAUSD", "ADAUSD"),
    ],
)
async def test_results_have_the_key_that_kraken_gives_them(http: httpx2.AsyncClient, pair: str, key: str) -> None:
    """A client that looks for the name it asked for does not find it in production."""
    assert set(await result(http, "/Trades", pair=pair)) == {key, "last"}
    assert set(await result(http, "/Depth", pair=pair)) == {key}
    assert set(await result(http, "/AssetPairs", pair=pair)) == {key}


async def test_the_depth_is_the_market(http: httpx2.AsyncClient, market: SimulatedSource) -> None:
    """An audit compares with a book that never was, or the two sides are mixed up."""
    page = (await result(http, "/Depth", pair="DOGEUSD".replace("DOGE", "XDG"), count=500))["XDGUSD"]
    bids, asks = ([float(row[0]) for row in page[side]] for side in ("bids", "asks"))
    assert len(bids) == len(asks) == 500
    assert bids == sorted(bids, reverse=True)
    assert asks == sorted(asks)
    assert bids[0] < asks[0]
    assert len((await result(http, "/Depth", pair="XDGUSD"))["XDGUSD"]["asks"]) == 100
    seconds = market.now() // 10**9
    assert all(seconds - 60 < row[2] <= seconds for row in page["bids"])


async def test_asset_pairs_have_the_fields_of_the_real_answer(http: httpx2.AsyncClient, recordings: Path) -> None:
    """A reader of the reference data that works here fails on Kraken's."""
    real = json.loads((recordings / "rest_asset_pairs.json").read_text())["result"]
    for name, entry in real.items():
        names = pair_names(v2_symbol(entry["wsname"]))
        assert (names.key, names.altname, names.wsname) == (name, entry["altname"], entry["wsname"])
        assert (names.base, names.quote) == (entry["base"], entry["quote"])
    ours = await result(http, "/AssetPairs")
    assert set(ours) == {"XXBTZUSD", "XDGUSD", "ADAUSD"}
    btc = ours["XXBTZUSD"]
    assert (btc["pair_decimals"], btc["lot_decimals"], btc["tick_size"]) == (1, 8, "0.1")
    optional = {"long_position_limit", "short_position_limit", "execution_venue"}
    assert set(btc) - optional == set(next(iter(real.values()))) - optional


async def test_the_clock_is_the_source_s(recordings: Path) -> None:
    """REST and WebSocket of a replay live in different years."""
    frames = (recordings / "btcusd_depth10_2023-07-30.ndjson").read_bytes().splitlines()
    async with serving(TapeSource(frames)) as address, httpx2.AsyncClient() as http:
        base = f"{address.rest_url}/0/public"
        status = await result(http, f"{base}/SystemStatus")
        assert status["status"] == "online"
        assert status["timestamp"].startswith("2023-07-30T")
        time = await result(http, f"{base}/Time")
        assert 0 <= int(time["unixtime"]) - 1690675200 < 86_400 * 2
        assert "30 Jul 23" in time["rfc1123"]


async def test_a_tape_s_trades_are_paged_like_any_other() -> None:
    """A repair against a replayed day finds other trades than the day had."""
    tape = list(simulated_frames(["BTC/USD"], 10, seed=3, count=3000))
    ids = [row["trade_id"] for frame in tape if b'"trade"' in frame for row in json.loads(frame)["data"]]
    async with serving(TapeSource(tape)) as address, httpx2.AsyncClient() as http:
        page = await result(http, f"{address.rest_url}/0/public/Trades", pair="BTC/USD", since=0)
    assert [row[6] for row in page["BTC/USD"]] == ids[:1000]


@pytest.mark.parametrize(
    ("symbol", "altname", "key"),
    [
        ("ETH/BTC", "ETHXBT", "XETHXXBT"),
        ("BTC/USDT", "XBTUSDT", "XBTUSDT"),
        ("SOL/USD", "SOLUSD", "SOLUSD"),
        ("DOGE/BTC", "XDGXBT", "XDGXBT"),
        ("XTZ/EUR", "XTZEUR", "XTZEUR"),
    ],
)
def test_pairs_are_called_as_in_kraken_s_own_list(symbol: str, altname: str, key: str) -> None:
    """A prefix is added to an asset that has none."""
    names = pair_names(symbol)
    assert (names.altname, names.key) == (altname, key)
