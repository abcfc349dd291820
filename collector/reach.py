"""Whether Kraken is in this process's reach, told by the frames that come.

Pure: monotonic times are passed in, in seconds.
"""

UNHEARD_AFTER = 15.0  # seconds without a frame: longer than a connection takes to be found dead and made again
# Seconds for which a process that did not hear Kraken is given no pairs: with none it connects to nothing, and so
# cannot learn that Kraken is back.
DEAF_FOR = 300.0


class Reach:
    """Judges by the number of frames that have come until now."""

    def __init__(self, now: float) -> None:
        self._heard_at = now
        self._frames = 0
        self._deaf_until = now

    def look(self, now: float, frames: int, *, listens: bool) -> bool:
        """Whether Kraken is in reach; without pairs a process `listens` to nothing, and its silence means nothing."""
        if frames != self._frames:
            self._frames, self._heard_at, self._deaf_until = frames, now, now
        elif not listens:
            self._heard_at = now
        elif now - self._heard_at > UNHEARD_AFTER:
            self._deaf_until = now + DEAF_FOR
        return now >= self._deaf_until
