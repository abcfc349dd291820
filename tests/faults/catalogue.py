"""Every fault there is: the tests try each once, and alone; the soak draws from those that can be mixed."""

from faults.fault import Fault
from faults.injections import (
    connections,
    database,
    fleet,
    lost_segments,
    messages,
    process,
    redis_server,
    spool,
    takeover,
)

# By what is at fault, in groups large enough that the tests of one seldom wait for its last.
GROUPS: dict[str, tuple[Fault, ...]] = {
    "kraken": (*connections.FAULTS, *messages.FAULTS),
    "services": (*database.FAULTS, *redis_server.FAULTS),
    "collector": (*process.FAULTS, *spool.FAULTS, *lost_segments.FAULTS),
    "takeover": (*takeover.FAULTS, *takeover.LOST_SPOOLS),
    "three workers": fleet.FAULTS,
}


def mixable() -> list[Fault]:
    """The faults that can strike one collector in any order, also while others last."""
    return [fault for faults in GROUPS.values() for fault in faults if not fault.suite_only]
