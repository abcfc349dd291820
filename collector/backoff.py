"""How long to wait before the next try. Pure: time and chance are passed in."""

from collections import deque
from collections.abc import Callable

# Kraken's edge bans an address for 10 minutes after about 150 connection attempts in 10 minutes; its own clients
# allow themselves 120 (connection guide, "connection attempts").
ATTEMPTS_WINDOW = 600.0  # seconds
ATTEMPTS_LIMIT = 120


class Backoff:
    """Exponential backoff with full jitter: after n failures in a row, anything from 0 to `base * 2**n`, capped.

    A run that lasted `stable_after` seconds ends a row of failures. It is the time survived that counts, not that a
    connection was made: a server that accepts and drops at once must not be tried without end.

    Args:
        base: seconds, the most that is waited after the first failure.
        cap: seconds, the most that is ever waited.
        stable_after: seconds that a run must last to count as a success.
        choose: gives a number between its two arguments, such as `random.uniform`.

    """

    def __init__(self, base: float, cap: float, stable_after: float, choose: Callable[[float, float], float]) -> None:
        self._base = base
        self._cap = cap
        self._stable_after = stable_after
        self._choose = choose
        self.failures = 0

    def delay(self, ran_for: float) -> float:
        """The seconds to wait now that a run of `ran_for` seconds has ended."""
        if ran_for >= self._stable_after:
            self.failures = 0
        ceiling = min(self._cap, self._base * 2.0 ** min(self.failures, 64))  # beyond 64 a float overflows
        self.failures += 1
        return self._choose(0.0, ceiling)


class AttemptBudget:
    """Keeps connection attempts below `limit` in any `window` seconds."""

    def __init__(self, limit: int = ATTEMPTS_LIMIT, window: float = ATTEMPTS_WINDOW) -> None:
        self._window = window
        self._attempts: deque[float] = deque(maxlen=limit)

    def wait(self, now: float) -> float:
        """The seconds until an attempt may be made, 0 when it may be made now."""
        if len(self._attempts) < (self._attempts.maxlen or 0):
            return 0.0
        return max(0.0, self._attempts[0] + self._window - now)

    def spend(self, now: float) -> None:
        """Note an attempt."""
        self._attempts.append(now)
