"""Database calls from trio: each in a worker thread, bounded in time, given up rather than waited for.

A call that is given up, by its deadline or by a cancellation, has its connection cut, so that its thread ends; the
session is never used again. That is safe for shipping, whose claim tells what was committed.
"""

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TypeVar

import trio

from collector.errors import StorageUnavailable
from collector.storage.database import Connection, abandon, connect, translated

# Beyond every timeout of the connection's own (all under 8 s): for a peer that keeps the connection up and is silent.
CALL_TIMEOUT = 10.0  # seconds
OPEN_TIMEOUT = 15.0  # seconds; a host may have several addresses, each with a connect timeout of 5

Result = TypeVar("Result")


class Session:
    """A connection that is used by one worker thread at a time.

    libpq's handle must not be closed while a thread is inside it: whoever comes last, the thread or `close`, does it.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._guard = threading.Lock()
        self._is_used = False
        self._is_over = False

    async def call(
        self,
        function: Callable[..., Result],
        *arguments: object,
        timeout: float = CALL_TIMEOUT,  # noqa: ASYNC109 - its passing is StorageUnavailable
    ) -> Result:
        """Run `function(connection, *arguments)` in a worker thread. After an error the session is to be closed.

        Raises:
            StorageUnavailable: the database cannot be had any more, or did not answer in time.

        """
        with _given_up_after(timeout):
            return await trio.to_thread.run_sync(partial(self._use, function, *arguments), abandon_on_cancel=True)

    def close(self) -> None:
        """End the session; a call that was given up is cut off, and its thread closes the connection."""
        with self._guard:
            self._is_over = True
            if not self._is_used:
                self._connection.close()
                return
        abandon(self._connection)

    def _use(self, function: Callable[..., Result], *arguments: object) -> Result:
        with self._guard:
            if self._is_over:
                raise StorageUnavailable("the call was given up before it began")
            self._is_used = True
        try:
            with translated():
                return function(self._connection, *arguments)
        finally:
            with self._guard:
                self._is_used = False
                if self._is_over:
                    self._connection.close()


@asynccontextmanager
async def open_session(url: str, application_name: str) -> AsyncIterator[Session]:
    """A session with the database at `url`, for the length of the block.

    Raises:
        StorageUnavailable: the database cannot be had now.
        UnusableDatabase: the address cannot be read.

    """
    given_up = threading.Event()
    try:
        with _given_up_after(OPEN_TIMEOUT):
            session = await trio.to_thread.run_sync(_open, url, application_name, given_up, abandon_on_cancel=True)
    except BaseException:
        given_up.set()
        raise
    try:
        yield session
    finally:
        session.close()


def _open(url: str, application_name: str, given_up: threading.Event) -> Session:
    session = Session(connect(url, application_name=application_name))
    if given_up.is_set():  # nobody is there to take it
        session.close()
    return session


@contextmanager
def _given_up_after(seconds: float) -> Iterator[None]:
    try:
        with trio.fail_after(seconds):
            yield
    except trio.TooSlowError:
        raise StorageUnavailable(f"no answer within {seconds:g} s") from None
