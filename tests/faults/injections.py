"""Faults that the tests and the soak share: each breaks something on a bench, and mends it again."""

import re
import signal

import trio
from faults.bench import PAIRS, Bench, Fault

CLOSES = (1001, 1012, 1013)
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
QUANTITY = re.compile(rb'"qty":[0-9.]+')
BLOCKED = 6.0  # seconds, a little more than the launcher blocks
RATE_LIMITS = {
    1: b'{"event":"error","errorMessage":"Exceeded msg rate"}',
    2: b'{"Error":"Exceeded msg rate"}',
    3: b'{"method":"subscribe","error":"Exceeded msg rate","success":false,"req_id":1}',
}


def close(code: int) -> Fault:
    """The server closes in good order."""

    async def fault(bench: Bench) -> None:
        bench.close(code)

    return fault


async def reset(bench: Bench) -> None:
    """TCP breaks."""
    bench.break_connections()
    bench.faults.reset()


async def half_open(bench: Bench) -> None:
    """The connection stays up, and nothing comes any more, pongs included."""
    count = len(bench.worker.events("disconnected"))
    bench.faults.go_silent()
    await bench.worker.wait_for("disconnected", count + 1)
    bench.faults.lift()
    bench.mended()


async def refuse_connections(bench: Bench) -> None:
    """Every new connection closes as soon as it is made."""
    bench.faults.refuse_connections()
    bench.close(1001)
    await trio.sleep(3)
    bench.faults.lift()
    bench.mended()


def refuse_upgrade(status: int) -> Fault:
    """The edge answers the upgrade with an HTTP status, once."""

    async def fault(bench: Bench) -> None:
        bench.faults.refuse_upgrade(status, times=1)
        bench.close(1001)

    return fault


def rate_limited(answer: bytes) -> Fault:
    """The next request is one too many; every shape of that answer means to ask again later."""

    async def fault(bench: Bench) -> None:
        bench.faults.answer_with(answer)
        bench.close(1001)

    return fault


async def kill_and_restart(bench: Bench) -> None:
    """SIGKILL, and a new process at once."""
    await bench.kill()
    bench.start()
    bench.mended()


async def stop_and_restart(bench: Bench) -> None:
    """Told to stop under load, and told again, as hosts do; a new process at once."""
    bench.break_connections()  # it hangs up first: what is on its way then is nobody's
    bench.worker.signal(signal.SIGTERM)
    await trio.sleep(0.05)
    bench.worker.signal(signal.SIGTERM)
    assert await bench.worker.exit_status() == 0
    bench.start()
    bench.mended()


def crash(tasks: tuple[str, ...]) -> Fault:
    """A bug in one task, or in two at once."""

    async def fault(bench: Bench) -> None:
        count = len(bench.worker.events("crashed"))
        bench.break_connections()  # those of a group that crashes
        told = [bench.tell(f"crash-{task}") for task in tasks]
        for path in told:
            await bench.told(path)
        await bench.worker.wait_for("crashed", count + 1)  # two tasks of one group crash as one

    return fault


async def blocked(bench: Bench) -> None:
    """Something holds up the event loop, heartbeats and all."""
    await bench.told(bench.tell("block-book"))
    await trio.sleep(BLOCKED)
    bench.mended()


async def no_dns(bench: Bench) -> None:
    """The name cannot be resolved."""
    count = len(bench.worker.events("disconnected"))
    broken = bench.tell("no-dns")
    bench.close(1001)
    await bench.worker.wait_for("disconnected", count + 3)
    broken.unlink()
    bench.mended()


async def wrong_checksum(bench: Bench) -> None:
    """A book message that does not add up."""
    bench.faults.bad_checksum(PAIRS[0])


async def messages_out_of_step(bench: Bench) -> None:
    """A book message is lost; trades are repeated and out of order."""
    bench.faults.drop("book", PAIRS[1])
    bench.faults.repeat("trade", PAIRS[0])
    bench.faults.swap("trade", PAIRS[1])


async def malformed(bench: Bench) -> None:
    """A quantity is null."""
    bench.faults.alter_frames(
        "book", PAIRS[1], lambda frame: [re.sub(rb'"qty":[0-9.]+', b'"qty":null', frame, count=1)]
    )
