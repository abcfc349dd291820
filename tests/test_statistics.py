"""The counters."""

from collector.kraken.messages import Malformed
from collector.statistics import SAMPLES, PairStatistics, Statistics


def test_counters_begin_at_nothing_and_are_ones_own() -> None:
    """Prevents one collector's counts from showing up in another's."""
    one, other = Statistics(), Statistics()
    one.desyncs["checksum"] += 1
    one.malformed["book"] += 1
    one.pairs["BTC/USD"] = PairStatistics(best_bid=b"1.0")
    assert other == Statistics()
    assert (one.desyncs.total(), one.malformed.total(), one.frames) == (1, 1, 0)
    assert other.pairs == {}


def test_samples_of_bad_frames_are_the_latest_few() -> None:
    """Prevents a flood of bad frames from filling the memory."""
    statistics = Statistics()
    for number in range(SAMPLES * 3):
        statistics.malformed_samples.append(Malformed(str(number), None, None, "x"))
    assert [sample.reason for sample in statistics.malformed_samples] == [
        str(number) for number in range(SAMPLES * 2, SAMPLES * 3)
    ]
