"""A stored market with a hole in it, and replays of it."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import NamedTuple

import simulated_store

from collector.kraken.simulator.simulation import Simulation
from collector.replay.market import read_market
from collector.replay.readers import Readers
from collector.replay.source import ReplaySource
from collector.storage.database import connect

EARLIEST, LATEST = datetime(2013, 1, 1), datetime(2100, 1, 1)  # noqa: DTZ001 - UTC without zone, like the columns
HOLE_STEPS = 2000  # half a minute of the market, longer than what counts as one disconnect
SECOND_CHAINS = 1000  # chains behind the hole have higher numbers than those before


class Tape(NamedTuple):
    """What was recorded before and after a hole, and the database that holds it."""

    url: str
    before: list[bytes]
    after: list[bytes]


def market_with_hole(pairs: Sequence[str], depth: int, seed: int, count: int) -> tuple[list[bytes], list[bytes]]:
    """Frames of a simulated market: two times snapshots of all pairs and `count` steps, and a hole in between."""
    simulation = Simulation(pairs, seed=seed, depths=[depth])
    parts = []
    for _ in range(2):
        frames = [market.snapshot(depth) for market in simulation.markets.values()]
        for _, step in (simulation.next_step() for _ in range(count)):
            frames += [frame for frame in (step.trades, step.books.get(depth)) if frame is not None]
        parts.append(frames)
        for _ in range(HOLE_STEPS):
            simulation.next_step()
    return parts[0], parts[1]


def store_tape(url: str, pairs: Sequence[str], depth: int, *, seed: int = 1, count: int = 1500) -> Tape:
    """Store such a market as the collector stores it."""
    before, after = market_with_hole(pairs, depth, seed, count)
    simulated_store.store(url, simulated_store.records_of(before, pairs, depth))
    simulated_store.store(url, simulated_store.records_of(after, pairs, depth, chain=SECOND_CHAINS), segment=2)
    return Tape(url, before, after)


@asynccontextmanager
async def open_replay(
    url: str,
    speed: float | None = None,
    *,
    since: datetime = EARLIEST,
    until: datetime = LATEST,
    pairs: Iterable[str] | None = None,
    loop: bool = False,
) -> AsyncIterator[ReplaySource]:
    """A replay of what a database holds."""
    with connect(url, application_name="tests") as connection:
        market = read_market(connection, None if pairs is None else list(pairs), since, until)
    assert market is not None
    readers = Readers(url)
    try:
        yield ReplaySource(market, readers, speed, loop=loop)
    finally:
        readers.close()
