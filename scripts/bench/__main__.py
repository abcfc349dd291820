"""Runs the whole benchmark and prints its tables; see bench.sh."""

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from embedded import EmbeddedPostgres, EmbeddedRedis, open_temporary_folder, postgres, redis_server
from rich.console import Console

from bench.contestants import COLLECTOR, Contestant, collector, cryptofeed
from bench.cryptofeed_environment import find_environment
from bench.latency import Latency, measure_latency
from bench.processes import PROJECT, BenchError
from bench.report import comparison, latency_table, medians, ratios, stage_table, storage_table
from bench.stages import measure_stages
from bench.tape import Tape, make_tape
from bench.throughput import Run, new_database, run

CACHE = PROJECT / ".bench"
RESULTS = CACHE / "results.json"
MESSAGES = 100_001
PAIR, DEPTH = "BTC/USD", 1000
RUNS = 3  # of each contestant, by turns
# Messages a second, and for how many seconds: a quiet market (49.3 were measured on BTC/USD at depth 100), ten times
# that, and a busy one.
LATENCY_RUNS = {50.0: 20.0, 500.0: 60.0, 1000.0: 20.0}
WIDTH = 110  # columns: no table is wider, and none is folded where the output is a file

# Commit times are kept, to be asked for; vacuum is off, so that it does not come in one run and not in another; and no
# checkpoint falls into a run.
POSTGRES = {"track_commit_timestamp": "on", "autovacuum": "off", "max_wal_size": "8GB", "checkpoint_timeout": "1h"}


def find_contestants(console: Console) -> list[Contestant]:
    """The collector, and cryptofeed where it can be had."""
    python = find_environment(CACHE)
    if isinstance(python, str):
        console.print(f"cryptofeed is left out: {python}.")
        return [collector()]
    return [collector(), cryptofeed(python)]


def machine() -> str:
    """What the figures were measured on, and what else it was doing."""
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} processors, load average {load:.1f} at the start, Python {platform.python_version()}"


def run_by_turns(
    contestants: Sequence[Contestant], tape: Tape, server: EmbeddedPostgres, console: Console
) -> dict[str, list[Run]]:
    """The runs of each contestant."""
    runs: dict[str, list[Run]] = {contestant.name: [] for contestant in contestants}
    for number in range(1, RUNS + 1):
        for name, contestant in zip(runs, contestants, strict=True):
            result = run(contestant, tape, server, "throughput")
            runs[name].append(result)
            console.print(f"Run {number} of {name}: {result.messages_a_second:,.0f} messages/s")
    return runs


def run_at_rates(server: EmbeddedPostgres, redis: EmbeddedRedis, folder: Path, console: Console) -> list[Latency]:
    """The collector's latency at each rate."""
    latencies: list[Latency] = []
    for rate, seconds in LATENCY_RUNS.items():
        tape = make_tape(folder / "latency.frames", [PAIR], DEPTH, round(rate * seconds), rate)
        latencies.append(measure_latency(tape, rate, server, redis))
        console.print(f"Run at {rate:g} messages/s for {seconds:g} s")
    return latencies


def as_json(
    where: str, tape: Tape, runs: Mapping[str, Sequence[Run]], stages: Mapping[str, float], latencies: Sequence[Latency]
) -> bytes:
    """Everything that was measured."""
    return json.dumps(
        {
            "machine": where,
            "feed": {
                "pairs": tape.pairs,
                "depth": tape.depth,
                "messages": tape.messages,
                "book_updates": tape.book_updates,
                "trades": tape.trades,
            },
            "runs": {name: [asdict(result) for result in of_one] for name, of_one in runs.items()},
            "medians": {name: medians(of_one) for name, of_one in runs.items()},
            "ratios": ratios(runs),
            "stages_cpu_microseconds": stages,
            "latency_milliseconds": [asdict(latency) for latency in latencies],
        },
        indent=2,
    ).encode()


def main() -> int:
    """Measure, print and write down; return the exit status."""
    console = Console(width=WIDTH, highlight=False)
    CACHE.mkdir(exist_ok=True)
    console.print(where := machine())
    contestants = find_contestants(console)
    try:
        with (
            open_temporary_folder() as folder,
            postgres(folder / "data", **POSTGRES) as server,
            redis_server() as redis,
        ):
            tape = make_tape(folder / "throughput.frames", [PAIR], DEPTH, MESSAGES)
            console.print(
                f"The feed: {tape.messages:,} messages of {PAIR} at depth {DEPTH},"
                f" {tape.book_updates:,} book updates and {tape.trades:,} trades. Every run must store them all."
            )
            runs = run_by_turns(contestants, tape, server, console)
            with new_database(server, "stages") as url:
                stages = measure_stages(tape, url, redis.url, folder / "spool")
            latencies = run_at_rates(server, redis, folder, console)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    console.print(comparison(runs))
    console.print(stage_table(stages, medians(runs[COLLECTOR])["cpu_microseconds"]))
    console.print(latency_table(latencies))
    console.print(storage_table(runs))
    RESULTS.write_bytes(as_json(where, tape, runs, stages, latencies))
    console.print(f"All of it as JSON: {RESULTS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
