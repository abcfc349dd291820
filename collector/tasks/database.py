"""Database calls from trio: each in a worker thread, bounded in time, given up rather than waited for.

A call that is given up, by its deadline or by a cancellation, has its connection cut, so that its thread ends; the
connection is never used again. That is safe for shipping, whose claim tells what was committed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Concatenate, ParamSpec, TypeVar

import trio

from collector.errors import StorageUnavailable
from collector.storage.database import Connection, abandon, connect, translated

# Beyond every timeout of the connection's own (all under 8 s): for a peer that keeps the connection up and is silent.
CALL_TIMEOUT = 10.0  # seconds
OPEN_TIMEOUT = 15.0  # seconds; a host may have several addresses, each with a connect timeout of 5

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


async def open_connection(url: str, application_name: str) -> Connection:
    """Connect.

    Raises:
        StorageUnavailable: the database cannot be had now.
        UnusableDatabase: the address cannot be read.

    """
    with _given_up_after(OPEN_TIMEOUT):
        return await trio.to_thread.run_sync(
            partial(connect, url, application_name=application_name), abandon_on_cancel=True
        )


async def call(
    connection: Connection,
    function: Callable[Concatenate[Connection, Arguments], Result],
    *arguments: Arguments.args,
    **keywords: Arguments.kwargs,
) -> Result:
    """Run `function(connection, ...)` in a worker thread; whatever goes wrong, the connection is closed.

    Raises:
        StorageUnavailable: the database cannot be had any more.

    """
    return await call_within(CALL_TIMEOUT, connection, lambda used: function(used, *arguments, **keywords))


async def call_within(seconds: float, connection: Connection, function: Callable[[Connection], Result]) -> Result:
    """Like `call`, with a deadline of its own, for what may take longer."""
    try:
        with _given_up_after(seconds):
            return await trio.to_thread.run_sync(partial(_run, connection, function), abandon_on_cancel=True)
    except BaseException:
        abandon(connection)  # where the thread has ended by itself there is nothing left to cut
        raise


def _run(connection: Connection, function: Callable[[Connection], Result]) -> Result:
    try:
        with translated():
            return function(connection)
    except BaseException:
        connection.close()
        raise


@contextmanager
def _given_up_after(seconds: float) -> Iterator[None]:
    try:
        with trio.fail_after(seconds):
            yield
    except trio.TooSlowError:
        raise StorageUnavailable(f"no answer within {seconds:g} s") from None
