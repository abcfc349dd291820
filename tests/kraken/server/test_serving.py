import json
import re
from collections.abc import AsyncIterator

import httpx2
import pytest
import trio

from collector.kraken.server import connection as server_connection
from collector.kraken.server.faults import Faults
from collector.kraken.server.serving import Address, serve
from collector.kraken.server.tape import TapeSource
from collector.kraken.simulator import simulation as simulator
from collector.kraken.simulator.simulation import SimulatedSource, open_simulation, simulated_frames
from tests.kraken.client import HEARTBEAT, UPGRADE, connected, is_book, serving, upgrade_status, wait_until
from tests.kraken.naive_book import NaiveBook

PAIRS = ["BTC/USD", "ETH/USD", "DOGE/USD"]


@pytest.fixture
async def market() -> AsyncIterator[SimulatedSource]:
    async with open_simulation(PAIRS, seed=1, rate=400) as source:
        yield source


@pytest.fixture
async def address(market: SimulatedSource) -> AsyncIterator[Address]:
    async with serving(market) as address:
        yield address


async def test_a_client_is_greeted_with_the_status(address: Address) -> None:
    """A client that waits for the status before it subscribes would wait for ever."""
    async with connected(address) as client:
        (data,) = json.loads(client.received[0])["data"]
        assert data["system"] == "online"
        assert data["api_version"] == "v2"
        assert 2**63 <= data["connection_id"] < 2**64


async def test_a_subscription_is_acked_pair_by_pair_then_snapshots_then_updates(address: Address) -> None:
    """A client that correlates acks by request and pair is not tested by a server that acks once."""
    async with connected(address) as client:
        await client.subscribe("book", "BTC/USD", "XBT/USD", "ETH/USD", req_id=7, depth=25)
        second, third = await client.message(), await client.message()
        first = json.loads(client.received[1])
        assert first.pop("time_out") == second.pop("time_out") == third.pop("time_out")
        assert first.pop("time_in") == second.pop("time_in") == third.pop("time_in")
        assert [first, second, third] == [
            {
                "method": "subscribe",
                "req_id": 7,
                "result": {"channel": "book", "depth": 25, "snapshot": True, "symbol": "BTC/USD"},
                "success": True,
            },
            {
                "error": "Currency pair not supported XBT/USD",
                "method": "subscribe",
                "req_id": 7,
                "success": False,
                "symbol": "XBT/USD",
            },
            {
                "method": "subscribe",
                "req_id": 7,
                "result": {"channel": "book", "depth": 25, "snapshot": True, "symbol": "ETH/USD"},
                "success": True,
            },
        ]
        books = {"BTC/USD": NaiveBook(25), "ETH/USD": NaiveBook(25)}
        seen = dict.fromkeys(books, 0)
        while min(seen.values()) < 30:
            frame = await client.frame()
            message = json.loads(frame)
            symbol = message["data"][0]["symbol"]
            assert message["type"] == ("update" if seen[symbol] else "snapshot")
            assert books[symbol].apply(frame)
            seen[symbol] += 1


async def test_acks_have_the_keys_of_kraken_in_its_order(address: Address) -> None:
    """A parser that was tried on nothing but this server meets another shape in production."""
    async with connected(address) as client:
        await client.subscribe("book", "BTC/USD", depth=10)
        assert re.fullmatch(
            r'{"method":"subscribe","req_id":1,"result":{"channel":"book","depth":10,"snapshot":true,'
            r'"symbol":"BTC/USD"},"success":true,"time_in":"[-0-9T:]{19}\.[0-9]{6}Z","time_out":"[-0-9T:]{19}\.[0-9]{6}Z"}',
            str(client.received[1]),
        )


async def test_no_request_id_is_invented(address: Address) -> None:
    """An ack that carries an id which was not asked for is taken for another request's."""
    async with connected(address) as client:
        answer = await client.ask({"method": "subscribe", "params": {"channel": "trade", "symbol": ["BTC/USD"]}})
        assert "req_id" not in answer
        assert answer["result"] == {"channel": "trade", "snapshot": False, "symbol": "BTC/USD"}


async def test_trades_come_with_a_snapshot_when_asked_and_without_a_hole(address: Address) -> None:
    """Ids that are missing between snapshot and updates send the collector to repair what is not broken."""
    async with connected(address) as client:
        await client.subscribe("trade", "BTC/USD", snapshot=True)
        ids: list[int] = []
        first = await client.message()
        assert first["type"] == "snapshot"
        assert len(first["data"]) == 50
        message = first
        while len(ids) < 120:
            ids += [trade["trade_id"] for trade in message["data"]]
            message = await client.message()
            assert message["type"] == "update"
        assert ids == list(range(ids[0], ids[0] + len(ids)))


async def test_a_book_without_snapshot_begins_with_updates(address: Address) -> None:
    """`snapshot: false` is ignored."""
    async with connected(address) as client:
        answer = await client.subscribe("book", "BTC/USD", depth=10, snapshot=False)
        assert answer["result"]["snapshot"] is False
        assert (await client.until(is_book))["type"] == "update"


async def test_the_instruments_tell_the_precisions_of_the_books(address: Address, market: SimulatedSource) -> None:
    """The reference data disagrees with the digits of the books."""
    async with connected(address) as client:
        answer = await client.ask({"method": "subscribe", "params": {"channel": "instrument"}, "req_id": 79})
        assert answer["result"]["warnings"] == ["tick_size is deprecated, use price_increment"]
        message = await client.message()
        assert message["channel"] == "instrument"
        pairs = {pair["symbol"]: pair for pair in message["data"]["pairs"]}
        assert {symbol: (pair["price_precision"], pair["qty_precision"]) for symbol, pair in pairs.items()} == {
            symbol: (instrument.price_precision, instrument.qty_precision)
            for symbol, instrument in market.instruments.items()
        }
        for pair in pairs.values():
            assert pair["price_increment"] == pytest.approx(10 ** -pair["price_precision"])
        assert {asset["id"] for asset in message["data"]["assets"]} == {"BTC", "ETH", "DOGE", "USD"}


async def test_heartbeats_come_only_while_something_is_subscribed(address: Address) -> None:
    """Heartbeats without subscription hide that a collector has lost all of its subscriptions."""
    async with connected(address) as client:
        with trio.move_on_after(1.5):
            await client.frame()
        assert client.received[1:] == []
        await client.subscribe("trade", "DOGE/USD")
        while HEARTBEAT not in client.received[-2:]:
            client.received.append(await client.websocket.get_message())
        await client.unsubscribe("trade", "DOGE/USD")
        count = len(client.received)
        with trio.move_on_after(1.5):
            await client.frame()
        assert client.received[count:] == []


async def test_ping_is_answered_with_pong(address: Address) -> None:
    """A client that measures the server's clock gets no answer."""
    async with connected(address) as client:
        answer = await client.ask({"method": "ping", "req_id": 101})
        assert set(answer) == {"method", "req_id", "time_in", "time_out"}
        assert (answer["method"], answer["req_id"]) == ("pong", 101)


async def test_nothing_of_a_stream_follows_its_unsubscribe(address: Address) -> None:
    """Updates behind the answer would be taken for those of the next subscription, and fail its checksums."""
    async with connected(address) as client:
        await client.subscribe("book", "BTC/USD", depth=100)
        for _ in range(20):
            await client.until(is_book)
        answer = await client.unsubscribe("book", "BTC/USD", depth=100)
        assert answer["result"] == {"channel": "book", "depth": 100, "snapshot": True, "symbol": "BTC/USD"}
        with trio.move_on_after(0.3):
            pytest.fail(f"came after the end: {await client.frame()!r}")


async def test_a_resync_starts_with_a_fresh_snapshot(address: Address) -> None:
    """The way back from a desync, unsubscribe and subscribe, leads to a book that does not verify."""
    async with connected(address) as client:
        for request in range(3):
            await client.subscribe("book", "BTC/USD", depth=10, req_id=2 * request)
            book = NaiveBook(10)
            for position in range(30):
                frame = await client.frame()
                assert ('"type":"snapshot"' in str(frame)) is (position == 0)
                assert book.apply(frame)
            await client.unsubscribe("book", "BTC/USD", depth=10, req_id=2 * request + 1)


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (
            {"channel": "book", "symbol": ["XDG/USD"]},
            {"error": "Currency pair not supported XDG/USD", "symbol": "XDG/USD"},
        ),
        ({"channel": "book", "symbol": ["BTC/USD"], "depth": 27}, {"error": "Subscription depth not supported"}),
        (
            {"channel": "book", "symbol": ["BTC/USD"], "depth": "10"},
            {"error": "Subscription book depth must be an integer"},
        ),
        (
            {"channel": "book", "symbol": ["BTC/USD"], "depth": True},
            {"error": "Subscription book depth must be an integer"},
        ),
        ({"channel": "books", "symbol": ["BTC/USD"]}, {"error": "Subscription name invalid"}),
        ({"symbol": ["BTC/USD"]}, {"error": "Subscription name invalid"}),
        ({"channel": "status"}, {"error": "Symbol(s) not found"}),
        ({"channel": "heartbeat"}, {"error": "Symbol(s) not found"}),
        ({"channel": "trade", "symbol": []}, {"error": "Symbol(s) not found"}),
        ({"channel": "trade", "symbol": "BTC/USD"}, {"error": "Symbol(s) not found"}),
        ({"channel": "trade", "symbol": ["BTC/USD"], "depth": 10}, {"error": "Unsupported field: 'depth'"}),
        (
            {"channel": "executions", "token": "?"},
            {"error": "Private data and trading are unavailable on this endpoint. Try ws-auth.kraken.com"},
        ),
    ],
)
async def test_a_request_that_kraken_refuses_is_refused_in_its_words(
    address: Address, request_: dict, answer: dict
) -> None:
    """A client's handling of a refusal is tested against a shape that Kraken does not send."""
    async with connected(address) as client:
        got = await client.ask({"method": "subscribe", "params": request_, "req_id": 9})
        assert {"time_in", "time_out"} <= set(got)
        got = {key: value for key, value in got.items() if not key.startswith("time_")}
        assert got == {"method": "subscribe", "req_id": 9, "success": False} | answer
        assert (await client.subscribe("book", "BTC/USD"))["success"] is True, "the connection stays up"


async def test_subscribing_twice_and_unsubscribing_nothing_are_refused(address: Address) -> None:
    """A client that loses count of its subscriptions does not notice."""
    async with connected(address) as client:
        assert (await client.subscribe("book", "BTC/USD", depth=10))["success"] is True
        again = await client.subscribe("book", "BTC/USD", depth=10)
        assert (again["success"], again["error"], again["symbol"]) == (False, "Already subscribed", "BTC/USD")
        wrong_depth = await client.unsubscribe("book", "BTC/USD", depth=25)
        assert wrong_depth["success"] is False
        assert (await client.unsubscribe("book", "BTC/USD", depth=10))["success"] is True


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "17", '{"params":{}}', '{"method":3}', '{"method":"ping","req_id":"x"}']
)
async def test_what_is_no_request_is_called_malformed(address: Address, text: str) -> None:
    """A bug in a client's requests crashes the server, or goes unseen."""
    async with connected(address) as client:
        answer = await client.ask(text)
        assert (answer["success"], answer["error"]) == (False, "Malformed request")
        assert (await client.ask({"method": "dance", "req_id": 1}))["success"] is False
        assert (await client.ask({"method": "ping"}))["method"] == "pong"


async def test_all_that_was_sent_is_told_in_order(market: SimulatedSource) -> None:
    """A test that compares what was stored with what was sent compares with something else."""
    sent: dict[int, list[str]] = {1: [], 2: []}
    async with (
        serving(market, on_sent=lambda number, frame: sent[number].append(frame.decode())) as address,
        connected(address) as one,
        connected(address) as two,
    ):
        for client in (one, two):
            await client.subscribe("book", "BTC/USD", "ETH/USD", depth=10)
            await client.subscribe("trade", "BTC/USD", snapshot=True)
            for _ in range(100):
                await client.frame()
        got = [client.data() for client in (one, two)]
    assert [sent[number][: len(frames)] for number, frames in enumerate(got, 1)] == got


async def test_a_long_tape_arrives_verbatim() -> None:
    """Batching, or the short way past trio-websocket, damages or loses a frame."""
    tape = [frame.decode() for frame in simulated_frames(PAIRS, 1000, seed=4, count=20_000)]
    async with serving(TapeSource(frame.encode() for frame in tape)) as address, connected(address) as client:
        await client.subscribe("book", *PAIRS, depth=1000)
        await client.subscribe("trade", *PAIRS, req_id=2)
        while len(got := client.data()) < len(tape):
            for _ in range(len(tape) - len(got)):
                await client.frame()
    assert by_stream(got) == by_stream(tape)


def by_stream(frames: list[str]) -> dict[tuple[str, str], list[str]]:
    streams: dict[tuple[str, str], list[str]] = {}
    for frame in frames:
        message = json.loads(frame)
        streams.setdefault((message["channel"], message["data"][0]["symbol"]), []).append(frame)
    return streams


async def test_websocket_and_rest_share_the_port(address: Address) -> None:
    """Only one of the two can be had."""
    async with connected(address) as client, httpx2.AsyncClient() as http:
        for _ in range(3):
            assert (await http.get(f"{address.rest_url}/0/public/Time")).json()["error"] == []
        assert (await client.ask({"method": "ping"}))["method"] == "pong"
        assert (await http.get(f"{address.rest_url}/v3")).status_code == 404


async def test_the_websocket_is_at_its_path_only(address: Address) -> None:
    """A wrong path in a setting is not noticed before production."""
    assert await upgrade_status(address, "/v1") == 404
    assert await upgrade_status(address, "/v2") == 101


async def test_what_is_not_http_is_turned_away(address: Address) -> None:
    """Noise on the port brings the server down."""
    for noise in (
        b"\x16\x03\x01\x00\xff\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: a\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ):
        async with await trio.open_tcp_stream("127.0.0.1", address.port) as stream:
            await stream.send_all(noise)
            await stream.send_eof()
            answer = b"".join([chunk async for chunk in stream])
            assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    async with connected(address) as client:
        assert (await client.ask({"method": "ping"}))["method"] == "pong"


async def test_closing_the_server_ends_all_connections(market: SimulatedSource) -> None:
    """A test's server outlives it, or its clients wait for ever."""
    async with trio.open_nursery() as clients:
        async with serving(market) as address:
            ended = []

            async def follow(task_status) -> None:
                async with connected(address) as client:
                    await client.subscribe("book", *PAIRS)
                    task_status.started()
                    ended.append(await client.closed())

            for _ in range(5):
                await clients.start(follow)
        with trio.fail_after(10):
            await wait_until(lambda: len(ended) == 5)


async def test_a_taken_port_is_an_error(address: Address, market: SimulatedSource) -> None:
    """A second server on one port serves nobody and says nothing."""
    with pytest.raises(OSError, match="in use"):
        await serve(market, port=address.port)


async def test_clients_that_vanish_leave_nothing_behind(market: SimulatedSource) -> None:
    """Streams of clients that are gone pile up until the machine is full."""
    async with serving(market) as address:
        for _ in range(20):
            stream = await trio.open_tcp_stream("127.0.0.1", address.port)
            async with stream:
                await stream.send_all(UPGRADE)
                request = b'{"method":"subscribe","params":{"channel":"book","symbol":["BTC/USD"]}}'
                await stream.send_all(bytes([0x81, 0x80 | len(request), 0, 0, 0, 0]) + request)
                await stream.receive_some(1)
        async with connected(address) as client:
            await client.subscribe("book", "BTC/USD")
            with trio.fail_after(10):
                await wait_until(lambda: sum(map(len, market._subscribers.values())) == 1)


async def test_a_client_that_falls_behind_is_closed(market: SimulatedSource, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not read gets a stream with a hole in it, and no word of that."""
    monkeypatch.setattr(simulator, "SUBSCRIBER_LAG", 20)
    faults = Faults()
    async with serving(market, faults) as address, connected(address) as client:
        faults.hold("book", "BTC/USD")
        await client.subscribe("book", "BTC/USD", depth=1000)
        await wait_until(lambda: not market._subscribers["BTC/USD", 1000])
        faults.release("book", "BTC/USD")
        assert await client.closed() == (1013, "20 frames were waiting for the client")
    book = NaiveBook(1000)
    assert all(book.apply(frame) for frame in client.data()), "what came before has no hole"


async def test_a_client_that_wants_nothing_is_closed(address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector without any subscription stays connected, in the belief that it collects."""
    monkeypatch.setattr(server_connection, "IDLE_TIMEOUT", 0.2)
    async with connected(address) as client:
        assert (await client.closed())[0] == 1000


async def test_a_ping_during_the_close_does_no_harm(market: SimulatedSource) -> None:
    """trio-websocket raises on it, which would end the whole server."""
    faults = Faults()
    async with serving(market, faults) as address:
        async with await trio.open_tcp_stream("127.0.0.1", address.port) as stream:
            await stream.send_all(UPGRADE)
            received = b""
            while b'"online"' not in received:
                received += await stream.receive_some()
            faults.close(1001, "bye")
            while not received.endswith(b"bye"):
                received += await stream.receive_some()
            await stream.send_all(b"\x89\x80\0\0\0\0")
            await wait_until(lambda: not faults.connections)
        async with connected(address) as client:
            assert (await client.ask({"method": "ping"}))["method"] == "pong"


async def test_nothing_follows_a_close_frame(market: SimulatedSource) -> None:
    """A stream that goes on behind the close breaks the protocol, and the client's closing handshake."""
    faults = Faults()
    async with serving(market, faults) as address, await trio.open_tcp_stream("127.0.0.1", address.port) as stream:
        request = b'{"method":"subscribe","params":{"channel":"book","symbol":["BTC/USD"],"depth":1000}}'
        await stream.send_all(UPGRADE)
        received = await stream.receive_some()
        await stream.send_all(bytes([0x81, 0x80 | len(request), 0, 0, 0, 0]) + request)
        while received.count(b'"update"') < 20:
            received += await stream.receive_some()
        faults.close(1001, "bye")
        while chunk := await stream.receive_some():  # to the end, without an answer to the close
            received += chunk
    assert received.endswith(b"\x88\x05\x03\xe9bye")
