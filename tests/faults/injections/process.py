"""The process itself in trouble: killed, crashed, blocked, told to stop at the wrong moment, the clock set back."""

import random

import trio
from faults.bench import Bench
from faults.fault import DATABASE, INSIDE, KRAKEN, PROCESS, Fault, Strike
from faults.injections.database import start_again
from faults.lasting import in_lasting_thread
from faults.market import PAIRS

KILLS = 5
BLOCKED = 6.0  # seconds, a little more than the launcher blocks
AGAIN_AFTER = 0.05  # seconds from one SIGTERM to the next
AWAY = 1.0  # seconds of an outage in which the collector is told to stop
GROUP = {"socket", "book", "flush"}  # which ends with its connection when one of them crashes
CRASHES = (
    ("socket",),
    ("book",),
    ("flush",),
    ("socket", "flush"),
    ("lock",),
    ("publish",),
    ("repair", "audit"),
    ("probe", "partitions"),
)


async def kill_and_restart(bench: Bench) -> None:
    """SIGKILL, and a new process at once."""
    await bench.kill()
    bench.start()
    bench.mended()


async def kills(bench: Bench) -> None:
    """Killed at random moments, under load each time."""
    for _ in range(KILLS):
        await trio.sleep(random.uniform(0.0, 2.0))
        await kill_and_restart(bench)
        await bench.collecting()


async def stop_and_restart(bench: Bench) -> None:
    """Told to stop under load, and told again, as hosts do; a new process at once."""
    await bench.connected()  # a process that is only starting has no answer to a signal yet
    bench.break_connections()  # it hangs up first: what is on its way then is nobody's
    bench.worker.terminate()
    await trio.sleep(AGAIN_AFTER)
    bench.worker.terminate()
    assert await bench.worker.exit_status() == 0
    bench.break_connections()
    bench.start()
    bench.mended()


async def stopped_in_an_outage(bench: Bench) -> None:
    """Told to stop while the database is away: it ends in time, and the next process ships what it left."""
    await bench.connected()
    await trio.to_thread.run_sync(bench.server.stop)
    await trio.sleep(AWAY)
    bench.break_connections()
    bench.worker.terminate()
    assert await bench.worker.exit_status() == 0
    bench.break_connections()
    assert list(bench.spool.glob("*.segment"))
    bench.start()
    await in_lasting_thread(start_again, bench.server)
    bench.mended()


async def second_process(bench: Bench) -> None:
    """Another collector is started on the same spool: it says whose it is, and leaves it alone."""
    await bench.connected()
    first = bench.worker
    second = bench.start(name="second")
    bench.workers.remove(second)
    assert await second.exit_status(bench.deadline) == 2
    assert str(first.process.pid) in second.log.text


def crash(tasks: tuple[str, ...]) -> Strike:
    """A bug in one task, or in two at once."""

    async def strike(bench: Bench) -> None:
        async with bench.expecting("crashed"):  # two tasks of one group crash as one
            if GROUP.intersection(tasks):
                bench.break_connections()
            told = [bench.tell(f"crash-{task}") for task in tasks]
            for path in told:
                await bench.told(path)
            if GROUP.intersection(tasks):
                bench.break_connections()  # one may have been made just before
        bench.mended()

    return strike


async def blocked(bench: Bench) -> None:
    """Something holds up the event loop, heartbeats and all."""
    await bench.told(bench.tell("block-book"))
    await trio.sleep(BLOCKED)
    bench.mended()


async def clock_back(bench: Bench) -> None:
    """The wall clock steps back an hour, in the middle of a run and before the next ones begin, and then on again."""
    stepped_back = bench.tell("clock-back")
    bench.faults.bad_checksum(PAIRS[0])
    await bench.recovered()
    bench.close(1001)
    await bench.recovered()
    await kill_and_restart(bench)
    await bench.recovered()
    stepped_back.unlink()


FAULTS = (
    *(
        Fault(
            f"crash in {' and '.join(tasks)}",
            crash(tasks),
            INSIDE,
            constants={},
            needs=frozenset({"redis"} if "publish" in tasks else ()),
        )
        for tasks in CRASHES
    ),
    Fault(
        f"{KILLS} SIGKILLs",
        kills,
        PROCESS,
        reasons=["process_ended"],
        suite_only="the soak kills at random moments, whatever else is broken",
    ),
    Fault("event loop blocked", blocked, KRAKEN | PROCESS | INSIDE, constants={}),
    Fault(
        "clock back an hour",
        clock_back,
        KRAKEN | PROCESS | INSIDE,
        constants={},
        reasons=["checksum", "closed_1001", "process_ended"],
    ),
    Fault(
        "SIGTERM in an outage",
        stopped_in_an_outage,
        DATABASE | PROCESS | INSIDE,
        reasons=["shutdown"],
        needs=frozenset({"own server"}),
    ),
    Fault("SIGTERM twice", stop_and_restart, PROCESS | INSIDE, reasons=["shutdown"]),
    Fault("two processes, one spool", second_process, PROCESS),
)
