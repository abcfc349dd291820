"""What tests of a whole collector share: Kraken on loopback, and a collector in this process or in one of its own."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import psycopg
import trio
from embedded import EmbeddedPostgres, postgres

from collector.kraken.server.faults import Faults
from collector.kraken.server.serving import Address, serve
from collector.kraken.server.source import Source
from collector.kraken.simulator.simulation import SimulatedSource, Simulation
from collector.pipeline import Collector
from collector.settings import Settings
from collector.storage.spool import Spool
from collector.tasks.socket import Attempts

PROJECT = Path(__file__).parent.parent
DEADLINE = 60.0  # seconds within which anything that a test waits for has happened, on a machine that does much else
EXIT_DEADLINE = 10.0  # seconds from a signal to the exit: what the collector promises
POLL_INTERVAL = 0.02
BOOK_COUNT = "SELECT count(*) FROM kraken_orderbook"
TRADE_COUNT = "SELECT count(*) FROM kraken_trades"


def at_once(low: float, _high: float) -> float:
    """Wait as little as a backoff may."""
    return low


class Kraken:
    """A server of Kraken's protocols, its faults, and what it sent: the data frames by connection, from 1."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.sent: dict[int, list[bytes]] = {}
        self.address = Address(0, "", "")

    def note(self, connection: int, frame: bytes) -> None:
        self.sent.setdefault(connection, []).append(frame)

    def frames(self) -> list[bytes]:
        """Everything that was sent, on whichever connection."""
        return [frame for frames in self.sent.values() for frame in frames]


@asynccontextmanager
async def open_kraken(source: Source) -> AsyncIterator[Kraken]:
    """Kraken on loopback, while the block is open."""
    kraken = Kraken()
    async with trio.open_nursery() as nursery:
        kraken.address = await nursery.start(partial(serve, source, faults=kraken.faults, on_sent=kraken.note))
        yield kraken
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_market(pairs: Sequence[str] = ("BTC/USD",), rate: float = 500.0) -> AsyncIterator[Source]:
    """A live market with books of depth 10 alone, which is much less work than all depths."""
    simulation = Simulation(pairs, seed=1, start=time.time_ns(), rate=rate, depths=[10])
    source = SimulatedSource(simulation)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.run)
        yield source
        nursery.cancel_scope.cancel()


def settings_for(kraken: Kraken, database_url: str, spool: Path, **more: object) -> Settings:
    """Settings that lead to the test's own servers, with a short flush interval."""
    values = {"book_depth": 10, "flush_interval": 0.05, "log_format": "json"} | more
    return Settings(
        _env_file=None,
        database_url=database_url,
        kraken_ws_url=kraken.address.ws_url,
        kraken_rest_url=kraken.address.rest_url,
        spool_dir=spool,
        **values,
    )


@asynccontextmanager
async def collecting(settings: Settings) -> AsyncIterator[Collector]:
    """A collector that reconnects without delay; at the end of the block it is stopped, and has drained."""
    spool = Spool.open(settings.spool_dir)
    try:
        collector = Collector(settings, spool)
        collector._attempts = Attempts(at_once)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collector.run)
            yield collector
            collector.stop.set()
            nursery.cancel_scope.deadline = trio.current_time() + DEADLINE
        assert not nursery.cancel_scope.cancelled_caught, "the collector did not stop"
    finally:
        spool.close()


async def wait_until(condition: Callable[[], bool], seconds: float = DEADLINE) -> None:
    """Wait for a condition; trio.TooSlowError when it does not come true."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in other processes, too
            await trio.sleep(POLL_INTERVAL)


def count(database_url: str, query: str = BOOK_COUNT) -> int:
    """What a counting query says; 0 while there is no such table, or no database."""
    try:
        with psycopg.connect(database_url) as connection:
            row = connection.execute(query).fetchone()
    except (psycopg.OperationalError, psycopg.errors.UndefinedTable):
        return 0
    assert row is not None
    return row[0]


class Worker:
    """`python -m collector` as a process of its own; its log is a file."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    async def wait_for_log(self, text: str) -> None:
        await wait_until(lambda: text in self.log or self.process.poll() is not None)
        assert text in self.log, self.log

    async def exit_status(self, seconds: float = EXIT_DEADLINE) -> int:
        """The status of its exit, which must come within some seconds."""
        await wait_until(lambda: self.process.poll() is not None, seconds)
        return self.process.returncode

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it and wait for its exit."""
        self.process.send_signal(number)
        return await self.exit_status()


def environment(settings: Settings) -> dict[str, str]:
    """The environment of a process with these settings and none of this one's."""
    values = {
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "PAIRS": ",".join(settings.pairs),
        "BOOK_DEPTH": ",".join(f"{pattern}:{depth}" for pattern, depth in settings.book_depth),
        "KRAKEN_WS_URL": settings.kraken_ws_url,
        "KRAKEN_REST_URL": settings.kraken_rest_url,
        "FLUSH_INTERVAL": str(settings.flush_interval),
        "SPOOL_DIR": str(settings.spool_dir),
    }
    return clean_environment() | values


def clean_environment() -> dict[str, str]:
    """What a process needs to find its interpreter and the collector."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT), "LANG": "C.UTF-8"}


@contextmanager
def worker(settings: Settings, log: Path, *arguments: str) -> Iterator[Worker]:
    """A running worker, killed at the end of the block unless it has ended."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "collector", *arguments],
            env=environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield Worker(process, log)
    finally:
        process.kill()
        process.wait()


@contextmanager
def own_postgres() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL server that a test may stop, start and kill; its tables are made by whoever comes first."""
    directory = Path(tempfile.mkdtemp(prefix="collector-test-"))  # not pytest's own, which other users may not enter
    try:
        with postgres(directory / "data", fsync="off") as server:
            yield server
    finally:
        shutil.rmtree(directory, ignore_errors=True)
