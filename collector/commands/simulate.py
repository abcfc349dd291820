"""`simulate`: a simulated Kraken on this machine, for a collector to be pointed at."""

from collections.abc import Sequence
from functools import partial

from collector.commands.serving import DEFAULT_PORT, serve_until_stopped
from collector.kraken.simulator.simulation import DEFAULT_PAIRS, DEFAULT_RATE, open_simulation

__all__ = ["DEFAULT_PAIRS", "DEFAULT_PORT", "DEFAULT_RATE", "DEFAULT_SEED", "simulate"]

DEFAULT_SEED = 1


def simulate(
    port: int = DEFAULT_PORT,
    pairs: Sequence[str] = DEFAULT_PAIRS,
    seed: int = DEFAULT_SEED,
    rate: float = DEFAULT_RATE,
) -> int:
    """Serve a simulated market until Ctrl-C or SIGTERM; returns the exit status.

    `rate` is how much happens in a second to the book of the first pair; the n-th pair has an n-th of it.
    """
    return serve_until_stopped(partial(open_simulation, pairs, seed=seed, rate=rate), port)
