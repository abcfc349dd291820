"""Every kind of fault at random, for as long as wanted, against one set of services; then every row is accounted for.

    soak.py MINUTES [SEED]

The seed decides which fault comes when; it is printed, so that a run can be repeated. The exit status is 1 when a row
was lost or stored twice, when coverage claims too much, or when the collector's memory grew.
"""

import argparse
import random
import secrets
import shutil
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

import trio
from embedded import EmbeddedRedis, postgres, redis_server
from faults import injections, injections_postgres
from faults.bench import Bench, Fault, open_bench, open_market
from faults.lasting import in_lasting_thread
from faults.proxy import Proxy
from faults.table import LINES, render
from faults.trial import finish
from faults.worker import LOG_TAIL

INTERVAL = 10.0  # seconds from one fault to the next, or more where a fault takes longer
AWAY = 5.0  # seconds for which a service is away
HANG = 12.0  # seconds for which the database hangs: longer than any timeout of the collector's
KILLS = 8  # of as many draws as there are faults beside: a SIGKILL about every minute
RATE = 600.0  # steps of the market a second; at twice that, the market forgets trades within the hour
# MB beyond which memory is not flat any more: a collector of two pairs begins at 70, and its caches (prices, published
# trades) fill within minutes, to 78 as measured; what leaks with every fault or message comes to this within the hour.
MEMORY_LIMIT = 110.0
RECOVERY = 120.0  # seconds in which a collector has recovered from whatever came last


class Services:
    """What a fault may break, beside Kraken."""

    def __init__(self, redis: EmbeddedRedis, redis_proxy: Proxy, database_proxy: Proxy) -> None:
        self._redis = redis
        self._redis_proxy = redis_proxy
        self._database_proxy = database_proxy

    async def redis_stopped(self, _bench: Bench) -> None:
        """Redis is away."""
        await trio.to_thread.run_sync(self._redis.stop)
        await trio.sleep(AWAY)
        await in_lasting_thread(self._redis.start)

    async def redis_hanging(self, _bench: Bench) -> None:
        """Redis does not answer."""
        await hang(self._redis_proxy, AWAY)

    async def database_hanging(self, bench: Bench) -> None:
        """The database does not answer."""
        await hang(self._database_proxy, HANG)
        bench.mended()

    async def database_cut(self, _bench: Bench) -> None:
        """Connections to the database close, whatever they were at."""
        self._database_proxy.cut()


async def hang(proxy: Proxy, seconds: float) -> None:
    """Let nothing pass for a while."""
    proxy.flowing.value = False
    await trio.sleep(seconds)
    proxy.flowing.value = True


async def database_stopped(bench: Bench) -> None:
    """PostgreSQL is stopped in good order."""
    await injections_postgres.away(bench, signal.SIGINT, AWAY)


async def database_killed(bench: Bench) -> None:
    """PostgreSQL crashes."""
    await injections_postgres.away(bench, signal.SIGKILL, AWAY)


def all_faults(services: Services) -> dict[str, Fault]:
    """The faults by name."""
    return {
        **{f"close {code}": injections.close(code) for code in injections.CLOSES},
        "TCP reset": injections.reset,
        "half-open": injections.half_open,
        "connections dropped": injections.refuse_connections,
        "429 at the upgrade": injections.refuse_upgrade(429),
        "503 at the upgrade": injections.refuse_upgrade(503),
        "DNS failure": injections.no_dns,
        **{
            f"Exceeded msg rate {shape}": injections.rate_limited(answer)
            for shape, answer in injections.RATE_LIMITS.items()
        },
        "wrong checksum": injections.wrong_checksum,
        "messages out of step": injections.messages_out_of_step,
        "malformed": injections.malformed,
        "database stopped": database_stopped,
        "database killed": database_killed,
        "database hanging": services.database_hanging,
        "database cut": services.database_cut,
        "database read-only": injections_postgres.read_only,
        "database's disk full": injections_postgres.disk_full,
        "commits of 2 s": injections_postgres.slow,
        "terminated in COPY": injections_postgres.terminated,
        "Redis stopped": services.redis_stopped,
        "Redis hanging": services.redis_hanging,
        "SIGTERM": injections.stop_and_restart,
        "event loop blocked": injections.blocked,
        **{f"crash in {' and '.join(tasks)}": injections.crash(tasks) for tasks in injections.CRASHES},
    }


async def soak(minutes: float, seed: int, directory: Path) -> bool:
    """Run; whether everything is as it must be."""
    choose = random.Random(seed)  # noqa: S311 - it must repeat, not be secret
    with postgres(directory / "data") as server, redis_server() as redis:
        async with open_market(RATE, seed) as market, open_bench(market, server) as bench:
            redis_proxy = await bench.open_proxy(redis.port)
            services = Services(redis, redis_proxy, await bench.proxy_database())
            bench.environment |= {"USE_REDIS": "true", "REDIS_URL": f"redis://127.0.0.1:{redis_proxy.port}"}
            bench.constants = {}
            await bench.warm_up()
            memory = await break_things(bench, all_faults(services), minutes * 60, choose)
            bench.mended()
            try:
                await bench.recovered(RECOVERY)
                await finish(f"{minutes:g} minutes", bench)
            except AssertionError as error:
                print(error, f"the log's end:\n{bench.worker.log[-LOG_TAIL:]}", sep="\n")
                return False
            finally:
                print("\n".join(render(LINES)))
    print(f"memory at its largest: {max(memory):.1f} MB")
    return max(memory) < MEMORY_LIMIT


async def break_things(bench: Bench, faults: dict[str, Fault], seconds: float, choose: random.Random) -> list[float]:
    """One fault after the other; the memory after each."""
    names = [*faults, *["SIGKILL"] * KILLS]
    happened: Counter[str] = Counter()
    memory: list[float] = []
    started = trio.current_time()
    while (now := trio.current_time()) < started + seconds:
        name = choose.choice(names)
        happened[name] += 1
        await trio.sleep(choose.uniform(0.0, INTERVAL / 2))
        await (injections.kill_and_restart if name == "SIGKILL" else faults[name])(bench)
        await trio.sleep_until(now + INTERVAL)
        memory.append(bench.worker.resident)
        elapsed = trio.current_time() - started
        print(f"{elapsed / 60:7.1f} min  {memory[-1]:6.1f} MB  {bench.log.count():9,} sent  {name}", flush=True)
    print("faults:", ", ".join(f"{count} {name}" for name, count in happened.most_common()))
    return memory


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
