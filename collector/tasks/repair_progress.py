"""Tells a person how far the filling of a long gap has come, at which rate, and how long it will take.

A rate is reckoned over one interval of nothing but this gap: other gaps are filled in between, and a rate that counts
their time says nothing.
"""

from datetime import UTC, datetime, timedelta

import structlog
import trio

from collector.id_ranges import IdRange

PROGRESS_INTERVAL = 30.0  # seconds between two reports

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

log = structlog.get_logger()


class RepairProgress:
    """Tells from time to time how far the long gap of a pair has been filled."""

    def __init__(self) -> None:
        self._windows: dict[str, tuple[float, int]] = {}  # pair: since when, how many trades since then

    def note(self, pair: str, gap: IdRange, fetched: int, reached: int) -> None:
        """Note that `fetched` trades of a gap were stored, up to a time in nanoseconds."""
        now = trio.current_time()
        if pair not in self._windows:
            self._windows[pair] = (now, 0)
            return
        since, trades = self._windows[pair]
        trades += fetched
        elapsed = now - since
        if elapsed < PROGRESS_INTERVAL:
            self._windows[pair] = (since, trades)
            return
        del self._windows[pair]
        if elapsed > 2 * PROGRESS_INTERVAL:  # something else was done meanwhile: that is no rate to reckon with
            return
        rate, missing = trades / elapsed, gap.size - fetched
        log.info(
            "history_progress",
            pair=pair,
            fetched_to=moment(reached),
            trades_per_second=round(rate),
            missing=missing,
            hours_left=round(missing / rate / 3600, 2),
        )


def moment(since: int) -> str:
    """A time in nanoseconds since 1970, for people."""
    return (_EPOCH + timedelta(microseconds=since // 1000)).isoformat(timespec="seconds")
