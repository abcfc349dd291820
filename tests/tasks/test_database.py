"""Database sessions from trio: calls are bounded and given up without waiting, and nothing is closed under a thread."""

import socket
import threading

import psycopg
import pytest
import trio
from collecting import count, wait_until

from collector.errors import StorageUnavailable, UnusableDatabase
from collector.storage.database import Connection, connect
from collector.tasks import database
from collector.tasks.database import open_session

SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tests: session'"


def sleep(connection: Connection) -> None:
    """Work for longer than any test waits."""
    connection.execute("SELECT pg_sleep(6)")


async def test_result_comes_back(database_url: str) -> None:
    """Prevents arguments or the result of a call from getting lost on the way through the thread."""
    async with open_session(database_url, "tests: session") as session:
        assert await session.call(lambda used, *more: used.execute("SELECT %s + %s", more).fetchone(), 3, 4) == (7,)
        assert count(database_url, SESSIONS) == 1
    await wait_until(lambda: count(database_url, SESSIONS) == 0, 4)


async def test_call_that_takes_too_long(database_url: str) -> None:
    """Prevents a database that hangs from hanging the collector, and its thread from living on."""
    threads = threading.active_count()
    with trio.fail_after(4):
        async with open_session(database_url, "tests: session") as session:
            with pytest.raises(StorageUnavailable, match=r"within 0\.2 s"):
                await session.call(sleep, timeout=0.2)
    with pytest.raises(StorageUnavailable, match="given up"):
        await session.call(sleep)
    await wait_until(lambda: session._connection.closed, 4)
    assert threading.active_count() <= threads + 1, "trio keeps an idle thread"


async def test_cancelled_call_is_not_waited_for(database_url: str) -> None:
    """Prevents an exit or a restart from waiting for a statement."""
    started = trio.current_time()
    with trio.move_on_after(0.3) as scope:
        async with open_session(database_url, "tests: session") as session:
            await session.call(sleep)
    assert scope.cancelled_caught
    assert trio.current_time() - started < 3
    await wait_until(lambda: session._connection.closed, 4)


@pytest.mark.parametrize("failure", [ZeroDivisionError, psycopg.DataError])
async def test_any_other_error_comes_through(failure: type[Exception], database_url: str) -> None:
    """Prevents a bug, or a row that is rejected, from passing for an outage that mends itself."""

    def fail(_used: Connection) -> None:
        raise failure

    async with open_session(database_url, "tests: session") as session:
        with pytest.raises(failure):
            await session.call(fail)
    assert session._connection.closed


async def test_lost_connection(database_url: str) -> None:
    """Prevents a lost connection from passing for a bug, which would restart the whole group."""
    async with open_session(database_url, "tests: session") as session:
        with connect(database_url, application_name="tests") as other:
            other.execute("SELECT pg_terminate_backend(%s)", [session._connection.info.backend_pid])
        with pytest.raises(StorageUnavailable):
            await session.call(lambda used: used.execute("SELECT 1"))
    assert session._connection.closed


async def test_connecting_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a server that accepts and never answers from holding up the flush task."""
    monkeypatch.setattr(database, "OPEN_TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"postgresql://u:p@127.0.0.1:{server.getsockname()[1]}/d"
        with trio.fail_after(4), pytest.raises(StorageUnavailable, match="no answer"):
            await _open(url)
        accepted, _ = server.accept()
        accepted.close()  # so that the thread which was given up ends now


async def test_connection_that_comes_too_late(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a connection that nobody waits for any more from staying open for as long as the process lives."""
    is_connected, may_return = threading.Event(), threading.Event()

    def connect_slowly(url: str, *, application_name: str) -> Connection:
        connection = connect(url, application_name=application_name)
        is_connected.set()
        may_return.wait(10)
        return connection

    monkeypatch.setattr(database, "connect", connect_slowly)
    with trio.move_on_after(10) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_open, database_url)
            await wait_until(is_connected.is_set)
            nursery.cancel_scope.cancel()
    assert not scope.cancelled_caught
    assert count(database_url, SESSIONS) == 1
    may_return.set()
    await wait_until(lambda: count(database_url, SESSIONS) == 0, 4)


async def _open(url: str) -> None:
    async with open_session(url, "tests: session"):
        await trio.sleep_forever()


async def test_address_that_cannot_be_read() -> None:
    """Prevents a mistyped DATABASE_URL from being retried for ever."""
    with pytest.raises(UnusableDatabase):
        await _open("postgresql://u:p@ss@host/d")
