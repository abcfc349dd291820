"""How often the same is said: a few times within a while, and then only counted. Pure: the time is passed in."""

from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(slots=True)
class _Window:
    since: float
    told: int
    left_out: int


class Repeats:
    """Lets `limit` of a kind pass within `seconds`; the first one behind them tells how many were left out.

    What was left out is remembered until it is told; what was not is forgotten soon, so that kinds may be many.
    """

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit = limit
        self._seconds = seconds
        self._windows: dict[Hashable, _Window] = {}
        self._swept_at = float("-inf")

    def take(self, kind: Hashable, now: float) -> int | None:
        """Whether to say something at `now` (monotonic seconds): None for no, else how many of it were left out."""
        if now - self._swept_at >= self._seconds:
            self._swept_at = now
            self._windows = {
                key: window
                for key, window in self._windows.items()
                if window.left_out or not self._is_over(window, now)
            }
        window = self._windows.get(kind)
        if window is None or self._is_over(window, now):
            self._windows[kind] = _Window(now, 1, 0)
            return 0 if window is None else window.left_out
        if window.told < self._limit:
            window.told += 1
            return 0
        window.left_out += 1
        return None

    def _is_over(self, window: _Window, now: float) -> bool:
        return now - window.since >= self._seconds
