"""The bench on which a fault is tried: a market, a Kraken of the test's own, a database, and a collector under load.

A fault is an async function of a bench: it breaks something under way and mends it again.
"""

import itertools
import shutil
import tempfile
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeAlias

import psycopg
import trio
from embedded import EmbeddedPostgres
from faults.accounting import Exemptions
from faults.proxy import Proxy
from faults.sent import DEPTH, SentLog
from faults.worker import DEADLINE, Worker, start_worker
from psycopg.conninfo import conninfo_to_dict

from collector.kraken.server.faults import Faults
from collector.kraken.server.serving import HOST, Address, serve
from collector.kraken.simulator.simulation import SimulatedSource, Simulation

PAIRS = ("BTC/USD", "ETH/USD")
RATE = 1500.0  # steps a second of the first pair, a third of which show in ten levels; the second pair has half of it
SEED = 20
ATTEMPTS_WINDOW = 600.0  # seconds over which Kraken's edge counts attempts to connect
WATCH_INTERVAL = 0.05  # seconds between looks at connections and memory
POLL_INTERVAL = 0.1  # seconds between questions to the database
SETTLE = 0.3  # seconds in which what a server has in hand is sent, once its streams are held
WARM_UP = 1.0  # seconds of load before the fault

LAST_TIMES = """SELECT pair, to_char(max(event_time), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') FROM kraken_orderbook
GROUP BY pair"""

Fault: TypeAlias = Callable[["Bench"], Awaitable[None]]


class CountingFaults(Faults):
    """Faults that note the attempts to connect, whatever became of them."""

    def __init__(self) -> None:
        super().__init__()
        self._attempts: list[float] = []

    @property
    def attempts(self) -> int:
        """How many there were."""
        return len(self._attempts)

    def most_attempts(self) -> int:
        """The most that there were in any stretch of the length that Kraken's edge looks at."""
        return max(bisect_right(self._attempts, start + ATTEMPTS_WINDOW) - n for n, start in enumerate(self._attempts))

    def upgrade_status(self) -> int | None:
        """Called once for each attempt."""
        self._attempts.append(time.monotonic())
        return super().upgrade_status()


@asynccontextmanager
async def open_market(rate: float = RATE, seed: int = SEED) -> AsyncIterator[SimulatedSource]:
    """A live market, for any number of servers, with books of one depth."""
    source = SimulatedSource(Simulation(PAIRS, seed=seed, start=time.time_ns(), rate=rate, depths=[DEPTH]))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.run)
        yield source
        nursery.cancel_scope.cancel()


class Bench:
    """What a fault may reach: `faults` of the server, the `database_url`, the collectors in `workers`."""

    def __init__(self, directory: Path, database: str | EmbeddedPostgres, nursery: trio.Nursery) -> None:
        self.directory = directory
        self.server = None if isinstance(database, str) else database
        self.database_url = database if isinstance(database, str) else database.url()
        self.faults = CountingFaults()
        self.log = SentLog()
        self.exemptions = Exemptions()
        self.environment: dict[str, str] = {}
        self.constants: Mapping[str, object] | None = None
        self.workers: list[Worker] = []
        self.seconds = 0.0
        self.mended_at = time.monotonic()
        self.address = Address(0, "", "")
        self._nursery = nursery

    @property
    def worker(self) -> Worker:
        """The collector that was started last."""
        return self.workers[-1]

    @property
    def spool(self) -> Path:
        """The first collector's spool."""
        return Path(self.environment.get("SPOOL_DIR", self.directory / "spool"))

    def start(self, *, name: str = "collector", **environment: str) -> Worker:
        """Start a collector on this bench."""
        values = {
            "DATABASE_URL": self.database_url,
            "PAIRS": ",".join(PAIRS),
            "BOOK_DEPTH": str(DEPTH),
            "KRAKEN_WS_URL": f"ws://localhost:{self.address.port}/v2",
            "KRAKEN_REST_URL": self.address.rest_url,
            "FLUSH_INTERVAL": "0.2",
            "SNAPSHOT_INTERVAL": "3",
            "SPOOL_DIR": str(self.directory / "spool"),
            "LOG_FORMAT": "json",
        }
        values |= self.environment | environment
        self.workers.append(start_worker(self.directory, values, constants=self.constants, name=name))
        return self.worker

    async def warm_up(self) -> None:
        """Start a collector and wait until it is under load."""
        self.start()
        await self.collecting()
        await trio.sleep(WARM_UP)

    async def proxy_database(self) -> Proxy:
        """Put a proxy between the database and the collectors to come."""
        parameters = conninfo_to_dict(self.database_url)
        proxy = await self.open_proxy(int(parameters["port"] or 0))
        self.environment["DATABASE_URL"] = f"postgresql://postgres@{HOST}:{proxy.port}/{parameters['dbname']}"
        return proxy

    async def open_proxy(self, port: int) -> Proxy:
        """A proxy in front of a port on loopback, for as long as the bench."""
        proxy = Proxy(port)
        await self._nursery.start(proxy.serve)
        return proxy

    def close(self, code: int) -> None:
        """Have the server close its connections in good order: what was sent on them must be stored."""
        self.log.whole.update(connection.number for connection in self.faults.connections)
        self.faults.close(code, "a test")

    def break_connections(self) -> None:
        """Note that what is on its way on the open connections may be lost with them."""
        self.log.broke(connection.number for connection in self.faults.connections)

    def hold_market(self) -> None:
        """Let nothing come any more but heartbeats."""
        for channel, pair in itertools.product(("book", "trade"), PAIRS):
            self.faults.hold(channel, pair)

    async def kill(self) -> None:
        """Kill the collector that was started last."""
        self.break_connections()
        await trio.to_thread.run_sync(self.worker.kill)

    def tell(self, name: str) -> Path:
        """Tell the launcher to let something happen."""
        path = self.directory / name
        path.touch()
        return path

    async def told(self, path: Path) -> None:
        """Wait until what was told has happened."""
        await wait_until(lambda: not path.exists())

    async def query(self, statement: str, url: str | None = None) -> list[tuple[object, ...]]:
        """Run SQL in the bench's database, or another."""
        return await trio.to_thread.run_sync(_query, url or self.database_url, statement)

    def mended(self) -> None:
        """Note that from now on nothing is broken."""
        self.mended_at = time.monotonic()

    async def collecting(self, seconds: float = DEADLINE) -> None:
        """Wait until of every pair a book row that was sent from now on is stored."""
        since = timestamp(datetime.now(UTC))
        deadline = trio.current_time() + seconds
        while min((await self._stored_until()).values()) <= since:
            assert trio.current_time() < deadline, f"no new rows within {seconds} s"
            await trio.sleep(POLL_INTERVAL)

    async def recovered(self, seconds: float = DEADLINE) -> None:
        """Wait for the end of the fault's effects, and note how long they lasted."""
        await self.collecting(seconds)
        self.seconds = max(self.seconds, time.monotonic() - self.mended_at)

    async def drain(self) -> None:
        """Hold the market, and wait until everything that was sent is stored."""
        held_at = trio.current_time()
        self.hold_market()
        await trio.sleep(SETTLE)
        numbers = [connection.number for connection in self.faults.connections]
        last = self.log.last_times(numbers)
        deadline = trio.current_time() + DEADLINE
        while not _reaches(stored := await self._stored_until(), last):
            assert trio.current_time() < deadline, f"sent until {last}, stored until {stored}"
            await trio.sleep(POLL_INTERVAL)
        self.log.whole.update(numbers)
        self.exemptions.end_tolerance += timedelta(seconds=trio.current_time() - held_at)

    async def stop(self) -> None:
        """Stop every collector in good order."""
        for worker in self.workers:
            if worker.is_running:
                worker.process.terminate()
                assert await worker.exit_status() == 0

    async def watch(self) -> None:
        """Note when connections end and how much memory is taken, for ever."""
        while True:
            numbers = {connection.number for connection in self.faults.connections}
            self.log.broke(self.log.frames.keys() - numbers)
            for worker in self.workers:
                worker.measure()
            await trio.sleep(WATCH_INTERVAL)

    async def _stored_until(self) -> dict[str, str]:
        """By pair, the time of the last book row; empty while there is none, or the database cannot be had."""
        rows: list[tuple[object, ...]] = []
        with suppress(psycopg.OperationalError, psycopg.errors.UndefinedTable):
            rows = await self.query(LAST_TIMES)
        return dict.fromkeys(PAIRS, "") | {str(pair): str(last) for pair, last in rows}


@asynccontextmanager
async def open_bench(market: SimulatedSource, database: str | EmbeddedPostgres) -> AsyncIterator[Bench]:
    """A bench, whose collectors are killed and whose folder is removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix="collector-faults-"))
    try:
        async with trio.open_nursery() as nursery:
            bench = Bench(directory, database, nursery)
            bench.log.markets = market.markets
            bench.address = await nursery.start(partial(serve, market, faults=bench.faults, on_sent=bench.log.note))
            nursery.start_soon(bench.watch)
            try:
                yield bench
            finally:
                for worker in bench.workers:
                    worker.kill()
            nursery.cancel_scope.cancel()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def wait_until(condition: Callable[[], bool], seconds: float = DEADLINE) -> None:
    """Wait for a condition; trio.TooSlowError when it does not come true."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - what it waits for is outside of this process
            await trio.sleep(WATCH_INTERVAL)


def timestamp(moment: datetime) -> str:
    """A time as the wire and the accounting write it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _reaches(stored: Mapping[str, str], last: Mapping[str, str]) -> bool:
    return all(stored[pair] >= time for pair, time in last.items())


def _query(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True, options="-c default_transaction_read_only=off") as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []
