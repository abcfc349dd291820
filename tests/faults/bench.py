"""The bench on which a fault is tried: a market, a Kraken of the test's own, a database, and a collector under load."""

import itertools
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import trio
from embedded import EmbeddedPostgres, EmbeddedRedis
from faults.accounting import Exemptions
from faults.market import CountingFaults
from faults.queries import query, stored_until, timestamp
from faults.sent import DEPTH, SentLog
from faults.worker import LOG_TAIL, Log, Worker, start_worker
from proxy import Proxy

from collector.kraken.server.serving import Address, serve
from collector.kraken.simulator.simulation import SimulatedSource

WATCH_INTERVAL = 0.05  # seconds between looks at connections and memory
POLL_INTERVAL = 0.1  # seconds between questions to the database
SETTLE = 0.3  # seconds in which what a server has in hand is sent, once its streams are held
WARM_UP = 1.0  # seconds of load before the fault
FLOWING = 100  # messages on a connection: the snapshots of all that is subscribed are behind it
OUTAGE = 5.0  # seconds for which a fault takes a service away
DEADLINE = 60.0  # seconds within which whatever is waited for has happened, on a machine that does much else


class Bench:
    """What a fault may reach: `faults` of Kraken, PostgreSQL and Redis with the proxies before them, the collectors.

    `nursery` is for what a fault adds. `outage` is for how long faults take a service away, `deadline` by when
    everything that is waited for has happened (both in seconds). `mended_at` is when a fault had ended, `seconds` how
    long a collector then took to recover: where several faults strike one bench, each has a view of its own
    (`copy.copy`) for these two.
    """

    def __init__(
        self, directory: Path, database: str | EmbeddedPostgres, redis: EmbeddedRedis | None, nursery: trio.Nursery
    ) -> None:
        self.directory = directory
        self.database_url = database if isinstance(database, str) else database.url()
        self.faults = CountingFaults()
        self.log = SentLog()
        self.pairs: tuple[str, ...] = ()
        self.exemptions = Exemptions()
        self.environment: dict[str, str] = {}
        self.constants: Mapping[str, object] | None = None
        self.workers: list[Worker] = []
        self.outage, self.deadline = OUTAGE, DEADLINE
        self.seconds = 0.0
        self.mended_at = time.monotonic()
        self.address = Address(0, "", "")
        self._server = None if isinstance(database, str) else database
        self._redis = redis
        self._redis_proxy: Proxy | None = None
        self._database_proxy: Proxy | None = None
        self._logs: dict[str, Log] = {}
        self.nursery = nursery

    @property
    def server(self) -> EmbeddedPostgres:
        """The PostgreSQL server, for those who have one of their own."""
        assert self._server is not None
        return self._server

    @property
    def database_proxy(self) -> Proxy:
        """What stands between the collectors and the database."""
        assert self._database_proxy is not None
        return self._database_proxy

    @property
    def redis(self) -> EmbeddedRedis:
        """The Redis server."""
        assert self._redis is not None
        return self._redis

    @property
    def redis_proxy(self) -> Proxy:
        """What stands between the collectors and Redis."""
        assert self._redis_proxy is not None
        return self._redis_proxy

    async def open(self, market: SimulatedSource, *, proxied: bool) -> None:
        """Open Kraken, and the proxies, for as long as the bench is there."""
        self.log.markets = market.markets
        self.pairs = tuple(market.markets)
        self.address = await self.nursery.start(partial(serve, market, faults=self.faults, on_sent=self.log.note))
        if proxied:
            self._database_proxy = Proxy.in_front_of(self.database_url)
            await self.nursery.start(self._database_proxy.serve)
            self.environment["DATABASE_URL"] = self._database_proxy.leading_to(self.database_url)
        if self._redis is not None:
            self._redis_proxy = Proxy(self._redis.port)
            await self.nursery.start(self._redis_proxy.serve)
            self.environment |= {"USE_REDIS": "true", "REDIS_URL": f"redis://127.0.0.1:{self._redis_proxy.port}"}
        self.nursery.start_soon(self.watch)

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
            "PAIRS": ",".join(self.pairs),
            "BOOK_DEPTH": str(DEPTH),
            "KRAKEN_WS_URL": f"ws://localhost:{self.address.port}/v2",
            "KRAKEN_REST_URL": self.address.rest_url,
            "FLUSH_INTERVAL": "0.2",
            "SNAPSHOT_INTERVAL": "3",
            "SPOOL_DIR": str(self.spool),
            "LOG_FORMAT": "json",
        }
        log = self._logs.setdefault(name, Log(self.directory / f"{name}.log"))
        self.workers.append(start_worker(log, values | self.environment | environment, self.constants))
        return self.worker

    async def warm_up(self) -> None:
        """Start a collector and wait until it is under load."""
        self.start()
        await self.collecting()
        await trio.sleep(WARM_UP)

    def close(self, code: int) -> None:
        """Have the server close its connections in good order: what was sent on them must be stored."""
        self.log.whole |= self.faults.open_numbers
        self.faults.close(code, "a test")

    def break_connections(self) -> None:
        """Note that what is on its way on the open connections may be lost with them."""
        self.log.broke(self.faults.open_numbers)

    def give_up_book(self, pair: str) -> None:
        """Note that the collector found a book wrong: what comes of it before a new snapshot is of no use."""
        now = time.monotonic()
        self.log.given_up |= {(number, pair): now for number in self.faults.open_numbers}

    @asynccontextmanager
    async def holding(self, channels: Iterable[str], pairs: Iterable[str] | None = None) -> AsyncIterator[None]:
        """Let nothing come of these but heartbeats; without `pairs`, of none."""
        since = self._market_time()
        for channel, pair in itertools.product(channels, self.pairs if pairs is None else pairs):
            self.faults.hold(channel, pair)
        try:
            yield
        finally:
            self.faults.lift()
            self.exemptions.quiet.append((since, utc_now()))

    async def kill(self) -> None:
        """Kill the collector that was started last."""
        self.break_connections()
        await trio.to_thread.run_sync(self.worker.kill)
        self.break_connections()  # one may have been made just before

    def tell(self, name: str) -> Path:
        """Tell the launcher to let something happen."""
        path = self.directory / name
        path.touch()
        return path

    async def connected(self) -> None:
        """Wait until there is a connection on which everything flows."""

        def flows() -> bool:
            return any(len(self.log.frames.get(number, ())) > FLOWING for number in self.faults.open_numbers)

        await self.wait_until(flows, "no connection")

    async def told(self, path: Path) -> None:
        """Wait until what was told has happened."""
        await self.wait_until(lambda: not path.exists(), f"{path.name} did not strike")

    async def query(self, statement: str) -> list[tuple[object, ...]]:
        """Run SQL in the bench's database, as one transaction."""
        return await query(self.database_url, statement)

    def mended(self) -> None:
        """Note that from now on nothing is broken."""
        self.mended_at = time.monotonic()

    async def wait_until(self, condition: Callable[[], bool], otherwise: str) -> None:
        """Wait for a condition, and say what is wrong when it does not come true."""
        deadline = trio.current_time() + self.deadline
        while not condition():
            assert trio.current_time() < deadline, f"{otherwise} within {self.deadline:g} s"
            await trio.sleep(WATCH_INTERVAL)

    @asynccontextmanager
    async def expecting(
        self, event: str, times: int = 1, worker: Worker | None = None, **fields: object
    ) -> AsyncIterator[None]:
        """Wait, at the end of the block, until a collector has logged an event that often since its beginning."""
        log = (worker or self.worker).log
        before = len(log.events(event, **fields))
        yield
        await self.wait_until(lambda: len(log.events(event, **fields)) >= before + times, f"no {event!r} in the log")

    async def logged(self, event: str, worker: Worker | None = None) -> None:
        """Wait until a collector has logged an event, be it long ago."""
        log = (worker or self.worker).log
        await self.wait_until(lambda: bool(log.events(event)), f"no {event!r} in the log")

    async def collecting(self) -> None:
        """Wait until of every pair a book row that was sent from now on is stored."""
        since = timestamp(utc_now())
        deadline = trio.current_time() + self.deadline
        while min((await stored_until(self.database_url, self.pairs)).values()) <= since:
            assert trio.current_time() < deadline, f"no new rows within {self.deadline:g} s"
            await trio.sleep(POLL_INTERVAL)

    async def recovered(self) -> None:
        """Wait for the end of the fault's effects, and note how long they lasted."""
        await self.collecting()
        self.seconds = max(self.seconds, time.monotonic() - self.mended_at)

    async def stop(self) -> None:
        """Hold the market, wait until all that was sent is stored, and stop every collector in good order."""
        async with self.holding(("book", "trade")):
            await trio.sleep(SETTLE)
            numbers = self.faults.open_numbers
            deadline = trio.current_time() + self.deadline
            while not _reaches(
                stored := await stored_until(self.database_url, self.pairs),
                last := self.log.last_times(numbers),  # looked up last: a slow machine has still sent something
            ):
                assert trio.current_time() < deadline, f"sent until {last}, stored until {stored}"
                await trio.sleep(POLL_INTERVAL)
            self.log.whole |= numbers
            for worker in self.workers:
                if worker.is_running:
                    worker.terminate()
                    assert await worker.exit_status() == 0

    async def watch(self) -> None:
        """Note when connections end and how much memory is taken, and that no collector ends by itself; for ever."""
        while True:
            self.log.gone(self.log.frames.keys() - self.faults.open_numbers)
            for worker in self.workers:
                worker.measure()
                status = worker.process.poll()
                assert worker.may_end or status is None, (
                    f"a collector ended with {status}: {worker.log.text[-LOG_TAIL:]}"
                )
            await trio.sleep(WATCH_INTERVAL)

    def _market_time(self) -> datetime:
        """Until when the market has been told, which is earlier than now where this machine does much else."""
        told = self.log.last_times(self.faults.open_numbers).values()
        return min([utc_now(), *(datetime.fromisoformat(time).replace(tzinfo=None) for time in told)])


@asynccontextmanager
async def open_bench(
    market: SimulatedSource,
    database: str | EmbeddedPostgres,
    redis: EmbeddedRedis | None = None,
    *,
    proxied: bool = False,
) -> AsyncIterator[Bench]:
    """A bench, whose collectors are killed and whose folder is removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix="collector-faults-"))
    try:
        async with trio.open_nursery() as nursery:
            bench = Bench(directory, database, redis, nursery)
            await bench.open(market, proxied=proxied)
            try:
                yield bench
            finally:
                for worker in bench.workers:
                    worker.kill()
            nursery.cancel_scope.cancel()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def utc_now() -> datetime:
    """The wall clock, in UTC and without saying so, as the tables have it."""
    return datetime.now(UTC).replace(tzinfo=None)


def _reaches(stored: Mapping[str, str], last: Mapping[str, str]) -> bool:
    return all(stored[pair] >= time for pair, time in last.items())
