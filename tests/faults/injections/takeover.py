"""Two collectors of the same pairs and one database: one takes over from the other, and gives back what is not its."""

from collections.abc import Sequence
from typing import Any

import trio
from faults.bench import Bench
from faults.fault import EVERYTHING, Fault, Service, Strike
from faults.market import PAIRS
from faults.shares import busiest, divided
from faults.worker import Worker

ENDS = "SELECT end_reason, count(*) FROM kraken_coverage WHERE ended_at IS NOT NULL GROUP BY end_reason"
RUNS = 2 * len(PAIRS)  # of each pair, the book and the trades
# Seconds after which a spool counts as lost, and between two looks; a run is reported with each of its rows here.
LOST_SOON = {"collector.tasks.lost_runs:LOST_AFTER": 4.0, "collector.tasks.lost_runs:INTERVAL": 0.5}
LOOK_INTERVAL = 0.1  # seconds
YIELD_AFTER = 1.0  # seconds after the takeover in which one that is cut off cannot know of it


def start_second(bench: Bench) -> Worker:
    """A second collector with a spool and a way to the database of its own."""
    return bench.start(name="second", SPOOL_DIR=str(bench.directory / "second"), DATABASE_URL=bench.database_url)


async def hand_back(bench: Bench, first: Worker, second: Worker) -> None:
    """Both divide the pairs; then the second one is stopped, and the first one collects all again."""
    await divided(bench, first, second)
    bench.break_connections()
    second.terminate()
    assert await second.exit_status() == 0
    await divided(bench, first)
    bench.workers.remove(first)
    bench.workers.append(first)  # it is the one that other faults strike


async def killed(bench: Bench) -> None:
    """The one of two that has more pairs is killed: its locks are free at once."""
    first, second = bench.worker, start_second(bench)
    victim = await busiest(bench, first, second)
    bench.break_connections()
    await trio.to_thread.run_sync(victim.kill)
    bench.break_connections()
    bench.mended()
    await divided(bench, second if victim is first else first)
    await bench.recovered()
    # The next process of its spool ends the runs that it had left open.
    if victim is first:
        first = bench.start()
    else:
        second = start_second(bench)
    await hand_back(bench, first, second)


async def killed_for_good(bench: Bench) -> None:
    """The holder is killed, and its disk is gone with it, as where every start gets a new one."""
    first = bench.worker
    await divided(bench, first)
    bench.break_connections()
    await trio.to_thread.run_sync(first.kill)
    bench.mended()
    second = start_second(bench)
    async with bench.expecting("run_of_lost_spool", times=RUNS, worker=second):
        await divided(bench, second)


async def cut_off_for_long(bench: Bench) -> None:
    """The holder is out of reach until its spool is taken for lost, and then comes back with all that it has."""
    first = bench.worker
    await divided(bench, first)
    bench.database_proxy.flowing.value = False
    bench.mended()
    second = start_second(bench)
    async with bench.expecting("pairs_yielded", worker=first):
        yielded = len(first.log.events("pairs_yielded"))
        async with bench.expecting("run_of_lost_spool", times=RUNS, worker=second):
            pass
        assert len(first.log.events("pairs_yielded")) == yielded
        assert await bench.query(ENDS) == [("spool_lost", RUNS)]
        bench.database_proxy.flowing.value = True
    with trio.fail_after(bench.deadline):
        while not _all_yielded(await bench.query(ENDS)):  # noqa: ASYNC110 - it is PostgreSQL that is waited for
            await trio.sleep(LOOK_INTERVAL)


def _all_yielded(ends: Sequence[tuple[Any, ...]]) -> bool:
    """Whether the holder's runs ended as it came back; those of pairs that are its share end likewise at the second."""
    return [reason for reason, _ in ends] == ["yielded"] and ends[0][1] >= RUNS


async def frozen(bench: Bench) -> None:
    """The holder is frozen, loses its locks, and yields when it wakes."""
    first = bench.worker
    await divided(bench, first)
    bench.break_connections()
    first.freeze()
    bench.mended()
    second = start_second(bench)
    await divided(bench, second)
    await bench.recovered()
    async with bench.expecting("pairs_yielded", worker=first), bench.expecting("disconnected", worker=first):
        first.thaw()
    await hand_back(bench, first, second)


async def cut_off(bench: Bench) -> None:
    """The holder cannot reach the database: both collect, and it yields on first contact, and ships what it has."""
    first = bench.worker
    await divided(bench, first)
    async with bench.expecting("pairs_yielded", worker=first), bench.expecting("disconnected", worker=first):
        yielded = len(first.log.events("pairs_yielded"))
        bench.database_proxy.flowing.value = False
        bench.mended()
        second = start_second(bench)
        await divided(bench, second)
        await bench.recovered()
        await trio.sleep(YIELD_AFTER)
        assert len(first.log.events("pairs_yielded")) == yielded
        bench.database_proxy.flowing.value = True
    await hand_back(bench, first, second)


async def handed_over(bench: Bench) -> None:
    """One of two is stopped in good order, as at every deployment."""
    first, second = bench.worker, start_second(bench)
    await divided(bench, first, second)
    bench.break_connections()
    first.terminate()
    bench.mended()
    assert await first.exit_status() == 0
    await divided(bench, second)
    await bench.recovered()
    await hand_back(bench, bench.start(), second)


def takeover(how: str, strike: Strike, reason: str, *, proxied: bool = False) -> Fault:
    """A fault that makes one collector take over from another."""
    needs: frozenset[Service] = frozenset({"database proxy"} if proxied else ())
    return Fault(f"takeover {how}", strike, EVERYTHING, reasons=[reason], needs=needs)


def lost_spool(how: str, strike: Strike, reason: str, why_alone: str, *, proxied: bool = False) -> Fault:
    """A fault after which a spool counts as lost, sooner than in earnest."""
    fault = takeover(how, strike, reason, proxied=proxied)
    return fault._replace(constants=LOST_SOON, suite_only=why_alone)


FAULTS = (
    takeover("after SIGKILL", killed, "process_ended"),
    takeover("of a frozen one", frozen, "yielded"),
    takeover("of one cut off", cut_off, "yielded", proxied=True),
    takeover("at SIGTERM", handed_over, "shutdown"),
)
LOST_SPOOLS = (
    lost_spool("from a lost disk", killed_for_good, "spool_lost", "what waits on a disk that is lost is lost"),
    lost_spool(
        "until the holder is back",
        cut_off_for_long,
        "yielded",
        "among other faults, other runs may be taken for lost as well",
        proxied=True,
    ),
)
