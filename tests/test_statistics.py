"""The counters."""

import pytest

from collector.statistics import LATENCY_BOUNDS, PairStatistics, Statistics


def test_counters_begin_at_nothing_and_are_ones_own() -> None:
    """Prevents one collector's counts from showing up in another's."""
    one, other = Statistics(), Statistics()
    one.malformed["book"] += 1
    one.pairs["BTC/USD"] = PairStatistics(best_bid=b"1.0")
    one.commit_latency.observe(1.0)
    one.spooled(1, 0.0)
    one.under_way.unread = 1.0
    one.group.note(0.0, 1.0)
    assert other == Statistics()
    assert (one.malformed.total(), one.frames) == (1, 0)


def test_desyncs_of_all_pairs_add_up() -> None:
    """Prevents a checksum failure of one pair from being missed where nobody asks by pair."""
    statistics = Statistics(pairs={"BTC/USD": PairStatistics(), "ETH/USD": PairStatistics()})
    assert statistics.desyncs == {}
    statistics.pairs["BTC/USD"].desyncs["checksum"] += 1
    statistics.pairs["ETH/USD"].desyncs.update(["checksum", "crossed"])
    assert statistics.desyncs == {"checksum": 2, "crossed": 1}


def test_latency_is_that_of_the_oldest_frame() -> None:
    """Prevents a latency that begins with the batch that came last, and a memory that grows with every segment."""
    statistics = Statistics()
    for now in (10.0, 10.4):
        statistics.spooled(7, now)
    statistics.spooled(8, 10.5)
    assert statistics.oldest_waiting(11.0) == 1.0
    statistics.committed(7, 5, 11.0)
    statistics.committed(6, 3, 11.0)  # left by an earlier process: nobody knows when it came
    assert statistics.commit_latency.seconds == 1.0
    assert statistics.commit_latency.counts == [int(bound == 1.0) for bound in (*LATENCY_BOUNDS, 0)]
    assert (statistics.stored_rows, statistics.shipped_segments, statistics.arrivals) == (8, 2, {8: 10.5})
    statistics.committed(8, 0, 12.0)
    assert statistics.oldest_waiting(99.0) == 0.0


def test_latency_begins_with_the_frame() -> None:
    """Prevents the time in which frames wait for the book task, or records for the spool, from being left out."""
    statistics = Statistics()
    way = statistics.under_way
    way.unread = 1.0
    way.read(made_records=True)
    way.unread = 2.0
    way.read(made_records=True)
    assert (way.batch, way.unread) == (2.0, None)
    statistics.spooled(5, 3.0)  # both batches wait: the oldest counts
    assert statistics.arrivals == {5: 1.0}
    way.unread = 4.0
    way.read(made_records=False)  # a heartbeat is on its way to nowhere
    statistics.spooled(6, 9.0)
    assert statistics.arrivals == {5: 1.0, 6: 9.0}


@pytest.mark.parametrize("seconds", [0.0, *LATENCY_BOUNDS, 1e9])
def test_latency_at_a_bound_belongs_below_it(seconds: float) -> None:
    """Prevents a class that Prometheus calls `le` from lacking what is equal to its end."""
    statistics = Statistics()
    statistics.publish_latency.observe(seconds)
    (place,) = [number for number, count in enumerate(statistics.publish_latency.counts) if count]
    assert place == sum(bound < seconds for bound in LATENCY_BOUNDS)
