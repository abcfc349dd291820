"""What the tests of faults share: databases, and several faults at a time."""

import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import astuple
from pathlib import Path

import pytest
import trio
from conftest import new_database
from embedded import EmbeddedPostgres, redis_server
from faults.bench import Bench, open_bench
from faults.fault import Fault
from faults.lasting import in_lasting_thread
from faults.market import open_market
from faults.table import PROPERTY, Line
from faults.trial import TryFaults, try_fault

from collector.errors import first_of
from collector.kraken.simulator.simulation import SimulatedSource

AT_ONCE = 8  # collectors that faults are tried on together: they mostly wait, and share two cores


_numbers = itertools.count(1)


@pytest.fixture
def databases(postgres_server: EmbeddedPostgres, migrated_template: str) -> Iterator[Callable[[], str]]:
    """Makes databases with the collector's schema, on a server that nobody breaks."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(new_database(postgres_server, f"fault_{next(_numbers)}", migrated_template))


@pytest.fixture
def try_faults(databases: Callable[[], str], record_property: Callable[[str, object], None]) -> TryFaults:
    """Tries faults, several at a time, each on a bench and in a database of its own."""

    def note(line: Line) -> None:
        record_property(PROPERTY, astuple(line))

    async def try_one(
        fault: Fault, market: SimulatedSource, limiter: trio.CapacityLimiter, failures: list[Exception]
    ) -> None:
        async with limiter:
            try:
                async with open_bench_for(fault, market, databases) as bench:
                    await try_fault(fault, bench, note)
            except Exception as error:  # noqa: BLE001 - told below, once the others have been tried, too
                error.add_note(f"the fault was: {fault.name}")
                failures.append(error)

    async def try_all(faults: Sequence[Fault]) -> None:
        failures: list[Exception] = []
        (pairs,) = {fault.pairs for fault in faults}  # those of a group share a market
        limiter = trio.CapacityLimiter(max(1, AT_ONCE // max(fault.collectors for fault in faults)))
        async with open_market(pairs=pairs) as market, trio.open_nursery() as nursery:
            for fault in faults:
                nursery.start_soon(try_one, fault, market, limiter, failures)
        if failures:
            raise ExceptionGroup("faults that cost something", [first_of(failure) for failure in failures])

    return try_all


@asynccontextmanager
async def open_bench_for(fault: Fault, market: SimulatedSource, databases: Callable[[], str]) -> AsyncIterator[Bench]:
    """A bench with the services that a fault needs."""
    with ExitStack() as services:
        database: str | EmbeddedPostgres
        if "own server" in fault.needs:
            database = services.enter_context(own_server())
            await in_lasting_thread(database.start)
        else:
            database = await trio.to_thread.run_sync(databases)
        redis = services.enter_context(redis_server()) if "redis" in fault.needs else None
        async with open_bench(market, database, redis, proxied="database proxy" in fault.needs) as bench:
            yield bench


@contextmanager
def own_server() -> Iterator[EmbeddedPostgres]:
    """An empty PostgreSQL server that is yet to be started, with the durability of a real one."""
    directory = Path(tempfile.mkdtemp(prefix="collector-faults-"))
    server = EmbeddedPostgres(directory / "data")
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)
