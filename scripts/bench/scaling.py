"""How the collector does with many pairs in one process, and over a million messages; see scaling.sh."""

import json
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import psycopg
from embedded import EmbeddedPostgres, EmbeddedRedis, open_temporary_folder, postgres, redis_server
from rich.console import Console
from rich.table import Table

from bench.__main__ import CACHE, DEPTH, PAIR, POSTGRES, WIDTH
from bench.contestants import collector
from bench.processes import BenchError, open_frame_server, resident_megabytes, wait_until_settled
from bench.report import FIGURES, new_table
from bench.stages import measure_stages
from bench.tape import Tape, make_tape
from bench.throughput import Run, check_stored, new_database, run, running, wait_until_quiet

RESULTS = CACHE / "scaling.json"
PAIR_COUNTS = (1, 10, 100, 700)
DEPTHS = (10, 100)
MESSAGES = 60_000  # of all pairs together
LONG_MESSAGES = 1_000_000
LONG_RATE = 2_000.0  # steps a second of the long tape's market, so that all of it is of one day
SAMPLE_INTERVAL = 1.0  # seconds
LOOKS = 5  # at the memory of a long run, from its beginning to its end


@dataclass(frozen=True, slots=True)
class Scale:
    """A run with some pairs, each of which has a book of this depth, and what the stages alone take of that feed."""

    pairs: int
    depth: int
    run: Run
    stages_cpu_microseconds: dict[str, float]


def pair_names(count: int) -> list[str]:
    """The busiest pair, and as many that do not exist as are wanted."""
    return [PAIR, *(f"P{number:03d}/USD" for number in range(1, count))]


def measure_scales(server: EmbeddedPostgres, redis: EmbeddedRedis, folder: Path, console: Console) -> list[Scale]:
    """A run for each number of pairs and each depth."""
    scales: list[Scale] = []
    for depth in DEPTHS:
        for count in PAIR_COUNTS:
            tape = make_tape(folder / "scaling.frames", pair_names(count), depth, MESSAGES)
            whole = run(collector(), tape, server, "scaling")
            with new_database(server, "stages") as url:
                stages = measure_stages(tape, url, redis.url, folder / f"spool-{len(scales)}")
            scales.append(Scale(count, depth, whole, stages))
            console.print(f"Run with {count} pairs at depth {depth}")
    return scales


def watch_memory(tape: Tape, server: EmbeddedPostgres) -> list[float]:
    """Memory in MiB, sampled from before the first frame of a tape until its last row is stored."""
    with new_database(server, "memory") as url, psycopg.connect(url, autocommit=True) as connection:
        contestant = collector()
        contestant.prepare(url)
        with (
            open_frame_server(tape) as frames,
            running(contestant, tape, url, frames.port) as process,
        ):
            frames.wait_subscribed()
            wait_until_settled(process)
            samples, stored = [resident_megabytes(process)], threading.Event()
            sampler = threading.Thread(target=sample, args=(process, samples, stored))
            sampler.start()
            try:
                frames.go()
                wait_until_quiet(connection)
            finally:
                stored.set()
                sampler.join()
            check_stored(connection, contestant, tape)
    return samples


def sample(process: psutil.Process, samples: list[float], stored: threading.Event) -> None:
    """Add a sample of a process's memory, again and again until all is stored."""
    while not stored.wait(SAMPLE_INTERVAL):
        samples.append(resident_megabytes(process))


def scale_table(scales: Sequence[Scale]) -> Table:
    """The runs, one a line."""
    labels = {figure: label for figure, (label, _) in FIGURES.items()}
    table = new_table(f"One process, {MESSAGES:,} messages of all pairs together", "pairs", "depth", *labels.values())
    for scale in scales:
        figures = [form.format(getattr(scale.run, figure)) for figure, (_, form) in FIGURES.items()]
        table.add_row(f"{scale.pairs}", f"{scale.depth}", *figures)
    return table


def stages_table(scales: Sequence[Scale]) -> Table:
    """What the stages take, each alone, by the number of pairs and the depth."""
    columns = (f"{scale.pairs} × {scale.depth}" for scale in scales)  # noqa: RUF001 - as it is written
    table = new_table("CPU of the stages, µs a message, by pairs and depth", "", *columns)
    for stage in scales[0].stages_cpu_microseconds:
        table.add_row(stage, *(f"{scale.stages_cpu_microseconds[stage]:.1f}" for scale in scales))
    return table


def memory_table(samples: Sequence[float]) -> Table:
    """Some of the samples, evenly spread, and the most of them."""
    shares = [look / (LOOKS - 1) for look in range(LOOKS)]
    table = new_table(f"Memory over {LONG_MESSAGES:,} messages, MiB", "", *(f"{share:.0%}" for share in shares), "most")
    looks = [samples[round(share * (len(samples) - 1))] for share in shares]
    table.add_row("of the time", *(f"{megabytes:.1f}" for megabytes in (*looks, max(samples))))
    return table


def main() -> int:
    """Measure, print and write down; return the exit status."""
    console = Console(width=WIDTH, highlight=False)
    CACHE.mkdir(exist_ok=True)
    try:
        with (
            open_temporary_folder() as folder,
            postgres(folder / "data", **POSTGRES) as server,
            redis_server() as redis,
        ):
            scales = measure_scales(server, redis, folder, console)
            tape = make_tape(folder / "memory.frames", [PAIR], DEPTH, LONG_MESSAGES, LONG_RATE)
            samples = watch_memory(tape, server)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    console.print(scale_table(scales))
    console.print(stages_table(scales))
    console.print(memory_table(samples))
    RESULTS.write_text(
        json.dumps({"scaling": [asdict(scale) for scale in scales], "memory_megabytes": samples}, indent=2)
    )
    console.print(f"All of it as JSON: {RESULTS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
