"""Several collectors of a whole exchange, killed at random; then every row is accounted for.

    fleet.py MINUTES [--workers N] [--pairs N] [--rate N] [--seed N]

A simulated exchange of many pairs (the n-th has an n-th of the first one's pace) runs in a process of its own; the
workers have PAIRS=* and one PostgreSQL. At a random moment of every 20 seconds one of them is killed, and started
again on the same spool a while later. The exit status is 1 when a row was lost or stored twice, when pairs were not
taken over, or when `verify` finds anything wrong.
"""

import argparse
import multiprocessing
import random
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path

import psycopg
import trio
from embedded import postgres
from exchange import DEPTH, Order, Sent, run_exchange
from faults.table import columns
from faults.worker import LOG_TAIL, Log, Worker, start_worker
from fleet_account import Account, account

from collector.errors import first_of
from collector.kraken.server.serving import Address
from collector.storage.members import LIVING

KILL_INTERVAL = 20.0  # seconds, in each of which a worker is killed
AWAY = 10.0  # seconds, at most, until it is started again
SAMPLE_INTERVAL = 1.0  # seconds between looks at the memory
TELL_INTERVAL = 30.0  # seconds between lines that tell how it goes
LOOK_INTERVAL = 0.1  # seconds between questions to the database
# Seconds within which whatever is waited for has happened, on a machine that does much else: the first subscriptions
# of all pairs, a takeover, and the shipping of what waits at the end.
DEADLINE = 300.0
# Seconds for the first snapshots, and for the division among all that have started, before memory is first measured.
SETTLE = 10.0
CALM = 3  # looks in a row, a second apart, at which no row comes or waits: then all that was sent is stored

MEMBERS = f"SELECT name, pairs, rows_per_second, waiting_rows FROM collector_members WHERE {LIVING}"  # noqa: S608 - a constant


class Failed(Exception):  # noqa: N818 - named by what happened, as the field does
    """The workers did not do what they must; the text says why. Exit status 1."""


class Fleet:
    """The workers by place, and what was measured of them."""

    def __init__(self, directory: Path, url: str, address: Address, order: Order, workers: int) -> None:
        self._directory = directory
        self._url = url
        self._address = address
        self._order = order
        self.workers: list[Worker] = [self._start(place) for place in range(workers)]
        self.first_resident: list[float] = []
        self.peaks = [0.0] * workers
        self.takeovers: list[float] = []

    def _start(self, place: int) -> Worker:
        environment = {
            "DATABASE_URL": self._url,
            "PAIRS": "*",
            "BOOK_DEPTH": str(DEPTH),
            "KRAKEN_WS_URL": self._address.ws_url,
            "KRAKEN_REST_URL": self._address.rest_url,
            "SPOOL_DIR": str(self._directory / f"spool-{place}"),
            "LOG_FORMAT": "json",
        }
        return start_worker(Log(self._directory / f"worker-{place}.log"), environment)

    async def collected_by_the_living(self) -> None:
        """Wait until every pair is held by a member that lives, and by one that runs."""
        deadline = trio.current_time() + DEADLINE
        while True:
            running = {worker.process.pid for worker in self.workers if worker.is_running}
            rows = await self.members()
            held = {pair for name, pairs, *_ in rows for pair in pairs if _process(name) in running}
            gone = [name for name, *_ in rows if _process(name) not in running]
            if len(held) == self._order.pairs and not gone:
                return
            if trio.current_time() > deadline:
                raise Failed(f"{len(held)} of {self._order.pairs} pairs are held after {DEADLINE:g} s")
            await trio.sleep(LOOK_INTERVAL)

    async def members(self) -> list[tuple[str, list[str], int, int]]:
        """Name, pairs, rows a second and waiting rows of each living member."""
        return await trio.to_thread.run_sync(_query, self._url)

    async def kill_again_and_again(self, seconds: float, choose: random.Random) -> None:
        """Kill workers, each while the others are up, and start them again."""
        ends = trio.current_time() + seconds
        while (now := trio.current_time()) + KILL_INTERVAL <= ends:
            await trio.sleep(choose.uniform(0.0, KILL_INTERVAL - AWAY))
            place = choose.randrange(len(self.workers))
            worker = self.workers[place]
            await trio.to_thread.run_sync(worker.kill)
            killed_at = time.monotonic()
            self.peaks[place] = max(self.peaks[place], worker.peak)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._start_again, place, choose.uniform(0.0, AWAY))
                await self.collected_by_the_living()
                self.takeovers.append(time.monotonic() - killed_at)
            await trio.sleep_until(now + KILL_INTERVAL)
        await trio.sleep_until(ends)

    async def _start_again(self, place: int, delay: float) -> None:
        await trio.sleep(delay)
        self.workers[place] = self._start(place)

    async def watch(self) -> None:
        """Note how much memory is taken, and that no worker ends by itself; for ever."""
        while True:
            for place, worker in enumerate(self.workers):
                worker.measure()
                self.peaks[place] = max(self.peaks[place], worker.peak)
                if not worker.may_end and not worker.is_running:
                    raise Failed(f"a worker ended: {worker.log.text[-LOG_TAIL:]}")
            await trio.sleep(SAMPLE_INTERVAL)

    async def calm(self) -> None:
        """Wait until nothing comes and nothing waits any more."""
        deadline, calm = trio.current_time() + DEADLINE, 0
        while calm < CALM:
            rows = await self.members()
            is_calm = len(rows) == len(self.workers) and not any(came or waiting for *_, came, waiting in rows)
            calm = calm + 1 if is_calm else 0
            if trio.current_time() > deadline:
                raise Failed(f"rows still come or wait after {DEADLINE:g} s: {_loads(rows)}")
            await trio.sleep(SAMPLE_INTERVAL)

    async def stop(self) -> None:
        """Stop all in good order."""
        for worker in self.workers:
            worker.terminate()
        for worker in self.workers:
            if await worker.exit_status(DEADLINE) != 0:
                raise Failed(f"a worker did not stop in good order: {worker.log.text[-LOG_TAIL:]}")


def _process(name: str) -> int:
    return int(name.rpartition(":")[2])


def _loads(rows: Sequence[tuple[str, list[str], int, int]]) -> str:
    return ", ".join(f"{len(pairs)} pairs {came} rows/s {waiting} waiting" for _, pairs, came, waiting in rows)


def _query(url: str) -> list[tuple[str, list[str], int, int]]:
    with suppress(psycopg.errors.UndefinedTable), psycopg.connect(url) as connection:
        return [(name, pairs, came, waiting) for name, pairs, came, waiting in connection.execute(MEMBERS)]
    return []


@contextmanager
def open_exchange(order: Order) -> Iterator[tuple[Connection, Address]]:
    """A simulated exchange in a process of its own, which ends with the block."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=run_exchange, args=(order, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours, ours.recv()
    finally:
        ours.close()
        process.join()


def ask(pipe: Connection, question: str) -> int:
    """How many messages were sent."""
    pipe.send(question)
    answer: int = pipe.recv()
    return answer


async def tell(fleet: Fleet, pipe: Connection) -> None:
    """Print how it goes, from time to time; for ever."""
    started = time.monotonic()
    while True:
        await trio.sleep(TELL_INTERVAL)
        sent, minutes = ask(pipe, "count"), (time.monotonic() - started) / 60
        print(f"{minutes:6.2f} min {sent:10,} sent  {len(fleet.takeovers):3} kills  {_loads(await fleet.members())}")


async def run(minutes: float, order: Order, workers: int, directory: Path, url: str) -> bool:
    """Run; whether everything is as it must be."""
    with open_exchange(order) as (pipe, address):
        fleet = Fleet(directory, url, address, order, workers)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fleet.watch)
                began = time.monotonic()
                await fleet.collected_by_the_living()
                print(f"{order.pairs} pairs are held after {time.monotonic() - began:.1f} s", flush=True)
                await trio.sleep(SETTLE)
                fleet.first_resident = [worker.resident for worker in fleet.workers]
                nursery.start_soon(tell, fleet, pipe)
                before, began = ask(pipe, "count"), time.monotonic()
                choose = random.Random(order.seed)  # noqa: S311 - it must repeat, not be secret
                await fleet.kill_again_and_again(minutes * 60, choose)
                rate = (ask(pipe, "halt") - before) / (time.monotonic() - began)
                await fleet.calm()
                last_resident = [worker.resident for worker in fleet.workers]
                nursery.cancel_scope.cancel()
            await fleet.stop()
        finally:
            for worker in fleet.workers:
                worker.kill()
        verified = await trio.to_thread.run_sync(verify, url, address, directory)
        pipe.send("sent")
        sent: Sent = await trio.to_thread.run_sync(pipe.recv)
    result = await trio.to_thread.run_sync(account, url, sent)
    print("\n".join(report(result, rate, verified, fleet, last_resident)))
    return not (result.problems or result.lost or result.duplicated or verified)


def verify(url: str, address: Address, directory: Path) -> int:
    """Close the holes in the trades and verify all that is stored; the command's exit status."""
    environment = {"DATABASE_URL": url, "KRAKEN_WS_URL": address.ws_url, "KRAKEN_REST_URL": address.rest_url}
    command = [sys.executable, "-m", "collector", "verify", "--repair"]
    project = Path(__file__).parent.parent
    environment |= {"PYTHONPATH": str(project), "LOG_LEVEL": "warning"}
    result = subprocess.run(command, cwd=directory, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        print(result.stdout)
    return result.returncode


def report(result: Account, rate: float, verified: int, fleet: Fleet, last_resident: Sequence[float]) -> Iterator[str]:
    """The table."""
    seconds = fleet.takeovers or [0.0]
    yield from columns(
        [
            ("messages a second", f"{rate:,.0f}"),
            ("messages sent", f"{result.sent:,}"),
            ("rows stored", f"{result.stored:,}"),
            ("rows lost", f"{result.lost:,}"),
            ("rows duplicated", f"{result.duplicated:,}"),
            ("unread on connections that broke", f"{result.unread:,}"),
            ("kills", f"{len(fleet.takeovers)}"),
            ("until all pairs are held again (s), median", f"{statistics.median(seconds):.1f}"),
            ("until all pairs are held again (s), at most", f"{max(seconds):.1f}"),
            ("holes on record in the books", f"{result.holes:,}"),
            ("longest of them (s)", f"{result.longest:.1f}"),
            ("seconds of them, of all pairs", f"{result.total:,.1f}"),
            ("verify", "clean" if verified == 0 else f"exit status {verified}"),
        ],
        words={0},
    )
    yield ""
    rows = [
        (str(place), *(f"{value:.1f}" for value in values))
        for place, values in enumerate(zip(fleet.first_resident, last_resident, fleet.peaks, strict=True))
    ]
    yield from columns([("worker", "RSS at the start (MB)", "at the end", "peak"), *rows], words=set())
    yield from result.problems


def main() -> int:
    """Read the arguments and run; return the exit status."""
    parser = argparse.ArgumentParser(description="Kill collectors of a whole exchange at random.")
    parser.add_argument("minutes", type=float)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=700)
    parser.add_argument("--rate", type=float, default=5000.0, help="messages a second, of all pairs together")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    arguments = parser.parse_args()
    order = Order(arguments.pairs, arguments.rate, arguments.seed)
    print(f"seed {arguments.seed}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="collector-fleet-"))
    try:
        with postgres(directory / "data") as server:
            is_well = trio.run(run, arguments.minutes, order, arguments.workers, directory, server.url())
    except* Failed as group:
        print(first_of(group), file=sys.stderr)
        is_well = False
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
