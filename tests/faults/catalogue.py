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

GROUPS: dict[str, tuple[Fault, ...]] = {
    "connections": connections.FAULTS,
    "messages": messages.FAULTS,
    "database": database.FAULTS,
    "redis": redis_server.FAULTS,
    "process": process.FAULTS,
    "spool": spool.FAULTS,
    "lost segments": lost_segments.FAULTS,
    "takeover": takeover.FAULTS,
    "lost spools": takeover.LOST_SPOOLS,
    "three workers": fleet.FAULTS,
}


def mixable() -> list[Fault]:
    """The faults that can strike one collector in any order, also while others last."""
    return [fault for faults in GROUPS.values() for fault in faults if not fault.suite_only]
