"""What the tests of faults share: databases, several faults at a time, and the table at the end of the run."""

import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio
from conftest import new_database
from embedded import EmbeddedPostgres
from faults.bench import open_bench, open_market
from faults.lasting import in_lasting_thread
from faults.table import LINES, render
from faults.trial import Trial, TryFaults, try_fault

from collector.errors import first_of
from collector.kraken.simulator.simulation import SimulatedSource

AT_ONCE = 8  # faults that are tried together: they mostly wait, and share two cores

_numbers = itertools.count(1)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of faults."""
    if LINES:
        terminalreporter.section("faults")
        for line in render(LINES):
            terminalreporter.write_line(line)


@pytest.fixture
def databases(postgres_server: EmbeddedPostgres, migrated_template: str) -> Iterator[Callable[[], str]]:
    """Makes databases with the collector's schema, on a server that nobody breaks."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(new_database(postgres_server, f"fault_{next(_numbers)}", migrated_template))


@pytest.fixture
def try_faults(databases: Callable[[], str]) -> TryFaults:
    """Tries faults, several at a time, each on a bench and in a database of its own."""
    limiter = trio.CapacityLimiter(AT_ONCE)

    async def try_one(trial: Trial, market: SimulatedSource, failures: list[Exception]) -> None:
        async with limiter:
            try:
                async with open_database(trial, databases) as database, open_bench(market, database) as bench:
                    await try_fault(trial, bench)
            except Exception as error:  # noqa: BLE001 - told below, once the others have been tried, too
                error.add_note(f"the fault was: {trial.name}")
                failures.append(error)

    async def try_all(trials: Sequence[Trial]) -> None:
        failures: list[Exception] = []
        async with open_market() as market, trio.open_nursery() as nursery:
            for trial in trials:
                nursery.start_soon(try_one, trial, market, failures)
        if failures:
            raise ExceptionGroup("faults that cost something", [first_of(failure) for failure in failures])

    return try_all


@asynccontextmanager
async def open_database(trial: Trial, databases: Callable[[], str]) -> AsyncIterator[str | EmbeddedPostgres]:
    """A migrated database, or an empty server of its own, with the durability of a real one."""
    if not trial.own_server:
        yield await trio.to_thread.run_sync(databases)
        return
    directory = Path(tempfile.mkdtemp(prefix="collector-faults-"))
    server = EmbeddedPostgres(directory / "data")
    try:
        await in_lasting_thread(server.start)
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)
