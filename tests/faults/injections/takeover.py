"""Two collectors of the same pairs and one database: one collects, the other stands by and takes over."""

import trio
from faults.bench import Bench
from faults.fault import EVERYTHING, Fault, Service, Strike
from faults.market import PAIRS
from faults.worker import Worker

# A process that was killed while the network hung may leave its locks behind, until the server notices.
LOCKS_SINCE = """
SELECT 1 FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND datname = current_database() AND backend_start > '{started_at}Z'
"""
ENDS = "SELECT end_reason, count(*) FROM kraken_coverage WHERE ended_at IS NOT NULL GROUP BY end_reason"
RUNS = 2 * len(PAIRS)  # of each pair, the book and the trades
# Seconds after which a spool counts as lost, and between two looks; a run is reported with each of its rows here.
LOST_SOON = {"collector.tasks.lost_runs:LOST_AFTER": 4.0, "collector.tasks.lost_runs:INTERVAL": 0.5}
LOOK_INTERVAL = 0.1  # seconds
YIELD_AFTER = 1.0  # seconds after the takeover in which one that is cut off cannot know of it


async def stand_by(bench: Bench) -> Worker:
    """A second collector with a spool of its own, that has found the pairs taken."""
    held = LOCKS_SINCE.format(started_at=bench.worker.started_at)
    with trio.fail_after(bench.deadline):
        while len(await bench.query(held)) < len(PAIRS):  # noqa: ASYNC110 - PostgreSQL grants them
            await trio.sleep(LOOK_INTERVAL)
    second = bench.start(name="second", SPOOL_DIR=str(bench.directory / "second"), DATABASE_URL=bench.database_url)
    connected = len(second.log.events("connected"))
    async with bench.expecting("standing_by"):
        pass
    assert len(second.log.events("connected")) == connected
    bench.mended()
    return second


async def hand_back(bench: Bench, first: Worker, second: Worker) -> None:
    """The second one is stopped, and the first one, that stands by, collects again."""
    async with bench.expecting("pairs_taken", worker=first):
        bench.break_connections()
        second.terminate()
        assert await second.exit_status() == 0
    bench.workers.remove(first)
    bench.workers.append(first)  # it is the one that other faults strike


async def killed(bench: Bench) -> None:
    """The holder is killed: its locks are free at once."""
    first = bench.worker
    second = await stand_by(bench)
    async with bench.expecting("pairs_taken"):
        bench.break_connections()
        await trio.to_thread.run_sync(first.kill)
        bench.break_connections()
        bench.mended()
    await bench.recovered()
    # In its turn it finds the pairs taken, and ends the runs that its spool had left open.
    async with bench.expecting("standing_by", worker=first):
        first = bench.start()
    await hand_back(bench, first, second)


async def killed_for_good(bench: Bench) -> None:
    """The holder is killed, and its disk is gone with it, as where every start gets a new one."""
    first = bench.worker
    await stand_by(bench)
    async with bench.expecting("pairs_taken"), bench.expecting("run_of_lost_spool", times=RUNS):
        bench.break_connections()
        await trio.to_thread.run_sync(first.kill)
        bench.mended()


async def cut_off_for_long(bench: Bench) -> None:
    """The holder is out of reach until its spool is taken for lost, and then comes back with all that it has."""
    first = bench.worker
    await stand_by(bench)
    async with bench.expecting("pairs_yielded", worker=first):
        yielded = len(first.log.events("pairs_yielded"))
        async with bench.expecting("run_of_lost_spool", times=RUNS):
            bench.database_proxy.flowing.value = False
            bench.mended()
        assert len(first.log.events("pairs_yielded")) == yielded
        assert await bench.query(ENDS) == [("spool_lost", RUNS)]
        bench.database_proxy.flowing.value = True
    with trio.fail_after(bench.deadline):
        while await bench.query(ENDS) != [("yielded", RUNS)]:  # noqa: ASYNC110 - it is PostgreSQL that is waited for
            await trio.sleep(LOOK_INTERVAL)


async def frozen(bench: Bench) -> None:
    """The holder is frozen, loses its locks, and yields when it wakes."""
    first = bench.worker
    second = await stand_by(bench)
    async with bench.expecting("pairs_taken"):
        bench.break_connections()
        first.freeze()
        bench.mended()
    await bench.recovered()
    async with bench.expecting("pairs_yielded", worker=first), bench.expecting("disconnected", worker=first):
        first.thaw()
    await hand_back(bench, first, second)


async def cut_off(bench: Bench) -> None:
    """The holder cannot reach the database: both collect, and it yields on first contact, and ships what it has."""
    first = bench.worker
    second = await stand_by(bench)
    async with bench.expecting("pairs_yielded", worker=first), bench.expecting("disconnected", worker=first):
        yielded = len(first.log.events("pairs_yielded"))
        async with bench.expecting("pairs_taken"):
            bench.database_proxy.flowing.value = False
            bench.mended()
        await bench.recovered()
        await trio.sleep(YIELD_AFTER)
        assert len(first.log.events("pairs_yielded")) == yielded
        bench.database_proxy.flowing.value = True
    await hand_back(bench, first, second)


async def handed_over(bench: Bench) -> None:
    """The holder is stopped in good order, as at every deployment."""
    first = bench.worker
    second = await stand_by(bench)
    async with bench.expecting("pairs_taken"):
        bench.break_connections()
        first.terminate()
        bench.mended()
        assert await first.exit_status() == 0
    await bench.recovered()
    async with bench.expecting("standing_by", worker=first):
        first = bench.start()
    await hand_back(bench, first, second)


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
