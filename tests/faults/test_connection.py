"""Connections to Kraken that end, hang or cannot be made: each end is in coverage, and nothing delivered is lost."""

from datetime import timedelta

import trio
from faults.bench import Bench
from faults.injections import CLOSES, close, half_open, no_dns, refuse_connections, refuse_upgrade, reset
from faults.trial import Trial, TryFaults

POLICY_PAUSE = 4.0  # seconds; the collector's own is 5 minutes, too long for a test
QUIET = 3.0  # seconds
OVERSIZE = b'{"channel":"' + b"x" * (9 * 2**20) + b'"}'


async def policy(bench: Bench) -> None:
    """Closed for something that we did: the collector stays away for a long while."""
    attempts = bench.faults.attempts
    bench.close(1008)
    await trio.sleep(POLICY_PAUSE * 0.9)
    assert bench.faults.attempts == attempts


async def oversize(bench: Bench) -> None:
    """A frame that is larger than any of Kraken's."""
    bench.break_connections()
    bench.faults.send(OVERSIZE)
    await bench.worker.wait_for("disconnected")


async def not_listening(bench: Bench) -> None:
    """The port is closed."""
    bench.faults.stop_listening()
    bench.close(1001)
    await trio.sleep(3)
    bench.faults.lift()
    bench.mended()


async def unanswered(bench: Bench) -> None:
    """The upgrade succeeds and the first request is never answered: it is sent again."""
    bench.faults.ignore_requests(times=1)
    bench.close(1001)


async def slow_answers(bench: Bench) -> None:
    """Every request takes seconds."""
    bench.faults.delay_answers(2.0)
    bench.close(1001)
    await bench.recovered()
    bench.faults.lift()


async def outage_of_matching(bench: Bench, system: str) -> None:
    """The engine matches nothing, and says so; nothing comes then but heartbeats."""
    bench.faults.set_system(system)
    bench.hold_market()
    await trio.sleep(QUIET)
    assert system in [event["system"] for event in bench.worker.events("exchange_status")]
    bench.faults.lift()
    bench.exemptions.end_tolerance += timedelta(seconds=QUIET)  # heartbeats prove that nothing was missed
    bench.mended()


async def maintenance(bench: Bench) -> None:
    """Offline, and closed in the middle of it."""
    await outage_of_matching(bench, "maintenance")
    bench.close(1001)


async def post_only(bench: Bench) -> None:
    """On the way back."""
    await outage_of_matching(bench, "post_only")


async def test_connections(try_faults: TryFaults) -> None:
    """A connection that ends in any way would leave a hole that nobody knows of, or end the collector."""
    await try_faults(
        [Trial(f"close {code}", close(code), reasons=[f"closed_{code}"]) for code in CLOSES]
        + [
            Trial(
                "close 1008",
                policy,
                constants={"collector.kraken.connection:_CLOSE_PAUSES[1008]": POLICY_PAUSE},
                reasons=["closed_1008"],
            ),
            Trial("TCP reset", reset, reasons=["closed_1006"]),
            Trial("half-open", half_open, reasons=["silent"]),
            Trial("oversize frame", oversize, reasons=["closed_1009"]),
            Trial("connections refused", not_listening, reasons=["closed_1001"]),
            Trial("connections dropped", refuse_connections, reasons=["closed_1001"]),
            Trial("429 at the upgrade", refuse_upgrade(429)),
            Trial("503 at the upgrade", refuse_upgrade(503)),
            Trial("DNS failure", no_dns, constants={}),
            Trial("request unanswered", unanswered),
            Trial("answers slow", slow_answers),
            Trial("maintenance", maintenance),
            Trial("post_only", post_only),
        ]
    )
