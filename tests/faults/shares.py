"""Which collector holds which pair, as the database tells it, and as it should be."""

from collections.abc import Mapping
from contextlib import suppress

import psycopg
import trio
from faults.bench import Bench
from faults.worker import Worker

from collector.members import Member, owners
from collector.storage.members import LIVING

MEMBERS = f"SELECT member, name, patterns, is_available, pairs FROM collector_members WHERE {LIVING}"
HELD = """
SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database
WHERE locktype = 'advisory' AND granted AND datname = current_database()
"""
LOOK_INTERVAL = 0.1  # seconds


async def shares(bench: Bench) -> Mapping[int, frozenset[str]] | None:
    """By process id, the pairs of each collector; None while they are not divided as they should be.

    They are when each pair is collected by the one to which the hashing gives it, and by no other, and is locked.
    """
    with suppress(psycopg.OperationalError, psycopg.errors.UndefinedTable):  # it is away, or has only been started
        rows = await bench.query(MEMBERS)
        ((locks,),) = await bench.query(HELD)
        members = [Member(identity, tuple(patterns), available) for identity, _, patterns, available, _ in rows]
        due = {member.identity: set[str]() for member in members}
        for pair, owner in owners(bench.pairs, members).items():
            due[owner].add(pair)
        if all(due[member] == set(pairs) for member, *_, pairs in rows) and locks == len(bench.pairs):
            return {int(name.rpartition(":")[2]): frozenset(pairs) for _, name, _, _, pairs in rows}
    return None


async def divided(bench: Bench, *workers: Worker) -> Mapping[Worker, frozenset[str]]:
    """Wait until these collectors, and no others, have all pairs divided among themselves; return the shares."""
    processes = {worker.process.pid: worker for worker in workers}
    found: Mapping[int, frozenset[str]] | None = None
    deadline = trio.current_time() + bench.deadline
    while found is None or found.keys() != processes.keys():
        assert trio.current_time() < deadline, f"the pairs are not divided within {bench.deadline:g} s: {found}"
        await trio.sleep(LOOK_INTERVAL)
        found = await shares(bench)
    return {processes[process]: pairs for process, pairs in found.items()}


async def busiest(bench: Bench, *workers: Worker) -> Worker:
    """That one of some collectors that has the most pairs, once they have divided them."""
    found = await divided(bench, *workers)
    return max(workers, key=lambda worker: len(found[worker]))
