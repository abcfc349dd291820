"""The market that is collected, and a Kraken that counts how often it was tried."""

import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio
from faults.sent import DEPTH

from collector.kraken.server.faults import Faults
from collector.kraken.simulator.simulation import SimulatedSource, Simulation

PAIRS = ("BTC/USD", "ETH/USD")
RATE = 1500.0  # steps a second of the first pair, a third of which show in ten levels; the second pair has half of it
SEED = 20
ATTEMPTS_WINDOW = 600.0  # seconds over which Kraken's edge counts attempts to connect


class CountingFaults(Faults):
    """Faults that note the attempts to connect, whatever became of them."""

    def __init__(self) -> None:
        super().__init__()
        self._attempts: list[float] = []

    @property
    def attempts(self) -> int:
        """How many there were."""
        return len(self._attempts)

    def most_attempts(self) -> int:
        """The most that there were in any stretch of the length that Kraken's edge looks at."""
        return max(bisect_right(self._attempts, start + ATTEMPTS_WINDOW) - n for n, start in enumerate(self._attempts))

    @property
    def open_numbers(self) -> set[int]:
        """The numbers of the open connections."""
        return {connection.number for connection in self.connections}

    def upgrade_status(self) -> int | None:
        """Called once for each attempt."""
        self._attempts.append(time.monotonic())
        return super().upgrade_status()


@asynccontextmanager
async def open_market(
    rate: float = RATE, seed: int = SEED, pairs: Sequence[str] = PAIRS
) -> AsyncIterator[SimulatedSource]:
    """A live market, for any number of servers, with books of one depth."""
    source = SimulatedSource(Simulation(pairs, seed=seed, start=time.time_ns(), rate=rate, depths=[DEPTH]))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.run)
        yield source
        nursery.cancel_scope.cancel()
