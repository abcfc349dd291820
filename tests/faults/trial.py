"""Trying a fault, from a collector's start to its orderly stop, with every row accounted for."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import trio
from faults.accounting import Account, account
from faults.bench import Bench
from faults.fault import Fault
from faults.table import Line
from faults.worker import LOG_TAIL, peak

ATTEMPTS_LIMIT = 150  # attempts to connect in 10 minutes, beyond which Kraken's edge bans an address

# MB that a collector may take at the most, whatever happens: two pairs take 70, the largest message that is accepted
# 8. What would wait in memory for a database, a Redis or a disk comes to more within these tests.
MEMORY_LIMIT = 100.0

TryFaults: TypeAlias = Callable[[Sequence[Fault]], Awaitable[None]]


async def try_fault(fault: Fault, bench: Bench, note: Callable[[Line], None]) -> None:
    """Start a collector, let the fault happen, wait for the recovery, stop, and account for every row.

    `note` is given the line of the table, also when something was lost.
    """
    bench.environment |= fault.environment
    bench.constants = fault.constants
    try:
        if fault.starts:
            await bench.warm_up()
        bench.mended()
        await fault.strike(bench)
        await bench.recovered()
        result = await finish(fault.name, bench, note)
        missing = set(fault.reasons) - result.reasons.keys()
        assert not missing, f"coverage tells {dict(result.reasons)}"
    except BaseException as error:
        for worker in bench.workers:
            error.add_note(f"log of process {worker.process.pid}:\n{worker.log.text[-LOG_TAIL:]}")
        raise


async def finish(name: str, bench: Bench, note: Callable[[Line], None]) -> Account:
    """Stop the collectors in good order, account for every row, and note the line of the table.

    Raises:
        AssertionError: something was lost or stored twice, or coverage or memory is not as it must be.

    """
    await bench.stop()
    result = await trio.to_thread.run_sync(account, bench.database_url, bench.log, bench.exemptions)
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(result.reasons.items()))
    note(
        Line(
            name,
            bench.log.count(),
            result.expected,
            result.stored,
            result.lost,
            result.unread,
            result.duplicates,
            reasons,
            bench.seconds,
            peak(bench.workers),
        )
    )
    assert not result.problems, f"{name}: " + "\n".join(result.problems)
    assert not result.lost
    assert not result.duplicates
    assert peak(bench.workers) < MEMORY_LIMIT
    assert bench.faults.most_attempts() < ATTEMPTS_LIMIT
    return result
