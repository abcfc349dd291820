"""Metrics and health over HTTP on METRICS_PORT, for a scraper and for a host's probes.

One request a connection, each bounded in size and time, and a bounded number at once: whatever is sent here costs
nobody anything. On every interface, since a scraper and a host's probes are elsewhere; what is told is read-only and
holds no secret.
"""

from contextlib import suppress
from http import HTTPStatus
from typing import NamedTuple, NoReturn

import h11
import structlog
import trio
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, ProcessCollector, generate_latest
from prometheus_client.registry import Collector as MetricSource

from collector.health import Running, is_standing_by, live_problems, ready_problems
from collector.metrics import metrics

REQUEST_TIMEOUT = 5.0  # seconds for a request to come in and its answer to go out; a scrape takes milliseconds
REQUEST_BYTES = 8192  # of a request's head at most: browsers send less, scrapers far less
RECEIVE_SIZE = 4096
CONNECTIONS = 32  # at once; a scraper and a probe are two
RETRY_AFTER = 30.0  # seconds until a port that was taken is tried again: the worker before this one may still have it
ALLOWED = (b"GET", b"HEAD")
PLAIN_TEXT = "text/plain; charset=utf-8"

log = structlog.get_logger()


class Reply(NamedTuple):
    """An answer."""

    status: int
    body: bytes
    content_type: str = PLAIN_TEXT


class _Told(MetricSource):
    """Metrics that were made already, as a registry wants to have them."""

    def __init__(self, made: list[Metric]) -> None:
        self._made = made

    def collect(self) -> list[Metric]:
        return self._made


async def serve_metrics(running: Running, port: int) -> NoReturn:
    """Serve on a port, for ever; while it is taken, wait for it."""
    process = CollectorRegistry()
    ProcessCollector(registry=process)
    limiter = trio.CapacityLimiter(CONNECTIONS)

    async def handle(stream: trio.SocketStream) -> None:
        if not limiter.available_tokens:
            return  # closed without a word: who asks so often asks again
        async with limiter:
            with trio.move_on_after(REQUEST_TIMEOUT), suppress(trio.BrokenResourceError):  # the client is gone
                await _serve_one(stream, running, process)

    while True:
        try:
            listeners = await trio.open_tcp_listeners(port)
        except OSError as error:
            log.warning("metrics_unavailable", port=port, error=str(error), retry_in=RETRY_AFTER)
            await trio.sleep(RETRY_AFTER)
        else:
            log.info("metrics_served", port=port)
            await trio.serve_listeners(handle, listeners)


async def _serve_one(stream: trio.SocketStream, running: Running, process: CollectorRegistry) -> None:
    """Answer one request, and end the connection: its body, if it has one, is not read."""
    http = h11.Connection(h11.SERVER, max_incomplete_event_size=REQUEST_BYTES)
    try:
        request = await _receive(stream, http)
    except h11.RemoteProtocolError as error:
        await _send(stream, http, Reply(error.error_status_hint, b"not HTTP/1.1\n"), with_body=True)
        return
    if request is None:
        return
    if request.method in ALLOWED:
        reply = await _answer(request.target.partition(b"?")[0], running, process)
    else:
        reply = Reply(HTTPStatus.METHOD_NOT_ALLOWED, b"GET and HEAD are answered here\n")
    await _send(stream, http, reply, with_body=request.method != b"HEAD")


async def _receive(stream: trio.SocketStream, http: h11.Connection) -> h11.Request | None:
    while (event := http.next_event()) is h11.NEED_DATA:
        http.receive_data(bytes(await stream.receive_some(RECEIVE_SIZE)))
    return event if isinstance(event, h11.Request) else None


async def _answer(path: bytes, running: Running, process: CollectorRegistry) -> Reply:
    now = trio.current_time()
    match path:
        case b"/metrics":
            # Read here, where nothing changes meanwhile (500 pairs: 20 ms), and written in a thread (70 ms).
            told = _Told(list(metrics(running, now)))
            text = await trio.to_thread.run_sync(lambda: generate_latest(told) + generate_latest(process))
            return Reply(HTTPStatus.OK, text, CONTENT_TYPE_LATEST)
        case b"/health/live":
            return _verdict("alive", live_problems(running, now))
        case b"/health/ready":
            ready = "standing by: another collector holds the pairs" if is_standing_by(running) else "ready"
            return _verdict(ready, ready_problems(running, now))
    return Reply(HTTPStatus.NOT_FOUND, b"what is here: /metrics /health/live /health/ready\n")


def _verdict(well: str, problems: list[str]) -> Reply:
    return Reply(
        HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK,
        "".join(f"{line}\n" for line in problems or [well]).encode(),
    )


async def _send(stream: trio.SocketStream, http: h11.Connection, reply: Reply, *, with_body: bool) -> None:
    headers = [
        ("content-type", reply.content_type),
        ("content-length", str(len(reply.body))),
        ("cache-control", "no-store"),
        ("connection", "close"),
    ]
    if reply.status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers.append(("allow", b", ".join(ALLOWED).decode()))
    data = http.send(h11.Response(status_code=reply.status, headers=headers, reason=HTTPStatus(reply.status).phrase))
    if with_body:
        data += http.send(h11.Data(data=reply.body))
    await stream.send_all(data)
    await stream.send_eof()
