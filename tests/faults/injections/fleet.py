"""Three collectors of the same pairs and one database: whatever befalls one, the others have its pairs soon."""

import trio
from faults.bench import Bench
from faults.fault import EVERYTHING, Fault, Service, Strike
from faults.injections.database import start_again
from faults.lasting import in_lasting_thread
from faults.market import PAIRS
from faults.shares import busiest, divided
from faults.worker import Worker
from proxy import Proxy

FLEET_PAIRS = (*PAIRS, "SOL/USD", "ADA/USD", "XRP/USD", "DOGE/USD")
NAMES = ("first", "second", "third")
FROZEN = 12.0  # seconds, after which the database has ended the session of one that was frozen
LOOK_INTERVAL = 0.1  # seconds
AWAY = 3.0  # seconds for which the database is stopped
# Seconds of silence after which one is given no pairs; in earnest it outlasts the making of a new connection.
UNHEARD_SOON = {"collector.reach:UNHEARD_AFTER": 3.0}


class Fleet:
    """Three collectors, each with a spool and with ways to the database and to Kraken of its own."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.workers: list[Worker] = []
        self.databases: dict[Worker, Proxy] = {}
        self.krakens: dict[Worker, Proxy] = {}

    async def start(self, wrong_clock: str | None = None) -> None:
        """Start all at once; the clock of that one goes an hour wrong."""
        for name in NAMES:
            await self.start_one(name, clock_is_wrong=name == wrong_clock)

    async def start_one(self, name: str, *, clock_is_wrong: bool = False) -> Worker:
        """Start one, whose spool may hold what a process before it left there."""
        bench = self._bench
        database = Proxy.in_front_of(bench.database_url)
        kraken = Proxy(bench.address.port)
        for proxy in (database, kraken):
            await bench.nursery.start(proxy.serve)
        folder = bench.directory / name
        folder.mkdir(exist_ok=True)
        if clock_is_wrong:
            (folder / "clock-back").touch()
        worker = bench.start(
            name=f"{name}/{name}",  # the launcher looks beside the log for what is to go wrong in this process
            SPOOL_DIR=str(folder / "spool"),
            DATABASE_URL=database.leading_to(bench.database_url),
            KRAKEN_WS_URL=f"ws://localhost:{kraken.port}/v2",
            KRAKEN_REST_URL=f"http://127.0.0.1:{kraken.port}",
        )
        self.workers.append(worker)
        self.databases[worker], self.krakens[worker] = database, kraken
        return worker

    async def victim(self) -> Worker:
        """The one that has the most pairs; when it is told, what is on its way to it counts no more."""
        worker = await busiest(self._bench, *self.workers)
        self._bench.break_connections()
        return worker

    def others(self, worker: Worker) -> list[Worker]:
        """All but one."""
        return [other for other in self.workers if other is not worker]


async def under_load(bench: Bench) -> Fleet:
    """Three collectors that have divided the pairs."""
    fleet = Fleet(bench)
    await fleet.start()
    await divided(bench, *fleet.workers)
    await bench.collecting()
    return fleet


async def taken_over(bench: Bench, fleet: Fleet, victim: Worker) -> None:
    """Note the time, and wait until the others have all pairs, and new rows of each are stored."""
    bench.mended()
    await divided(bench, *fleet.others(victim))
    await bench.recovered()


async def killed(bench: Bench) -> None:
    """One is killed, and after the others have its pairs it comes back."""
    fleet = await under_load(bench)
    victim = await fleet.victim()
    await trio.to_thread.run_sync(victim.kill)
    bench.break_connections()
    await taken_over(bench, fleet, victim)
    name = victim.log.path.stem
    fleet.workers.remove(victim)
    await fleet.start_one(name)
    bench.mended()
    await divided(bench, *fleet.workers)


async def frozen(bench: Bench) -> None:
    """One is stopped until it has lost its locks; it goes on as if nothing had been, and must find out."""
    fleet = await under_load(bench)
    victim = await fleet.victim()
    async with bench.expecting("pairs_yielded", worker=victim):
        victim.freeze()
        bench.mended()
        with trio.move_on_after(FROZEN):
            await taken_over(bench, fleet, victim)
            await trio.sleep_forever()
        assert bench.seconds, "nobody took the pairs over"
        victim.thaw()
        bench.mended()
    await divided(bench, *fleet.workers)


async def cut_off_from_database(bench: Bench) -> None:
    """One collects on, beside the one that has its pairs now, and lets go of them on first contact."""
    fleet = await under_load(bench)
    victim = await fleet.victim()
    async with bench.expecting("pairs_yielded", worker=victim):
        fleet.databases[victim].flowing.value = False
        await taken_over(bench, fleet, victim)
        fleet.databases[victim].flowing.value = True
        bench.mended()
    await divided(bench, *fleet.workers)


async def cut_off_from_kraken(bench: Bench) -> None:
    """One hears nothing any more, says so, and gives its pairs to those that do."""
    fleet = await under_load(bench)
    victim = await fleet.victim()
    async with bench.expecting("disconnected", worker=victim):
        fleet.krakens[victim].flowing.value = False
        bench.mended()
        found = await divided(bench, *fleet.workers)
        while found[victim]:
            await trio.sleep(LOOK_INTERVAL)
            found = await divided(bench, *fleet.workers)
        await bench.recovered()
    bench.break_connections()
    fleet.krakens[victim].cut()
    fleet.krakens[victim].flowing.value = True
    bench.mended()


async def database_restarted(bench: Bench) -> None:
    """All lose their sessions at once, and each keeps what it had."""
    fleet = await under_load(bench)
    before = await divided(bench, *fleet.workers)
    await trio.to_thread.run_sync(bench.server.stop)
    await trio.sleep(AWAY)
    await in_lasting_thread(start_again, bench.server)
    bench.mended()
    assert await divided(bench, *fleet.workers) == before
    await bench.recovered()


async def started_at_once(bench: Bench) -> None:
    """All are started on an empty database at the same time."""
    fleet = Fleet(bench)
    await fleet.start()
    bench.mended()
    await divided(bench, *fleet.workers)
    await bench.recovered()


async def wrong_clock(bench: Bench) -> None:
    """The clock of one goes an hour wrong: it holds its pairs, gives them away, and gets them back, like any other."""
    fleet = Fleet(bench)
    await fleet.start(wrong_clock=NAMES[0])
    wrong = fleet.workers[0]
    bench.mended()
    found = await divided(bench, *fleet.workers)
    await bench.recovered()
    other = max(fleet.others(wrong), key=lambda worker: len(found[worker]))
    bench.break_connections()
    other.terminate()
    assert await other.exit_status() == 0
    await taken_over(bench, fleet, other)


def of_three(what: str, strike: Strike, *reasons: str, needs: frozenset[Service] = frozenset()) -> Fault:
    """A fault that strikes three collectors, or one of them."""
    return Fault(
        f"three workers, {what}",
        strike,
        EVERYTHING,
        reasons=reasons,
        constants=UNHEARD_SOON,
        needs=needs,
        starts=False,
        suite_only="the soak has one collector",
        pairs=FLEET_PAIRS,
        collectors=len(NAMES),
    )


OWN_SERVER: frozenset[Service] = frozenset({"own server"})
FAULTS = (
    of_three("one killed", killed, "process_ended"),
    of_three("one frozen", frozen, "yielded"),
    of_three("one cut off from the database", cut_off_from_database, "yielded"),
    of_three("one cut off from Kraken", cut_off_from_kraken, "silent"),
    of_three("the database restarted", database_restarted, "shutdown", needs=OWN_SERVER),
    of_three("all started at once", started_at_once, "shutdown", needs=OWN_SERVER),
    of_three("the clock of one wrong by an hour", wrong_clock, "shutdown"),
)
