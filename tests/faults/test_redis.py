"""Redis in every kind of trouble: its subscribers may miss messages, the database never misses a row."""

import redis
import trio
from embedded import free_port, redis_server
from faults.bench import Bench
from faults.lasting import in_lasting_thread
from faults.trial import Trial, TryFaults

TROUBLE = 5.0  # seconds
SLOWNESS = 1.0  # seconds for each answer
SMALL_MEMORY = 1  # byte


async def nothing(_bench: Bench) -> None:
    """Nothing more: the trouble, if there is any, is there from the start."""
    await trio.sleep(TROUBLE)


async def start_with_redis(bench: Bench, port: int) -> None:
    """Start a collector that publishes to a port."""
    bench.environment |= {"USE_REDIS": "true", "REDIS_URL": f"redis://127.0.0.1:{port}"}
    await bench.warm_up()


async def stopped(bench: Bench) -> None:
    """Redis is stopped under way and comes back."""
    with redis_server() as server:
        await start_with_redis(bench, server.port)
        await trio.to_thread.run_sync(server.stop)
        await bench.worker.wait_for("redis_unavailable")
        await trio.sleep(TROUBLE)
        await in_lasting_thread(server.start)
        bench.mended()
        await bench.worker.wait_for("redis_available")


async def hanging(bench: Bench) -> None:
    """Redis takes connections and does not answer."""
    with redis_server() as server:
        proxy = await bench.open_proxy(server.port)
        await start_with_redis(bench, proxy.port)
        proxy.flowing.value = False
        await bench.worker.wait_for("redis_unavailable")
        await trio.sleep(TROUBLE)
        proxy.flowing.value = True
        bench.mended()
        await bench.worker.wait_for("redis_available")


async def slow(bench: Bench) -> None:
    """Redis answers late."""
    with redis_server() as server:
        proxy = await bench.open_proxy(server.port)
        proxy.delay = SLOWNESS
        await start_with_redis(bench, proxy.port)
        await trio.sleep(TROUBLE)
        bench.mended()


async def out_of_memory(bench: Bench) -> None:
    """Redis has no memory left, and may evict nothing."""
    with redis_server() as server:
        await start_with_redis(bench, server.port)
        with redis.Redis(port=server.port) as client:
            client.config_set("maxmemory", SMALL_MEMORY)
            client.config_set("maxmemory-policy", "noeviction")
        await trio.sleep(TROUBLE)
        bench.mended()


async def test_redis(try_faults: TryFaults) -> None:
    """A Redis that is absent, stopped, hanging, slow or full would hold up what goes to PostgreSQL."""
    absent = {"USE_REDIS": "true", "REDIS_URL": f"redis://127.0.0.1:{free_port()}"}
    await try_faults(
        [
            Trial("no fault", nothing),
            Trial("Redis absent", nothing, absent),
            Trial("Redis stopped", stopped, starts=False),
            Trial("Redis hanging", hanging, starts=False),
            Trial("Redis slow", slow, starts=False),
            Trial("Redis out of memory", out_of_memory, starts=False),
        ]
    )
