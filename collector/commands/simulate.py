"""`simulate`: a simulated Kraken on this machine, for a collector to be pointed at."""

import errno
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial

import trio

from collector import exit_status
from collector.errors import first_of
from collector.kraken.server.serving import Address, serve
from collector.kraken.simulator.simulation import DEFAULT_PAIRS, DEFAULT_RATE, open_simulation

__all__ = ["DEFAULT_PAIRS", "DEFAULT_PORT", "DEFAULT_RATE", "DEFAULT_SEED", "simulate"]

DEFAULT_PORT = 8765
DEFAULT_SEED = 1

# What keeps a port from being had, as opposed to a fault in here.
_PORT_ERRORS = (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL)


def simulate(
    port: int = DEFAULT_PORT,
    pairs: Sequence[str] = DEFAULT_PAIRS,
    seed: int = DEFAULT_SEED,
    rate: float = DEFAULT_RATE,
) -> int:
    """Serve a simulated market until Ctrl-C or SIGTERM; returns the exit status.

    `rate` is how much happens in a second to the book of the first pair; the n-th pair has an n-th of it.
    """
    try:
        trio.run(_simulate, port, pairs, seed, rate)
    except* OSError as group:
        error = first_of(group)
        if not isinstance(error, OSError) or error.errno not in _PORT_ERRORS:
            raise
        print(f"port {port} cannot be used: {os.strerror(error.errno)}", file=sys.stderr)
        status = exit_status.UNUSABLE
    else:
        status = exit_status.DONE
    return status


async def _simulate(port: int, pairs: Sequence[str], seed: int, rate: float) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_simulation(pairs, seed=seed, rate=rate) as source, trio.open_nursery() as nursery:
            address: Address = await nursery.start(partial(serve, source, port=port))
            print(f"KRAKEN_WS_URL={address.ws_url}\nKRAKEN_REST_URL={address.rest_url}", flush=True)
            async for _ in signals:
                nursery.cancel_scope.cancel()
                break
