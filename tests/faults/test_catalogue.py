"""The catalogue: one definition of each fault, and all that the soak mixes can be had at once."""

from pathlib import Path

import trio
from faults.bench import Bench
from faults.catalogue import GROUPS, mixable
from soak import prepare


def test_names_are_unique() -> None:
    """Two faults of a name could not be told apart in the tables, and one could be defined twice."""
    names = [fault.name for faults in GROUPS.values() for fault in faults]
    assert len(names) == len(set(names))


async def test_what_is_mixed_can_be_had_at_once(tmp_path: Path, nursery: trio.Nursery) -> None:
    """Half an hour of breaking things would begin with two faults that want one setting to be different."""
    bench = Bench(tmp_path, "postgresql://postgres@127.0.0.1:1/none", None, nursery)
    prepare(bench, mixable())
    assert bench.constants is not None
    assert all(fault.environment.items() <= bench.environment.items() for fault in mixable())
    assert all((fault.constants or {}).items() <= bench.constants.items() for fault in mixable())
