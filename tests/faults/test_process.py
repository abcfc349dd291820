"""The process itself in trouble: killed, crashed, blocked, told to stop at the wrong moment, the clock set back."""

import random
import signal

import trio
from faults.bench import PAIRS, Bench
from faults.injections import CRASHES, blocked, crash, kill_and_restart, stop_and_restart
from faults.injections_postgres import start_again
from faults.lasting import in_lasting_thread
from faults.trial import Trial, TryFaults

KILLS = 5


async def kills(bench: Bench) -> None:
    """Killed at random moments, under load each time."""
    for _ in range(KILLS):
        await trio.sleep(random.uniform(0.0, 2.0))
        await kill_and_restart(bench)
        await bench.collecting()


async def clock_back(bench: Bench) -> None:
    """The wall clock steps back an hour, in the middle of a run and before the next ones begin."""
    bench.tell("clock-back")
    bench.faults.bad_checksum(PAIRS[0])
    await bench.recovered()
    bench.close(1001)
    await bench.recovered()
    await kill_and_restart(bench)


async def stopped_in_an_outage(bench: Bench) -> None:
    """Told to stop while the database is away: it ends in time, and the next process ships what it left."""
    assert bench.server is not None
    await trio.to_thread.run_sync(bench.server.stop)
    await trio.sleep(1)
    bench.break_connections()
    bench.worker.signal(signal.SIGTERM)
    assert await bench.worker.exit_status() == 0
    assert list(bench.spool.glob("*.segment"))
    bench.start()
    await in_lasting_thread(start_again, bench.server)
    bench.mended()


async def second_process(bench: Bench) -> None:
    """Another collector is started on the same spool: it says whose it is, and leaves it alone."""
    first = bench.worker
    second = bench.start(name="second")
    assert await second.exit_status() == 2
    assert str(first.process.pid) in second.log
    bench.workers.remove(second)


async def test_process(try_faults: TryFaults) -> None:
    """A process that ends, crashes or hangs at any moment would lose rows that it had, or store them twice."""
    redis = {"USE_REDIS": "true", "REDIS_URL": "redis://127.0.0.1:1"}
    await try_faults(
        [Trial(f"crash in {' and '.join(tasks)}", crash(tasks), redis, constants={}) for tasks in CRASHES]
        + [
            Trial(f"{KILLS} SIGKILLs", kills, reasons=["process_ended"]),
            Trial("event loop blocked", blocked, constants={}),
            Trial("clock back an hour", clock_back, constants={}, reasons=["checksum", "closed_1001", "process_ended"]),
            Trial("SIGTERM in an outage", stopped_in_an_outage, own_server=True, reasons=["shutdown"]),
            Trial("SIGTERM twice", stop_and_restart, reasons=["shutdown"]),
            Trial("two processes, one spool", second_process),
        ]
    )
