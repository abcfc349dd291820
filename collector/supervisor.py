"""What runs again when it fails, and what stops when the host says so.

A task that crashes is started again after a backoff, since nothing that it held in memory is needed to go on. This is
the one place where any exception is caught: it is logged whole, and nobody below has to guess what is survivable.
"""

import random
import signal
from collections.abc import Awaitable, Callable

import structlog
import trio

from collector.backoff import Backoff
from collector.errors import UnusableDatabase, UnusableSpool

BACKOFF_BASE, BACKOFF_CAP = 0.5, 30.0  # seconds
STABLE_AFTER = 60.0  # seconds that a run must last for its crash to count as a first one
DRAIN_TIMEOUT = 8.0  # seconds from the signal to the exit at the latest; hosts kill after 30, users wait for 10

_NOT_RECOVERABLE = (UnusableDatabase, UnusableSpool)

log = structlog.get_logger()


async def restarting(name: str, run: Callable[[], Awaitable[None]], hurry: trio.Event | None = None) -> None:
    """Run until it returns; after a crash, run it again.

    `hurry` ends the wait between the two: when the whole is told to stop, what crashed has something to drain.

    Raises:
        ExceptionGroup: of the errors that only a person can mend, and of nothing else.

    """
    backoff = Backoff(BACKOFF_BASE, BACKOFF_CAP, STABLE_AFTER, random.uniform)
    while True:
        started = trio.current_time()
        try:
            await run()
        except* _NOT_RECOVERABLE:
            raise
        except* Exception as crash:  # noqa: BLE001 - any crash has the same cure, a new start
            failure: BaseException | None = crash
        else:
            failure = None
        if failure is None:
            return
        delay = backoff.delay(trio.current_time() - started)
        log.error("crashed", task=name, retry_in=round(delay, 2), exc_info=failure)
        with trio.move_on_after(delay):
            if hurry is None or hurry.is_set():  # what crashes while it drains is no reason to hurry
                await trio.sleep_forever()
            else:
                await hurry.wait()


async def stop_on_signal(stop: trio.Event, everything: trio.CancelScope) -> None:
    """Set `stop` at SIGTERM or SIGINT, and cancel everything when the drain takes too long.

    The handlers stay for as long as this runs, so that a signal that is sent twice, as Heroku does, does no harm.
    """
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("stopping", signal=signal.Signals(number).name, again=stop.is_set())
            if not stop.is_set():
                stop.set()
                everything.deadline = trio.current_time() + DRAIN_TIMEOUT
