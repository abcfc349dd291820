"""Every kind of fault at random, for as long as wanted, against one collector; then every row is accounted for.

    soak.py MINUTES [SEED]

A fault of tests/faults/catalogue.py strikes every 10 seconds, whether or not an earlier one still lasts or has been
recovered from, as long as the two do not break the same thing; services are taken away for 30 seconds. On top of that
comes a SIGKILL at a random moment of every 25 seconds. The seed decides the order; it is printed, so that a run can be
repeated. The exit status is 1 when a row was lost or stored twice, when coverage claims too much, when a collector did
not recover, or when its memory grew.
"""

import argparse
import copy
import random
import secrets
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from traceback import format_exception

import trio
from embedded import postgres, redis_server
from faults.bench import Bench, open_bench
from faults.catalogue import mixable
from faults.fault import EVERYTHING, PROCESS, REDIS, Fault, System
from faults.injections.process import kill_and_restart
from faults.market import open_market
from faults.recovery import Interval, undisturbed
from faults.table import Line, columns, render
from faults.trial import finish
from faults.worker import LOG_TAIL, Worker

from collector.errors import first_of

INTERVAL = 10.0  # seconds from one fault to the next
KILL_INTERVAL = 25.0  # seconds, in each of which a process is killed: half an hour has more than 50 of them
OUTAGE = 30.0  # seconds for which a service is away
DEADLINE = 300.0  # seconds in which a collector has recovered, though several outages may follow each other
RATE = 600.0  # steps of the market a second; at twice that, the market forgets trades within the hour
# MB by which the later half of the processes may be larger than the earlier one: what is left behind in the spool, in
# the database or in a log must not make a new process larger. Measured: 1.
GROWTH_LIMIT = 5.0

SIGKILL = Fault("SIGKILL", kill_and_restart, PROCESS)


class Soak:
    """What has struck so far, when, and how long it took to recover from it."""

    def __init__(self, bench: Bench, choose: random.Random) -> None:
        self._bench = bench
        self._choose = choose
        self._locks: dict[System, trio.Lock] = {system: trio.Lock() for system in EVERYTHING}
        self._deck: list[Fault] = []
        self._strikes: list[Interval] = []
        self._started = time.monotonic()
        self.recoveries: dict[str, list[float]] = {}

    async def run(self, seconds: float) -> None:
        """Break things, and wait until the last one is mended and recovered from."""
        ends = trio.current_time() + seconds
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._kill_again_and_again, ends, nursery)
            while (now := trio.current_time()) < ends:
                await nursery.start(self._strike, await self._next_fault())
                await trio.sleep_until(now + INTERVAL)

    async def _kill_again_and_again(self, ends: float, nursery: trio.Nursery) -> None:
        while (now := trio.current_time()) < ends:
            await trio.sleep(self._choose.uniform(0.0, KILL_INTERVAL))
            await nursery.start(self._strike, SIGKILL)
            await trio.sleep_until(now + KILL_INTERVAL)

    async def _next_fault(self) -> Fault:
        """The next fault that breaks nothing that is broken already; all have their turn before one comes again."""
        while True:
            for fault in self._deck:
                if not any(self._locks[system].locked() for system in fault.breaks):
                    self._deck.remove(fault)
                    return fault
            if len(self._deck) < len(mixable()):
                self._deck += self._choose.sample(mixable(), len(mixable()))
            else:
                await trio.sleep(1.0)

    async def _strike(self, fault: Fault, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        bench = copy.copy(self._bench)  # with a stopwatch of its own
        async with self._holding(fault.breaks):
            task_status.started()
            self._tell(f"{fault.name} …")
            bench.mended_at = began = time.monotonic()
            with self._noting(fault, began):
                await fault.strike(bench)
        mended_at = bench.mended_at if bench.mended_at > began else time.monotonic()
        await bench.collecting()
        seconds = undisturbed(Interval(mended_at, time.monotonic()), self._strikes)
        self.recoveries.setdefault(fault.name, []).append(seconds)
        self._tell(f"{fault.name}: recovered {seconds:.1f} s after it")

    @contextmanager
    def _noting(self, fault: Fault, began: float) -> Iterator[None]:
        """Note for how long a fault lasts that others have to recover from, too: all but those of Redis alone."""
        lasting = Interval(began, float("inf"))
        if fault.breaks != REDIS:
            self._strikes.append(lasting)
        yield
        if fault.breaks != REDIS:
            self._strikes.remove(lasting)
            self._strikes.append(Interval(began, time.monotonic()))

    @asynccontextmanager
    async def _holding(self, systems: Iterable[System]) -> AsyncIterator[None]:
        """Keep others from breaking the same; in one order, so that no two wait for each other."""
        async with AsyncExitStack() as stack:
            for system in sorted(systems):
                await stack.enter_async_context(self._locks[system])
            yield

    def _tell(self, what: str) -> None:
        minutes = (time.monotonic() - self._started) / 60
        resident, sent = self._bench.worker.resident, self._bench.log.count()
        print(f"{minutes:6.2f} min {resident:6.1f} MB {sent:9,} sent  {what}", flush=True)


def prepare(bench: Bench, faults: Sequence[Fault]) -> None:
    """Give the bench what its faults ask for.

    Raises:
        ValueError: two of them cannot be had together.

    """
    bench.outage, bench.deadline = OUTAGE, DEADLINE
    constants: dict[str, object] = {}
    for fault in faults:
        for wanted, had in ((fault.environment, bench.environment), (fault.constants or {}, constants)):
            if any(had.get(name, value) != value for name, value in wanted.items()):
                raise ValueError(f"{fault.name} wants what another fault wants otherwise")
        bench.environment |= fault.environment
        constants |= fault.constants or {}
    bench.constants = constants


async def soak(minutes: float, seed: int, directory: Path) -> bool:
    """Run; whether everything is as it must be."""
    is_flat, failure = False, None
    lines: list[Line] = []
    with postgres(directory / "data") as server, redis_server() as redis:
        try:
            async with open_market(RATE, seed) as market, open_bench(market, server, redis, proxied=True) as bench:
                prepare(bench, mixable())
                run = Soak(bench, random.Random(seed))  # noqa: S311 - it must repeat, not be secret
                try:
                    await bench.warm_up()
                    await run.run(minutes * 60)
                    bench.mended()
                    await bench.recovered()
                    await finish(f"{minutes:g} minutes", bench, lines.append)
                except BaseException:
                    print(f"the log's end:\n{bench.worker.log.text[-LOG_TAIL:]}")
                    raise
                finally:
                    print("\n".join([*by_kind(run.recoveries), "", *render(lines)]))
                    is_flat = memory_is_flat(bench.workers)
        except* (AssertionError, trio.TooSlowError) as errors:
            failure = first_of(errors)
    if failure is not None:
        print(*format_exception(failure), sep="")
    return is_flat and failure is None


def by_kind(recoveries: dict[str, list[float]]) -> list[str]:
    """The faults by kind: how many, and the longest recovery."""
    rows = [
        (name, str(len(seconds)), f"{max(seconds):.1f}")
        for name, seconds in sorted(recoveries.items(), key=lambda item: max(item[1]), reverse=True)
    ]
    total = ("all", str(sum(map(len, recoveries.values()))), "")
    return columns([("fault", "times", "recovered (s), at most"), *rows, total], words={0})


def memory_is_flat(workers: Sequence[Worker]) -> bool:
    """Whether later processes are no larger than earlier ones, by their peaks."""
    peaks = [worker.peak for worker in workers if worker.peak]
    earlier, later = peaks[: len(peaks) // 2], peaks[len(peaks) // 2 :]
    growth = statistics.median(later) - statistics.median(earlier) if earlier else 0.0
    largest = max(peaks, default=0.0)
    print(f"memory: {largest:.1f} MB at most in {len(peaks)} processes; the later half is {growth:+.1f} MB larger")
    return growth < GROWTH_LIMIT


def main() -> int:
    """Read the arguments and run; return the exit status."""
    parser = argparse.ArgumentParser(description="Break things at random under a running collector.")
    parser.add_argument("minutes", type=float)
    parser.add_argument("seed", type=int, nargs="?", default=secrets.randbits(32))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="collector-soak-"))
    try:
        return 0 if trio.run(soak, arguments.minutes, arguments.seed, directory) else 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
