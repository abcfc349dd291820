import json
from collections.abc import AsyncIterator, Callable

import httpx2
import pytest
import trio
from trio_websocket import ConnectionClosed

from collector.kraken.server.faults import RATE_LIMIT_BARE, RATE_LIMIT_V1, RATE_LIMIT_V2, Faults
from collector.kraken.server.serving import Address
from collector.kraken.server.tape import TapeSource
from collector.kraken.simulator.simulation import open_simulation, simulated_frames
from tests.kraken.client import HEARTBEAT, connected, is_book, is_listening, serving, upgrade_status, wait_until
from tests.kraken.naive_book import NaiveBook

SILENCE = 1.5  # seconds: more than a heartbeat's period


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
async def address(faults: Faults) -> AsyncIterator[Address]:
    async with open_simulation(["BTC/USD", "ETH/USD"], seed=1, rate=400) as source, serving(source, faults) as address:
        yield address


async def test_a_close_has_its_code_and_reason(address: Address, faults: Faults) -> None:
    """A client's handling of Kraken's close codes cannot be tested."""
    async with connected(address) as client:
        await client.subscribe("book", "BTC/USD", depth=10)
        faults.close(1013, "Market data unavailable")
        assert await client.closed() == (1013, "Market data unavailable")
    async with connected(address) as client:
        assert (await client.ask({"method": "ping"}))["method"] == "pong", "the next connection is whole"


async def test_a_reset_ends_a_connection_without_a_close_frame(address: Address, faults: Faults) -> None:
    """A connection that is cut off mid-stream cannot be tested."""
    async with connected(address) as client:
        await client.subscribe("book", "BTC/USD", depth=10)
        faults.reset()
        assert (await client.closed())[0] == 1006
    await wait_until(lambda: not faults.connections)


async def test_a_silent_connection_stays_up_and_nothing_comes(address: Address, faults: Faults) -> None:
    """A half-open connection, which only a timeout can find, cannot be tested."""
    async with connected(address) as client:
        await client.subscribe("book", "BTC/USD", depth=10)
        faults.go_silent()
        await client.send({"method": "ping", "req_id": 77})
        with trio.move_on_after(0.2):  # what was under way
            while True:
                await client.websocket.get_message()
        with trio.move_on_after(SILENCE):
            pytest.fail(f"came out of the silence: {await client.websocket.get_message()!r}")
        with trio.move_on_after(SILENCE):
            await client.websocket.aclose()
            pytest.fail("the closing handshake was answered")
    async with connected(address) as other:
        assert (await other.ask({"method": "ping"}))["method"] == "pong", "new connections are whole"
        await wait_until(lambda: len(faults.connections) == 1)  # nothing stays of the silent one when its client goes


async def test_lifting_breaks_a_silent_connection(address: Address, faults: Faults) -> None:
    """A client without a timeout would wait for ever, and its test with it."""
    async with connected(address) as client:
        await client.subscribe("book", "BTC/USD", depth=10)
        faults.go_silent()
        faults.lift()
        assert (await client.closed())[0] == 1006
        await wait_until(lambda: not faults.connections)


async def test_a_held_subscription_leaves_the_heartbeats(address: Address, faults: Faults) -> None:
    """A subscription that is acked and then silent, on a connection that looks well, cannot be tested."""
    async with connected(address) as client:
        faults.hold("book", "BTC/USD")
        assert (await client.subscribe("book", "BTC/USD", depth=10))["success"] is True
        for _ in range(2):
            assert await client.websocket.get_message() == HEARTBEAT
        await client.subscribe("book", "ETH/USD", depth=10)
        assert (await client.until(is_book))["data"][0]["symbol"] == "ETH/USD"
        faults.release("book", "BTC/USD")
        book = NaiveBook(10)
        while len(mine := [frame for frame in client.data() if '"BTC/USD"' in frame]) < 50:
            await client.frame()
        assert all(book.apply(frame) for frame in mine), "nothing is lost"


async def test_a_bad_checksum_strikes_once_and_spoils_nothing_else(address: Address, faults: Faults) -> None:
    """A client that accepts a wrong checksum passes, or a right one looks wrong."""
    async with connected(address) as client:
        await client.subscribe("book", "BTC/USD", "ETH/USD", depth=10)
        books = {"BTC/USD": NaiveBook(10), "ETH/USD": NaiveBook(10)}
        results: dict[str, list[bool]] = {"BTC/USD": [], "ETH/USD": []}

        async def check(messages: int) -> None:
            for _ in range(messages):
                symbol = (await client.until(is_book))["data"][0]["symbol"]
                results[symbol].append(books[symbol].apply(client.received[-1]))

        await check(10)
        faults.bad_checksum("BTC/USD", times=2)
        await check(100)
        assert results["BTC/USD"].count(False) == 2
        assert all(results["ETH/USD"])


async def test_a_crossed_snapshot_verifies(address: Address, faults: Faults) -> None:
    """A client that looks at the checksum alone takes a crossed book."""
    faults.cross_snapshot("BTC/USD")
    async with connected(address) as client:
        for crossed in (True, False):
            book = NaiveBook(100)
            await client.subscribe("book", "BTC/USD", depth=100)
            await client.until(is_book)
            assert book.apply(client.received[-1])
            assert book.is_crossed() is crossed
            await client.unsubscribe("book", "BTC/USD", depth=100)


async def test_a_deep_change_is_withheld_where_no_checksum_shows_it(faults: Faults) -> None:
    """An audit of the levels that the checksum does not cover has nothing to find."""
    tape = [frame.decode() for frame in simulated_frames(["BTC/USD"], 1000, seed=1, count=300) if b'"book"' in frame]
    faults.withhold_deep_change("BTC/USD")
    async with serving(TapeSource(frame.encode() for frame in tape), faults) as address, connected(address) as client:
        await client.subscribe("book", "BTC/USD", depth=1000)
        while len(client.data()) < len(tape) - 1:
            await client.frame()
    (withheld,) = [position for position, frame in enumerate(tape) if frame not in client.data()]
    assert client.data() == tape[:withheld] + tape[withheld + 1 :]
    told, true = NaiveBook(1000), NaiveBook(1000)
    assert all(told.apply(frame) for frame in client.data()), "the checksum must not show it"
    for frame in tape:
        true.apply(frame)
    assert told.sides != true.sides


async def test_trades_can_be_dropped_repeated_and_swapped(address: Address, faults: Faults) -> None:
    """Holes, repeats and disorder in the trade ids cannot be tested."""
    async with connected(address) as client:
        await client.subscribe("trade", "BTC/USD")
        last = (await client.until(lambda message: message.get("channel") == "trade"))["data"][-1]["trade_id"]

        async def until_step(step: Callable[[int], bool]) -> None:
            """Read until the first id of a message is a step of this kind from the last one of the message before."""
            nonlocal last
            found = False
            while not found:
                message = await client.until(lambda message: message.get("channel") == "trade")
                ids = [trade["trade_id"] for trade in message["data"]]
                found = step(ids[0] - last)
                assert found or ids[0] == last + 1
                last = ids[-1]

        faults.drop("trade", "BTC/USD")
        await until_step(lambda step: step > 1)
        faults.repeat("trade", "BTC/USD")
        await until_step(lambda step: step <= 0)
        faults.swap("trade", "BTC/USD")
        await until_step(lambda step: step > 1)
        await until_step(lambda step: step < 0)
        await until_step(lambda step: step > 1)
        await until_step(lambda step: step == 1)


@pytest.mark.parametrize(
    ("frame", "is_binary"),
    [(b'{"channel":', False), (b"\x00\x01", True), (b'{"channel":"weather","type":"update","data":[]}', False)],
)
async def test_any_message_can_be_sent(address: Address, faults: Faults, frame: bytes, is_binary: bool) -> None:
    """What Kraken never sent so far, and may send tomorrow, cannot be tested."""
    async with connected(address) as client:
        faults.send(frame, is_binary=is_binary)
        faults.send(b'{"second":1}')
        assert await client.frame() == (frame if is_binary else frame.decode())
        assert await client.frame() == '{"second":1}'


async def test_a_message_may_be_larger_than_a_client_takes(address: Address, faults: Faults) -> None:
    """The limit of a client's message size cannot be tested."""
    async with connected(address) as client:
        faults.send(b'{"padding":"' + b"x" * 2**24 + b'"}')
        with pytest.raises(ConnectionClosed) as end:
            await client.frame()
        assert end.value.reason.code == 1009


async def test_the_state_of_the_engine_is_told_now_and_later(address: Address, faults: Faults) -> None:
    """Maintenance, in which no trade can occur, cannot be tested."""
    async with connected(address) as client:
        faults.set_system("maintenance")
        message = await client.message()
        assert (message["channel"], message["data"][0]["system"]) == ("status", "maintenance")
        first = json.loads(client.received[0])["data"][0]
        assert message["data"][0]["connection_id"] == first["connection_id"]
    async with connected(address) as client, httpx2.AsyncClient() as http:
        assert json.loads(client.received[0])["data"][0]["system"] == "maintenance"
        status = (await http.get(f"{address.rest_url}/0/public/SystemStatus")).json()["result"]["status"]
        assert status == "maintenance"


async def test_subscribing_is_refused_with_any_text_for_one_pair(address: Address, faults: Faults) -> None:
    """A pair that Kraken refuses takes the others with it."""
    faults.refuse(RATE_LIMIT_V2, channel="book", symbol="BTC/USD", times=1)
    async with connected(address) as client:
        answer = await client.subscribe("book", "BTC/USD", "ETH/USD", depth=10)
        assert (answer["success"], answer["error"], answer["symbol"]) == (False, "Exceeded msg rate", "BTC/USD")
        assert (await client.message())["result"]["symbol"] == "ETH/USD"
        assert (await client.subscribe("book", "BTC/USD", depth=10))["success"] is True


@pytest.mark.parametrize("frame", [RATE_LIMIT_V1, RATE_LIMIT_BARE])
async def test_a_request_is_answered_with_any_message(address: Address, faults: Faults, frame: bytes) -> None:
    """The shapes in which Kraken says that there were too many requests cannot be tested."""
    faults.answer_with(frame)
    async with connected(address) as client:
        assert await client.subscribe("book", "BTC/USD") == json.loads(frame)
        assert (await client.subscribe("book", "BTC/USD"))["success"] is True, "the first one did nothing"


async def test_answers_come_late_or_never(address: Address, faults: Faults) -> None:
    """A client that waits for an ack for ever is not found."""
    async with connected(address) as client:
        faults.ignore_requests(times=1)
        await client.send({"method": "ping", "req_id": 1})
        faults.delay_answers(0.3)
        started = trio.current_time()
        answer = await client.ask({"method": "ping", "req_id": 2})
        assert answer["req_id"] == 2
        assert trio.current_time() - started >= 0.3


async def test_the_upgrade_is_refused_with_a_status(address: Address, faults: Faults) -> None:
    """The rate limit in front of Kraken cannot be tested."""
    faults.refuse_upgrade(429, times=1)
    faults.refuse_upgrade(503, times=1)
    assert [await upgrade_status(address) for _ in range(3)] == [429, 503, 101]


async def test_connections_are_refused_and_welcome_again(address: Address, faults: Faults) -> None:
    """An outage cannot be tested."""
    async with connected(address) as client:
        faults.stop_listening()
        while await is_listening(address):  # the port closes soon, not at once
            pass
        assert (await client.ask({"method": "ping"}))["method"] == "pong", "open connections stay"
        faults.lift()
        while not await is_listening(address):
            pass
        assert await upgrade_status(address) == 101
        faults.refuse_connections()
        async with await trio.open_tcp_stream("127.0.0.1", address.port) as stream:
            assert await stream.receive_some() == b""
        faults.lift()
        assert await upgrade_status(address) == 101


async def test_rest_fails_in_every_way(address: Address, faults: Faults) -> None:
    """A client of REST that takes a page of HTML, or an error with status 200, for an answer is not found."""
    url = f"{address.rest_url}/0/public/Time"
    async with httpx2.AsyncClient() as http:
        faults.rest_error("EService:Unavailable", times=1)
        answer = await http.get(url)
        assert (answer.status_code, answer.json()) == (200, {"error": ["EService:Unavailable"]})
        faults.rest_status(503, times=1)
        answer = await http.get(url)
        assert (answer.status_code, answer.headers["content-type"]) == (503, "text/html")
        faults.limit_rest(60)
        answers = [(await http.get(url)).json()["error"] for _ in range(2)]
        assert answers == [[], ["EGeneral:Too many requests"]]
        faults.lift()
        faults.delay_rest(0.2)
        started = trio.current_time()
        assert (await http.get(url)).json()["error"] == []
        assert trio.current_time() - started >= 0.2
