"""Connections to Kraken that end, hang or cannot be made: each end is in coverage, and nothing delivered is lost."""

import trio
from faults.bench import Bench
from faults.fault import INSIDE, KRAKEN, PROCESS, Fault, Strike

POLICY_PAUSE = 4.0  # seconds; the collector's own is 5 minutes, too long for a test
AWAY = 3.0  # seconds without Kraken
QUIET = 3.0  # seconds without a market
TRIES = 3  # to find a name that cannot be resolved
SLOWNESS = 2.0  # seconds for each answer
OVERSIZE = b'{"channel":"' + b"x" * (9 * 2**20) + b'"}'
RATE_LIMITS = (
    b'{"event":"error","errorMessage":"Exceeded msg rate"}',
    b'{"Error":"Exceeded msg rate"}',
    b'{"method":"subscribe","error":"Exceeded msg rate","success":false,"req_id":1}',
)


def close(code: int) -> Strike:
    """The server closes in good order."""

    async def strike(bench: Bench) -> None:
        bench.close(code)

    return strike


async def policy(bench: Bench) -> None:
    """Closed for something that we did: the collector stays away for a long while."""
    await bench.connected()
    attempts = bench.faults.attempts
    bench.close(1008)
    await trio.sleep(POLICY_PAUSE * 0.9)
    assert bench.faults.attempts == attempts
    bench.mended()


async def reset(bench: Bench) -> None:
    """TCP breaks."""
    bench.break_connections()
    bench.faults.reset()


async def half_open(bench: Bench) -> None:
    """The connection stays up, and nothing comes any more, pongs included."""
    await bench.connected()
    numbers = bench.faults.open_numbers
    bench.faults.go_silent()
    await bench.wait_until(lambda: not numbers & bench.faults.open_numbers, "a silent connection was not given up")
    bench.faults.lift()
    bench.mended()


async def oversize(bench: Bench) -> None:
    """A frame that is larger than any of Kraken's."""
    await bench.connected()
    numbers = bench.faults.open_numbers
    bench.break_connections()
    bench.faults.send(OVERSIZE)
    await bench.wait_until(lambda: not numbers & bench.faults.open_numbers, "a frame of 9 MiB was taken")


async def not_listening(bench: Bench) -> None:
    """The port is closed."""
    bench.faults.stop_listening()
    bench.close(1001)
    await trio.sleep(AWAY)
    bench.faults.lift()
    bench.mended()


async def not_accepting(bench: Bench) -> None:
    """Every new connection closes as soon as it is made."""
    bench.faults.refuse_connections()
    bench.close(1001)
    await trio.sleep(AWAY)
    bench.faults.lift()
    bench.mended()


def refuse_upgrade(status: int) -> Strike:
    """The edge answers the upgrade with an HTTP status, once."""

    async def strike(bench: Bench) -> None:
        bench.faults.refuse_upgrade(status, times=1)
        bench.close(1001)

    return strike


def rate_limited(answer: bytes) -> Strike:
    """The next request is one too many; every shape of that answer means to ask again later."""

    async def strike(bench: Bench) -> None:
        bench.faults.answer_with(answer)
        bench.close(1001)

    return strike


async def no_dns(bench: Bench) -> None:
    """The name cannot be resolved."""
    async with bench.expecting("disconnected", times=TRIES):
        broken = bench.tell("no-dns")
        bench.close(1001)
    broken.unlink()
    bench.mended()


async def unanswered(bench: Bench) -> None:
    """The upgrade succeeds and the first request is never answered: it is sent again."""
    bench.faults.ignore_requests(times=1)
    bench.close(1001)


async def slow_answers(bench: Bench) -> None:
    """Every request takes seconds."""
    bench.faults.delay_answers(SLOWNESS)
    bench.close(1001)
    await bench.recovered()
    bench.faults.lift()


def outage_of_matching(system: str) -> Strike:
    """The engine matches nothing, and says so; nothing comes then but heartbeats."""

    async def strike(bench: Bench) -> None:
        async with bench.holding(("book", "trade")):
            async with bench.expecting("exchange_status", system=system):
                bench.faults.set_system(system)
            await trio.sleep(QUIET)
            if system == "maintenance":
                bench.close(1001)
        bench.mended()

    return strike


FAULTS = (
    *(Fault(f"close {code}", close(code), KRAKEN, reasons=[f"closed_{code}"]) for code in (1001, 1012, 1013)),
    Fault(
        "close 1008",
        policy,
        KRAKEN | PROCESS | INSIDE,
        constants={"collector.kraken.connection:_CLOSE_PAUSES[1008]": POLICY_PAUSE},
        reasons=["closed_1008"],
    ),
    Fault("TCP reset", reset, KRAKEN, reasons=["closed_1006"]),
    Fault("half-open", half_open, KRAKEN, reasons=["silent"]),
    Fault("oversize frame", oversize, KRAKEN, reasons=["closed_1009"]),
    Fault("connections refused", not_listening, KRAKEN, reasons=["closed_1001"]),
    Fault("connections dropped", not_accepting, KRAKEN, reasons=["closed_1001"]),
    Fault("429 at the upgrade", refuse_upgrade(429), KRAKEN),
    Fault("503 at the upgrade", refuse_upgrade(503), KRAKEN),
    *(
        Fault(f"Exceeded msg rate, shape {number}", rate_limited(answer), KRAKEN)
        for number, answer in enumerate(RATE_LIMITS, 1)
    ),
    Fault("DNS failure", no_dns, KRAKEN | INSIDE, constants={}),
    Fault("request unanswered", unanswered, KRAKEN),
    Fault("answers slow", slow_answers, KRAKEN),
    Fault("maintenance", outage_of_matching("maintenance"), KRAKEN),
    Fault("post_only", outage_of_matching("post_only"), KRAKEN),
)
