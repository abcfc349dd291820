"""What a fault is: how it strikes, what it breaks meanwhile, and what a collector must be like to be struck."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

from faults.bench import Bench
from faults.market import PAIRS

# What a fault breaks, or needs for itself: two that share one of these are never tried at the same time. `inside` is
# what the launcher does within a process, `process` its start and end.
System: TypeAlias = Literal["kraken", "database", "redis", "process", "inside"]
Service: TypeAlias = Literal["own server", "database proxy", "redis"]

KRAKEN: frozenset[System] = frozenset({"kraken"})
DATABASE: frozenset[System] = frozenset({"database"})
REDIS: frozenset[System] = frozenset({"redis"})
PROCESS: frozenset[System] = frozenset({"process"})
INSIDE: frozenset[System] = frozenset({"inside"})
EVERYTHING = KRAKEN | DATABASE | REDIS | PROCESS | INSIDE

Strike: TypeAlias = Callable[[Bench], Awaitable[None]]


class Fault(NamedTuple):
    """A fault of the catalogue.

    `strike` breaks something under way and mends it again; where `starts` is False, it starts the collector itself.
    It needs a collector with this `environment` and these `constants` (see launcher.py; None: without the launcher),
    and these services of its own. `reasons` are ends of runs that coverage must tell when it struck alone.
    `suite_only` tells why a long run of many faults cannot have it; empty where it can. It needs a market of these
    `pairs`, and strikes this many `collectors`.
    """

    name: str
    strike: Strike
    breaks: frozenset[System]
    reasons: Sequence[str] = ()
    environment: Mapping[str, str] = {}
    constants: Mapping[str, object] | None = None
    needs: frozenset[Service] = frozenset()
    starts: bool = True
    suite_only: str = ""
    pairs: Sequence[str] = PAIRS
    collectors: int = 1
