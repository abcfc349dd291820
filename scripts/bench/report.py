"""What was measured, for a person as tables and for a program as JSON."""

from collections.abc import Mapping, Sequence
from statistics import median

from rich import box
from rich.table import Table

from bench.contestants import COLLECTOR
from bench.latency import Latency
from bench.throughput import Run

# Figure: what a person reads, how to write it.
FIGURES = {
    "messages_a_second": ("messages/s to the last commit", "{:,.0f}"),
    "cpu_microseconds": ("CPU a message, µs", "{:.1f}"),
    "peak_megabytes": ("peak memory, MiB", "{:.1f}"),
    "bytes_an_update": ("disk a book update, bytes", "{:.1f}"),
}

BUSY_PAIR = "BTC/USD"
# Book messages a second: measured at depth 100 on a quiet Sunday of 2026; no figure is known for depth 1000.
UPDATE_RATES = {49.3: "quiet, as measured", 493.0: "ten times that"}
SECONDS_A_DAY = 86_400


def medians(runs: Sequence[Run]) -> dict[str, float]:
    """The median of each figure."""
    return {figure: median(getattr(run, figure) for run in runs) for figure in FIGURES}


def ratios(runs: Mapping[str, Sequence[Run]]) -> dict[str, float]:
    """The collector's medians by those of the other contestant; empty where it ran alone."""
    ours = medians(runs[COLLECTOR])
    return {
        figure: ours[figure] / value
        for name, of_one in runs.items()
        if name != COLLECTOR
        for figure, value in medians(of_one).items()
    }


def comparison(runs: Mapping[str, Sequence[Run]]) -> Table:
    """The contestants side by side: medians with the least and the most, and the ratio of the medians."""
    table = new_table(f"Throughput, medians of {len(runs[COLLECTOR])} runs each (least, most)", "", *runs, "ratio")
    ratio = ratios(runs)
    for figure, (label, form) in FIGURES.items():
        cells = []
        for of_one in runs.values():
            values = [getattr(run, figure) for run in of_one]
            middle, least, most = (form.format(value) for value in (median(values), min(values), max(values)))
            cells.append(f"{middle} ({least}, {most})")
        table.add_row(label, *cells, f"{ratio[figure]:.2f}" if ratio else "")
    return table


def stage_table(stages: Mapping[str, float], cpu_microseconds: float) -> Table:
    """What each stage takes of a whole collector's CPU; Redis is beside it, since those runs do without."""
    table = new_table("CPU of the stages, each alone over the same frames", "", "µs a message", "share")
    for stage, microseconds in stages.items():
        share = "beside it" if stage == "Redis" else f"{microseconds / cpu_microseconds:.0%}"
        table.add_row(stage, f"{microseconds:.1f}", share)
    rest = cpu_microseconds - sum(microseconds for stage, microseconds in stages.items() if stage != "Redis")
    table.add_row("tasks, channels, threads: the rest", f"{rest:.1f}", f"{rest / cpu_microseconds:.0%}")
    beyond = cpu_microseconds - stages["transport"]
    table.add_row("all but the transport", f"{beyond:.1f}", f"{beyond / cpu_microseconds:.0%}")
    return table


def latency_table(latencies: Sequence[Latency]) -> Table:
    """How long rows take, at each rate."""
    title = "Latency from the sending of a frame, ms"
    table = new_table(title, "messages/s", "for", "to", "p50", "p99", "max", "missed")
    for latency in latencies:
        first = (f"{latency.rate:,.0f}", f"{latency.seconds:.0f} s")
        for place, spread, missed in (
            ("Redis subscriber", latency.to_subscriber, str(latency.missed)),
            ("commit (commit timestamp)", latency.to_commit, "0"),
        ):
            table.add_row(*first, place, f"{spread.p50:.1f}", f"{spread.p99:.1f}", f"{spread.max:.1f}", missed)
            first = ("", "")
    return table


def storage_table(runs: Mapping[str, Sequence[Run]]) -> Table:
    """What a day of the book takes on disk, by the bytes of an update."""
    table = new_table(f"Disk for a day of a book of {BUSY_PAIR}, GB", "book updates/s", *runs)
    for rate, label in UPDATE_RATES.items():
        table.add_row(
            f"{rate:g} ({label})",
            *(f"{medians(of_one)['bytes_an_update'] * rate * SECONDS_A_DAY / 1e9:.2f}" for of_one in runs.values()),
        )
    return table


def new_table(title: str, *columns: str) -> Table:
    """An empty table whose first column is text and the others numbers."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table
