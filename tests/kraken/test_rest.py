"""Kraken's REST answers, read from the text of their tokens, and the ways in which they are not had."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path

import httpx2
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import RestError
from collector.kraken import rest
from collector.kraken.rest import RestTrade, fetch, fetch_symbols, parse_result, parse_symbols, parse_trades

ROW = '["30243.40000","0.34507674",1688669597.8277369,"b","m","",61044952]'
PAGE = f'{{"error":[],"result":{{"XXBTZUSD":[{ROW}],"last":"1688671969993150842"}}}}'


def test_recorded_page_is_read_exactly(recordings: Path) -> None:
    """Prevents a lost trade, digit or nanosecond; no float holds these times."""
    body = (recordings / "rest_trades_xbtusdt_2025-11-10.json").read_bytes()
    page = parse_trades(body)
    recorded = json.loads(body, parse_float=Decimal)["result"]
    assert [trade.trade_id for trade in page.trades] == list(range(10218208, 10219208))
    assert len({trade.nanoseconds for trade in page.trades}) == 586
    for trade, row in zip(page.trades, recorded["XBTUSDT"], strict=True):
        assert trade.nanoseconds == row[2] * 10**9
        assert (trade.price.decode(), trade.volume.decode()) == (row[0], row[1])
        assert (trade.side[0], trade.order_type[0]) == (row[3], row[4])
    assert page.last == int(recorded["last"])


def test_recorded_names_of_pairs(recordings: Path) -> None:
    """Prevents v1's names, which v2 refuses, from being proposed to a person."""
    body = (recordings / "rest_asset_pairs.json").read_bytes()
    assert parse_symbols(body) == ["BTC/USDT"]


def test_documented_page() -> None:
    """Prevents a difference from the example of Kraken's documentation."""
    trade = RestTrade(61044952, 1688669597_827736900, b"30243.40000", b"0.34507674", "buy", "market")
    assert parse_trades(PAGE.encode()) == rest.TradesPage([trade], 1688671969993150842)


@pytest.mark.parametrize(
    ("time", "nanoseconds"),
    [
        ("1688669597", 1688669597_000000000),
        ("1688669597.0", 1688669597_000000000),
        ("1688669597.0000001", 1688669597_000000100),
        ("1688669597.1234567899", 1688669597_123456789),
        ("1.6886695978277369e9", 1688669597_827736900),
        ('"1688669597.5"', 1688669597_500000000),
    ],
)
def test_time_in_nanoseconds(time: str, nanoseconds: int) -> None:
    """Prevents a time that is rounded, or whose leading zeros behind the point get lost."""
    page = parse_trades(PAGE.replace("1688669597.8277369", time).encode())
    assert page.trades[0].nanoseconds == nanoseconds


def test_order_type_that_is_not_known_is_kept_and_the_cursor_may_lack() -> None:
    """Prevents a page from being refused for a new word, or for the end of the history."""
    page = parse_trades(f'{{"error":[],"result":{{"BTC/USD":[{ROW.replace("m", "q")}]}}}}'.encode())
    assert page.trades[0].order_type == "q"
    assert page.last is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"b"', '"x"'),
        ('"30243.40000"', "30243.4"),
        ('"30243.40000"', '"-1"'),
        ('"30243.40000"', '"٣"'),
        ("1688669597.8277369", "null"),
        ("1688669597.8277369", "-1"),
        (',"",61044952', ""),
        ("61044952", "-1"),
        ("61044952", str(2**63)),
        ('"1688671969993150842"', "1688671969993150842"),
        ('"1688671969993150842"', '"soon"'),
        (f'"XXBTZUSD":[{ROW}],', ""),
        (f"[{ROW}]", f'[{ROW}],"XETHZUSD":[]'),
        (f"[{ROW}]", "{}"),
    ],
)
def test_page_that_is_not_as_documented_is_refused_whole(old: str, new: str) -> None:
    """Prevents half a page from passing for a page: repair would take the other half for absent."""
    assert old in PAGE
    with pytest.raises(RestError, match="not as documented"):
        parse_trades(PAGE.replace(old, new).encode())


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ('{"error":["EGeneral:Too many requests"]}', "EGeneral:Too many requests"),
        ('{"error":["EService:Unavailable","EService:Busy"],"result":null}', "EService:Unavailable; EService:Busy"),
        ('{"error":["EQuery:Unknown asset pair"],"result":{}}', "EQuery:Unknown asset pair"),
        ('{"error":[]}', "without a result"),
        ('{"error":[],"result":null}', "without a result"),
        ('{"result":{}}', "not an answer"),
        ("<html>error code: 1015</html>", "1015"),
        ("[]", "not an answer"),
        ("", "not an answer"),
    ],
)
def test_answer_that_is_an_error_tells_which(body: str, told: str) -> None:
    """Prevents an error in an answer of status 200, or a page of the edge, from passing for an empty result."""
    for parse in (parse_result, parse_trades, parse_symbols):
        with pytest.raises(RestError, match=told):
            parse(body.encode())


def test_pairs_without_a_wsname_are_left_out() -> None:
    """Prevents a crash on pairs that the WebSocket does not have."""
    body = b'{"error":[],"result":{"A":{"wsname":"XBT/USD"},"B":{},"C":{"wsname":null},"D":{"wsname":"XDG/XBT"}}}'
    assert parse_symbols(body) == ["BTC/USD", "DOGE/BTC"]


@given(st.one_of(st.binary(), st.builds(lambda at, junk: PAGE.encode()[:at] + junk, st.integers(0, 130), st.binary())))
@pytest.mark.parametrize("parse", [parse_result, parse_trades, parse_symbols])
def test_any_body_is_read_or_refused(parse: object, body: bytes) -> None:
    """Prevents a body that crashes the repair of trades."""
    assert callable(parse)
    try:
        parse(body)
    except RestError:
        return


@pytest.mark.parametrize("body", [b'{"error":["\xff"]}', b'{"error":[],"result":' + b"[" * 9999 + b"]" * 9999 + b"}"])
def test_text_that_is_no_text_and_endless_nesting_are_refused(body: bytes) -> None:
    """Prevents the two errors that the JSON decoder raises beside its own."""
    with pytest.raises(RestError):
        parse_result(body)


@asynccontextmanager
async def client_of(answer: bytes | None, requests: list[bytes]) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a server that notes requests and gives one answer; None is silence."""

    async def serve(stream: trio.SocketStream) -> None:
        requests.append(bytes(await stream.receive_some()))
        if answer is None:
            await trio.sleep_forever()
        await stream.send_all(answer)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            yield client
        nursery.cancel_scope.cancel()


def answer_of(status: str, body: str) -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()


async def test_fetch_asks_as_documented() -> None:
    """Prevents a wrong path, or parameters that are lost."""
    requests: list[bytes] = []
    async with client_of(answer_of("200 OK", PAGE), requests) as client:
        body = await fetch(client, "Trades", pair="BTC/USD", since=1688671969993150842)
    assert body == PAGE.encode()
    target = requests[0].split()[1]
    assert httpx2.URL(target.decode()).path == "/0/public/Trades"
    assert dict(httpx2.URL(target.decode()).params) == {"pair": "BTC/USD", "since": "1688671969993150842"}


async def test_symbols_are_fetched() -> None:
    """Prevents a message about a refused pair that can never name a good one."""
    requests: list[bytes] = []
    body = '{"error":[],"result":{"XXBTZUSD":{"wsname":"XBT/USD"}}}'
    async with client_of(answer_of("200 OK", body), requests) as client:
        assert await fetch_symbols(client) == ["BTC/USD"]
    assert requests[0].startswith(b"GET /0/public/AssetPairs ")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (answer_of("429 Too Many Requests", "slow down"), "HTTP status 429"),
        (answer_of("503 Service Unavailable", ""), "HTTP status 503"),
        (answer_of("302 Found", ""), "HTTP status 302"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf", "Trades: "),
        (b"garbage\r\n\r\n", "Trades: "),
        (b"", "Trades: "),
        (None, "Trades: "),
    ],
)
async def test_answer_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch, answer: bytes | None, told: str) -> None:
    """Prevents an error of HTTP or of the network from crashing its caller, and a wait without end."""
    monkeypatch.setattr(rest, "TIMEOUT", 0.3)
    with trio.fail_after(20):
        async with client_of(answer, []) as client:
            with pytest.raises(RestError, match=told):
                await fetch(client, "Trades", pair="BTC/USD")


async def test_server_that_is_not_there() -> None:
    """Prevents a refused connection from crashing its caller."""
    async with httpx2.AsyncClient(base_url="http://127.0.0.1:1") as client:
        with pytest.raises(RestError, match="AssetPairs: "):
            await fetch_symbols(client)
