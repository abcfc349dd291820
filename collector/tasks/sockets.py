"""The sockets: as many connections to Kraken as the pairs need, each on its own.

The loss of one touches its own pairs only, and each reconnects by itself. They share the budget of attempts, which
Kraken counts by address.
"""

from contextlib import aclosing

import trio

from collector.assignment import Assignment, Share
from collector.feed import FeedEvent, ResyncRequests
from collector.settings import Settings
from collector.spread import Spread
from collector.statistics import Statistics
from collector.tasks.socket import Attempts, run_socket


async def run_sockets(
    settings: Settings,
    assignment: Assignment,
    events: trio.MemorySendChannel[FeedEvent],
    resyncs: ResyncRequests,
    attempts: Attempts,
    statistics: Statistics,
) -> None:
    """Collect the pairs of an assignment, as it changes, for ever."""
    spread = Spread()
    shares: dict[int, Share] = {}
    async with trio.open_nursery() as nursery, aclosing(assignment.pairs.eventual_values()) as changes:
        async for pairs in changes:
            for socket, of_socket in spread.divide(pairs).items():
                if socket in shares:
                    shares[socket].pairs.value = of_socket
                else:
                    shares[socket] = share = Share(assignment, of_socket)
                    nursery.start_soon(run_socket, settings, socket, share, events, resyncs, attempts, statistics)
