"""The metrics: named by Prometheus' conventions, readable by its own parser, and equal to what was counted."""

import re

import pytest
from exposed import made
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric

from collector.metrics import PREFIX
from collector.statistics import LATENCY_BOUNDS, Latency, PairStatistics, Statistics

UNITS = ("_seconds", "_bytes")
# Gauges without a unit: counts of things that are there, and states.
PLAIN = {"watched", "missing_trades", "spool_segments", "spool_rows", "intake"}


def values(metric: Metric) -> dict[tuple[str, ...], float]:
    return {tuple(sample.labels.values()): sample.value for sample in metric.samples}


def test_names_follow_the_conventions() -> None:
    """Prevents a name without its unit, a counter that looks like a gauge, and a metric that nobody explained."""
    for name, metric in made().items():
        assert re.fullmatch(rf"{PREFIX}[a-z]+(_[a-z]+)*", name)
        assert metric.documentation.endswith(".")
        names = {sample.name for sample in metric.samples}
        match metric.type:
            case "counter":
                assert names <= {f"{name}_total"}
            case "histogram":
                assert name.endswith("_seconds")
                assert names == {f"{name}_bucket", f"{name}_count", f"{name}_sum"}
            case "gauge":
                assert name.endswith(UNITS) != (name.removeprefix(PREFIX) in PLAIN)
                assert names <= {name}
        assert {label for sample in metric.samples for label in sample.labels} <= {"pair", "channel", "reason", "le"}


def test_every_counter_is_told() -> None:
    """Prevents a figure from being kept and never shown, or shown under another's name."""
    statistics = Statistics(
        frames=1,
        rows=2,
        stored_rows=3,
        shipped_segments=4,
        connections=5,
        unknown=6,
        published=7,
        unpublished=8,
        repaired_trades=9,
        absent_trades=10,
    )
    statistics.group.count = 11
    told = {
        name.removeprefix(PREFIX): values(metric)[()]
        for name, metric in made(statistics).items()
        if metric.type == "counter" and () in values(metric)
    }
    assert told == {
        "frames": 1,
        "spooled_rows": 2,
        "committed_rows": 3,
        "committed_segments": 4,
        "connections": 5,
        "unknown_messages": 6,
        "published_messages": 7,
        "unpublished_messages": 8,
        "repaired_trades": 9,
        "absent_trades": 10,
        "group_starts": 11,
    }


def test_counts_by_pair_are_told_by_pair() -> None:
    """Prevents one pair's failures from being added to another's, and the first one from not being seen as a rise."""
    statistics = Statistics(pairs={"BTC/USD": PairStatistics(), "ETH/USD": PairStatistics()})
    statistics.pairs["ETH/USD"].desyncs.update(["checksum", "checksum", "closed"])
    statistics.missing_trades["BTC/USD"] = 3
    statistics.malformed["book"] = 4
    told = made(statistics)
    assert values(told[f"{PREFIX}desyncs"]) == {
        ("BTC/USD", "checksum"): 0,
        ("ETH/USD", "checksum"): 2,
        ("ETH/USD", "closed"): 1,
    }
    assert values(told[f"{PREFIX}missing_trades"]) == {("BTC/USD",): 3, ("ETH/USD",): 0}
    assert values(told[f"{PREFIX}malformed_messages"]) == {("book",): 4, ("trade",): 0}


def test_what_is_watched() -> None:
    """Prevents a pair that nothing comes of from being told by its absence alone, which no alert sees."""
    told = made()
    assert values(told[f"{PREFIX}watched"]) == {
        ("BTC/USD", "book"): 1,
        ("BTC/USD", "trade"): 0,
        ("ETH/USD", "book"): 0,
        ("ETH/USD", "trade"): 0,
    }
    assert values(told[f"{PREFIX}message_age_seconds"]) == {("BTC/USD", "book"): 5.0}
    assert values(told[f"{PREFIX}run_rows"]) == {("BTC/USD", "book"): 42}
    assert set(values(made(watched=False)[f"{PREFIX}watched"]).values()) == {0}
    assert values(told[f"{PREFIX}intake"]) == {("book",): 1, ("trade",): 1}
    assert values(told[f"{PREFIX}spool_limit_bytes"])[()] == 2**30


@given(st.lists(st.floats(0, 1000)))
def test_histogram_counts_each_latency_once(seconds: list[float]) -> None:
    """Prevents a latency from being counted in another class than its own, or a sum that is not theirs."""
    statistics = Statistics(commit_latency=Latency())
    for latency in seconds:
        statistics.commit_latency.observe(latency)
    samples = made(statistics)[f"{PREFIX}commit_latency_seconds"].samples
    counted = {sample.labels["le"]: sample.value for sample in samples if sample.name.endswith("_bucket")}
    assert list(map(float, counted)) == [*LATENCY_BOUNDS, float("inf")]
    assert all(count == sum(latency <= float(end) for latency in seconds) for end, count in counted.items())
    sums = {sample.name.rpartition("_")[2]: sample.value for sample in samples}
    assert sums["count"] == len(seconds)
    assert sums["sum"] == pytest.approx(sum(seconds))
