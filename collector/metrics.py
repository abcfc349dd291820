"""A running collector's figures as Prometheus metrics, made when somebody asks for them.

Nothing is counted twice: the tasks keep plain counters (statistics.py), and what is a state is read where it is. Names
follow Prometheus' conventions: base units, `_total` for what only rises, one label for each thing to add up by.
"""

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString

from collector.assignment import CHANNELS
from collector.health import Running
from collector.statistics import LATENCY_BOUNDS, Latency

PREFIX = "kraken_collector_"


def metrics(running: Running, now: float) -> Iterator[Metric]:
    """The metrics of a collector at the monotonic time `now`."""
    yield from _of_the_feed(running)
    yield from _of_pairs(running)
    yield from _of_storage(running, now)
    yield from _of_redis(running)


def _of_the_feed(running: Running) -> Iterator[Metric]:
    statistics = running.statistics
    yield _counter("frames", "Frames received from Kraken.", statistics.frames)
    yield _counter("connections", "Connections made to Kraken.", statistics.connections)
    yield _counter("unknown_messages", "Messages of channels that nobody asked for.", statistics.unknown)
    malformed = CounterMetricFamily(
        f"{PREFIX}malformed_messages", "Messages that broke the protocol.", labels=["channel"]
    )
    for channel in sorted(CHANNELS | statistics.malformed.keys()):  # 0 to begin with, as an increase wants to be seen
        malformed.add_metric([channel], statistics.malformed[channel])
    yield malformed
    yield _counter(
        "group_starts", "Starts of the group of tasks; all but the first followed a crash.", statistics.group.count
    )
    yield from _of_runs(running)


def _of_runs(running: Running) -> Iterator[Metric]:
    """What is watched: nothing is told of the age or the rows of a run that is not there."""
    labels = ["pair", "channel"]
    watched = GaugeMetricFamily(
        f"{PREFIX}watched", "1 while verified data of an assigned pair comes, 0 while a gap is open.", labels=labels
    )
    age = GaugeMetricFamily(f"{PREFIX}message_age_seconds", "Of watching, since a run's last message.", labels=labels)
    rows = CounterMetricFamily(f"{PREFIX}run_rows", "Rows of a run; each run begins anew.", labels=labels)
    if (books := running.current_books()) is not None:
        for run in books.runs():
            age.add_metric([run.pair, run.channel], books.silence(run))
            rows.add_metric([run.pair, run.channel], run.rows)
    open_runs = running.watched()
    for pair in sorted(running.assignment.pairs.value):
        for channel in sorted(CHANNELS):
            watched.add_metric([pair, channel], (pair, channel) in open_runs)
    yield from (watched, age, rows)


def _of_pairs(running: Running) -> Iterator[Metric]:
    statistics = running.statistics
    desyncs = CounterMetricFamily(f"{PREFIX}desyncs", "Books that went wrong.", labels=["pair", "reason"])
    missing = GaugeMetricFamily(
        f"{PREFIX}missing_trades", "Trades that are known to be missing from PostgreSQL.", labels=["pair"]
    )
    for pair, state in sorted(statistics.pairs.items()):
        # The one that alerts look for is there from the beginning, so that its first increase is seen as one.
        for reason, count in {"checksum": 0, **state.desyncs}.items():
            desyncs.add_metric([pair, reason], count)
        missing.add_metric([pair], statistics.missing_trades[pair])
    yield from (desyncs, missing)
    yield _counter("repaired_trades", "Missing trades that REST had.", statistics.repaired_trades)
    yield _counter("absent_trades", "Missing trades that REST does not have either.", statistics.absent_trades)


def _of_storage(running: Running, now: float) -> Iterator[Metric]:
    statistics, spool = running.statistics, running.spool
    yield _counter("spooled_rows", "Trades and book rows appended to the spool.", statistics.rows)
    yield _counter("committed_rows", "Trades and book rows that PostgreSQL has committed.", statistics.stored_rows)
    yield _counter("committed_segments", "Segments that PostgreSQL has committed.", statistics.shipped_segments)
    yield _latency(
        "commit_latency_seconds",
        "From a frame's arrival to the commit of its rows; of each segment, its oldest frame.",
        statistics.commit_latency,
    )
    yield _gauge("spool_segments", "Sealed segments that wait for PostgreSQL.", len(spool.sealed))
    yield _gauge("spool_rows", "Rows of this process that wait for PostgreSQL.", spool.waiting_rows)
    yield _gauge("spool_bytes", "Size of the spool.", spool.bytes)
    yield _gauge(
        "spool_limit_bytes", "Size near which books, then trades, are not taken in.", running.settings.spool_max_bytes
    )
    yield _gauge(
        "spool_oldest_seconds", "Since the oldest frame arrived whose rows wait.", statistics.oldest_waiting(now)
    )
    intake = GaugeMetricFamily(f"{PREFIX}intake", "1 while there is room for a channel.", labels=["channel"])
    for channel in sorted(CHANNELS):
        intake.add_metric([channel], channel in running.assignment.channels.value)
    yield intake


def _of_redis(running: Running) -> Iterator[Metric]:
    statistics = running.statistics
    yield _counter("published_messages", "Messages handed to Redis.", statistics.published)
    yield _counter("unpublished_messages", "Messages that Redis' subscribers missed.", statistics.unpublished)
    yield _latency(
        "publish_latency_seconds",
        "From a frame's arrival to Redis' answer; of each batch, its oldest frame.",
        statistics.publish_latency,
    )


def _counter(name: str, help_text: str, count: int) -> Metric:
    return CounterMetricFamily(PREFIX + name, help_text, value=count)


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, help_text, value=value)


def _latency(name: str, help_text: str, latency: Latency) -> Metric:
    ends = [*map(floatToGoString, LATENCY_BOUNDS), "+Inf"]
    buckets = list(zip(ends, map(float, accumulate(latency.counts)), strict=True))
    return HistogramMetricFamily(PREFIX + name, help_text, buckets=buckets, sum_value=latency.seconds)
