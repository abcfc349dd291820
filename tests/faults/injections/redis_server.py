"""Redis in every kind of trouble: its subscribers may miss messages, the database never misses a row."""

import time

import redis
import trio
from faults.bench import Bench
from faults.fault import REDIS, Fault
from faults.lasting import in_lasting_thread

from collector.tasks.publish import BOOK_CHANNEL

SLOWNESS = 1.0  # seconds for each answer
SMALL_MEMORY = 1  # byte
LISTENING = 2.0  # seconds of one try to hear a message
NOBODY_LISTENS = "redis://127.0.0.1:1"


async def nothing(bench: Bench) -> None:
    """Nothing more: the trouble, if there is any, is there from the start."""
    await trio.sleep(bench.outage)


async def published(bench: Bench) -> None:
    """Wait until a subscriber hears of a row: a process that was killed meanwhile cannot log that Redis is back."""
    with trio.fail_after(bench.deadline):
        while not await trio.to_thread.run_sync(hears, bench.redis.port):
            pass


def hears(port: int) -> bool:
    """Whether a new subscriber gets a message within a while."""
    with redis.Redis(port=port) as client, client.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe(BOOK_CHANNEL)
        ends = time.monotonic() + LISTENING
        while time.monotonic() < ends:
            if channel.get_message(timeout=LISTENING) is not None:
                return True
    return False


async def stopped(bench: Bench) -> None:
    """Redis is stopped under way and comes back."""
    async with bench.expecting("redis_unavailable"):
        await trio.to_thread.run_sync(bench.redis.stop)
        await trio.sleep(bench.outage)
    await in_lasting_thread(bench.redis.start)
    bench.mended()
    await published(bench)


async def hanging(bench: Bench) -> None:
    """Redis takes connections and does not answer."""
    async with bench.expecting("redis_unavailable"):
        bench.redis_proxy.flowing.value = False
        await trio.sleep(bench.outage)
    bench.redis_proxy.flowing.value = True
    bench.mended()
    await published(bench)


async def slow(bench: Bench) -> None:
    """Redis answers late."""
    bench.redis_proxy.delay = SLOWNESS
    await trio.sleep(bench.outage)
    bench.redis_proxy.delay = 0.0
    bench.mended()


async def out_of_memory(bench: Bench) -> None:
    """Redis has no memory left, and may evict nothing."""
    with redis.Redis(port=bench.redis.port) as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", SMALL_MEMORY)
        await trio.sleep(bench.outage)
        client.config_set("maxmemory", 0)
    bench.mended()


NEEDS = frozenset({"redis"})
FAULTS = (
    Fault("no fault", nothing, frozenset(), suite_only="it is what the others are compared with"),
    Fault(
        "Redis absent",
        nothing,
        REDIS,
        environment={"USE_REDIS": "true", "REDIS_URL": NOBODY_LISTENS},
        suite_only="a setting; for a running collector it is a Redis that is stopped",
    ),
    Fault("Redis stopped", stopped, REDIS, needs=NEEDS),
    Fault("Redis hanging", hanging, REDIS, needs=NEEDS),
    Fault("Redis slow", slow, REDIS, needs=NEEDS),
    Fault("Redis out of memory", out_of_memory, REDIS, needs=NEEDS),
)
