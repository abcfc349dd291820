"""Metrics and health over HTTP, from a running collector: they tell the truth, and no client can do any harm."""

import random
import re
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path

import httpx2
import pytest
import trio
from collecting import collecting, count, open_kraken, open_market, settings_for, wait_until
from embedded import EmbeddedRedis, free_port
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from collector.assignment import Assignment
from collector.health import Running
from collector.settings import Settings
from collector.statistics import Statistics
from collector.storage.spool import Spool
from collector.tasks import metrics
from collector.tasks.metrics import CONNECTIONS, REQUEST_BYTES, serve_metrics

HOST = "127.0.0.1"


def client(port: int) -> AbstractAsyncContextManager[httpx2.AsyncClient]:
    return httpx2.AsyncClient(base_url=f"http://{HOST}:{port}")


async def scrape(http: httpx2.AsyncClient) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels."""
    answer = await http.get("/metrics")
    assert answer.status_code == 200
    return {
        (sample.name.removeprefix("kraken_collector_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_running_collector_tells_of_itself(
    migrated_url: str, redis_service: EmbeddedRedis, tmp_path: Path
) -> None:
    """Prevents metrics that are not what was stored, and a health that does not follow what happens."""
    port = free_port()
    async with open_market(["BTC/USD", "ETH/USD"]) as market, open_kraken(market) as kraken:
        settings = settings_for(
            kraken,
            migrated_url,
            tmp_path,
            pairs="BTC/USD,ETH/USD",
            metrics_port=port,
            use_redis=True,
            redis_port=redis_service.port,
        )
        async with collecting(settings) as collector, client(port) as http:
            await wait_until(lambda: collector.statistics.stored_rows > 500 and collector.statistics.published > 100)
            before = collector.statistics.stored_rows
            told = await scrape(http)
            assert before <= told["committed_rows_total",] <= told["spooled_rows_total",]
            assert told["committed_rows_total",] <= count(
                migrated_url, "SELECT (SELECT count(*) FROM kraken_orderbook) + (SELECT count(*) FROM kraken_trades)"
            )
            assert told["group_starts_total",] == told["connections_total",] == 1
            assert told["commit_latency_seconds_count",] == told["commit_latency_seconds_bucket", "+Inf"]
            assert told["commit_latency_seconds_count",] == pytest.approx(told["committed_segments_total",], abs=1)
            assert told["publish_latency_seconds_count",] > 0
            assert 0 < told["commit_latency_seconds_sum",] < 30 * told["commit_latency_seconds_count",]
            assert {sample for sample, value in told.items() if sample[0] == "watched" and value} == {
                ("watched", channel, pair) for channel in ("book", "trade") for pair in settings.pairs
            }
            assert told["message_age_seconds", "book", "BTC/USD"] < 30
            assert told["process_resident_memory_bytes",] > 10**7
            for path, answer in (("/health/live", "alive\n"), ("/health/ready", "ready\n")):
                assert ((await http.get(path)).status_code, (await http.get(path)).text) == (200, answer)
            kraken.faults.stop_listening()
            kraken.faults.reset()
            await wait_until(lambda: not collector._books or not collector._books.runs())
            answer = await http.get("/health/ready")
            assert answer.status_code == 503
            assert answer.text.splitlines()[0] == "BTC/USD book: not watched"
            assert (await scrape(http))["watched", "book", "BTC/USD"] == 0
            assert (await http.get("/health/live")).status_code == 200


@pytest.fixture
def running(tmp_path: Path) -> Running:
    """A collector that has not begun."""
    configured = Settings(database_url="postgresql://user:secret@h/d")
    return Running(configured, Statistics(), Spool(tmp_path, -1), Assignment(), lambda: None)


async def ask(port: int, request: bytes) -> bytes:
    """What comes back until the server closes."""
    async with await trio.open_tcp_stream(HOST, port) as stream:
        await stream.send_all(request)
        answer = b""
        while data := await stream.receive_some():
            answer += data
    return answer


@pytest.mark.parametrize(
    ("request_text", "first_line"),
    [
        (b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 200 OK"),
        (b"GET /health/live?verbose=1 HTTP/1.0\r\n\r\n", b"HTTP/1.1 200 OK"),
        (b"GET /health/ready HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 503 Service Unavailable"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 404 Not Found"),
        (b"GET \xff HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 400 Bad Request"),
        (b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", b"HTTP/1.1 405 Method Not Allowed"),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\nabc", b"HTTP/1.1 200 OK"),
        (b"GET //[ HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 404 Not Found"),
        (b"GET http://[/metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 404 Not Found"),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 405 Method Not Allowed"),
        (
            b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            b"HTTP/1.1 200 OK",
        ),
        (
            b"GET /health/live HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
            b"HTTP/1.1 200 OK",
        ),
        (b"hello\r\n\r\n", b"HTTP/1.1 400 Bad Request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 9, b"HTTP/1.1 400 Bad Request"),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 2 * REQUEST_BYTES, b"HTTP/1.1 431 Request Header Fields"),
    ],
)
async def test_any_request_gets_one_answer(
    request_text: bytes, first_line: bytes, running: Running, nursery: trio.Nursery
) -> None:
    """Prevents a malformed or huge request from crashing the task, or from holding a connection open."""
    port = free_port()
    nursery.start_soon(serve_metrics, running, port)
    with trio.fail_after(10):
        await wait_for_port(port)
        answer = await ask(port, request_text)
        assert answer.startswith(first_line)
        assert b"secret" not in answer
        assert (await ask(port, b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")).endswith(b"\r\n\r\nalive\n")


PIECES = (
    b"GET /metrics HTTP/1.1\r\n",
    b"HEAD ",
    b"/health/live",
    b" HTTP/1.0",
    b" HTTP/2.0",
    b"\r\n",
    b"\n",
    b"Host: x",
    b"Host: y\r\n",
    b"Content-Length: 3",
    b"Transfer-Encoding: chunked\r\n",
    b"\x00",
    b"\xff\xfe",
    b"Upgrade: h2c\r\n",
    b":",
    b"//[",
    b"\r\n\r\n",
)


async def test_no_request_does_any_harm(running: Running, nursery: trio.Nursery) -> None:
    """Prevents a request that nobody thought of from crashing the task: whatever comes, the next one is answered."""
    port, chance = free_port(), random.Random(1)
    nursery.start_soon(serve_metrics, running, port)
    await wait_for_port(port)
    for _ in range(300):
        with trio.fail_after(10), suppress(trio.BrokenResourceError):
            async with await trio.open_tcp_stream(HOST, port) as stream:
                await stream.send_all(b"".join(chance.choices(PIECES, k=chance.randrange(1, 12))))
                await stream.send_eof()
                while await stream.receive_some():
                    pass
    assert (await ask(port, b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")).endswith(b"\r\n\r\nalive\n")


async def wait_for_port(port: int) -> None:
    while True:
        try:
            await trio.aclose_forcefully(await trio.open_tcp_stream(HOST, port))
        except OSError:
            await trio.sleep(0.02)
        else:
            return


async def test_head_has_no_body(running: Running, nursery: trio.Nursery) -> None:
    """Prevents a probe that asks by HEAD from being refused, or from reading an answer that is none of its own."""
    port = free_port()
    nursery.start_soon(serve_metrics, running, port)
    await wait_for_port(port)
    head, _, body = (await ask(port, b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n")).partition(b"\r\n\r\n")
    assert body == b""
    assert int(re.findall(rb"content-length: (\d+)", head)[0]) > 1000


async def test_clients_that_say_nothing(
    running: Running, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents idle or endless clients from keeping everybody else out for longer than a request may take."""
    monkeypatch.setattr(metrics, "REQUEST_TIMEOUT", 1.0)
    port = free_port()
    nursery.start_soon(serve_metrics, running, port)
    await wait_for_port(port)
    idle = [await trio.open_tcp_stream(HOST, port) for _ in range(CONNECTIONS + 3)]
    with trio.fail_after(10):
        for stream in idle:
            assert await stream.receive_some() == b"", "it was told to go"
            await stream.aclose()
        assert (await ask(port, b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")).endswith(b"alive\n")


async def test_port_that_is_taken(running: Running, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents two workers on one machine from crashing each other's tasks, and the second from staying unseen."""
    monkeypatch.setattr(metrics, "RETRY_AFTER", 0.1)
    port = free_port()
    with capture_logs() as logs:
        holders = await trio.open_tcp_listeners(port)
        nursery.start_soon(serve_metrics, running, port)
        await wait_until(lambda: any(log["event"] == "metrics_unavailable" for log in logs))
        for holder in holders:
            await holder.aclose()
        await wait_until(lambda: any(log["event"] == "metrics_served" for log in logs))
    assert logs[0]["port"] == port
    assert (await ask(port, b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")).endswith(b"alive\n")
