"""The clock of one replay, which lets every stream of a connection go on in the order of the market's time.

Invariant: a stream goes on only while none other is at work and none waits for an earlier time. So what the streams
give is in order at any speed, however long one of them reads or sends.
"""

import math
from collections.abc import Generator
from contextlib import contextmanager
from typing import NoReturn

import trio

from collector.kraken.server.source import NANOSECONDS

# Seconds that the market stands still behind the last subscription of a new connection. So a client that subscribes
# with one request after the other sees all of it from the same time on.
SETTLE_TIME = 0.5


class MarketClock:
    """The market's time in nanoseconds, from `start` to `end`.

    It passes `speed` times as fast as time does, or, with None, as fast as the streams are taken.
    """

    def __init__(self, start: int, end: int, speed: float | None) -> None:
        self._start = self._now = start
        self._end = end
        self._speed = speed
        self._began: float | None = None
        self._busy = 0  # streams that are at work
        self._waiting: dict[trio.Event, int] = {}
        self._joined = trio.Event()
        self._changed = trio.Event()

    def now(self) -> int:
        """The time: everything before it has been let go."""
        if not self._busy:
            self._now = max(self._now, min(self._moving(), self._earliest()))
        return self._now

    def _moving(self) -> int:
        if self._began is None or self._speed is None:
            return self._now
        passed = trio.current_time() - self._began
        return min(self._start + round(passed * self._speed * NANOSECONDS), self._end)

    def _earliest(self) -> int:
        return min(self._waiting.values(), default=self._end)

    @contextmanager
    def stream(self) -> Generator[None, None, None]:
        """Take part: the block is a stream, at work except while it waits in `reach`."""
        self._busy += 1
        self._joined.set()
        try:
            yield
        finally:
            self._busy -= 1
            self._changed.set()

    async def reach(self, time: int) -> int:
        """Wait until it is `time`; return up to when the stream may go on before it has to ask again."""
        if time > self._now:
            self._busy -= 1
            event = trio.Event()
            self._waiting[event] = time
            if not self._may_go(time):
                self._changed.set()
                try:
                    await event.wait()
                finally:
                    self._busy += 1
                    del self._waiting[event]
            else:
                self._busy += 1
                del self._waiting[event]
            self._now = max(self._now, time)
        if self._began is None:
            return self._now
        return max(self._now, min(self._earliest(), self._end if self._speed is None else self._moving()))

    def pass_to(self, time: int) -> None:
        """Note that a stream has given everything up to a time to which it was let go."""
        self._now = max(self._now, time)

    def _may_go(self, time: int) -> bool:
        is_first = self._began is not None and not self._busy and time <= self._earliest()
        return is_first and trio.current_time() >= self._due(time)

    async def run(self) -> NoReturn:
        """Let time pass, until cancelled."""
        await self._settle()
        self._began = trio.current_time()
        while True:
            self._changed = trio.Event()
            if self._busy or not self._waiting:
                await self._changed.wait()
                continue
            event = min(self._waiting, key=self._waiting.__getitem__)
            if self._may_go(self._waiting[event]):
                event.set()
                await self._changed.wait()
            else:
                with trio.move_on_at(self._due(self._waiting[event])):
                    await self._changed.wait()

    def _due(self, time: int) -> float:
        """When a time is reached, on trio's clock."""
        if self._began is None or self._speed is None:
            return -math.inf
        return self._began + (time - self._start) / NANOSECONDS / self._speed

    async def _settle(self) -> None:
        await self._joined.wait()
        while self._joined.is_set():
            self._joined = trio.Event()
            with trio.move_on_after(SETTLE_TIME):
                await self._joined.wait()
