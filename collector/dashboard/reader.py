"""Reading the database from trio: in worker threads, over a few connections, read-only and bounded in time.

Invariant: nothing here can change what is stored, and no query holds a connection for longer than the statement
timeout allows. After an outage the next query opens a new connection.
"""

from collections import deque
from collections.abc import Callable
from typing import TypeVar

import psycopg
import trio

from collector.errors import StorageUnavailable, UnusableDatabase
from collector.storage.database import Connection, connect, translated

Result = TypeVar("Result")

CONNECTIONS = 4  # a small plan of a host has 20, and the collector needs its own
QUERY_SETTINGS = {
    "statement_timeout": "5s",  # a person does not wait longer for a chart
    "max_parallel_workers_per_gather": "0",  # the collector shares the server, and comes first
    "jit": "off",  # it compiles for longer than these queries run
}
# What a database without the collector's schema, or with an older one, answers.
MISSING = (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedFunction, psycopg.errors.UndefinedColumn)


class Reader:
    """Connections to the database at `url`, opened as they are needed and used again."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._idle: deque[Connection] = (
            deque()
        )  # its methods are safe to call from several threads, looking first is not
        self._is_closed = False
        self._limiter = trio.CapacityLimiter(CONNECTIONS)

    async def read(self, query: Callable[[Connection], Result]) -> Result:
        """What `query` returns, which runs in a worker thread, in a transaction that sees one state of the database.

        Raises:
            StorageUnavailable: the database cannot be had now, or the query took too long.
            UnusableDatabase: it has not got this collector's schema.

        """
        # A read may be abandoned: the thread itself gives its connection back.
        return await trio.to_thread.run_sync(self._read, query, limiter=self._limiter, abandon_on_cancel=True)

    def close(self) -> None:
        """Close the connections: those that are in use when their query ends. It must not be used any more."""
        self._is_closed = True
        self._close_idle()

    def _read(self, query: Callable[[Connection], Result]) -> Result:
        connection = self._idle_connection() or self._connect()
        try:
            with translated(), connection.transaction():
                result = query(connection)
        except BaseException as error:
            connection.close()
            if isinstance(error, StorageUnavailable):
                self._close_idle()  # the others are likely to be as dead
            if isinstance(error, MISSING):
                raise UnusableDatabase(
                    "the database has not got this collector's schema: run its migrate command"
                ) from error
            raise
        self._idle.append(connection)
        if self._is_closed:
            self._close_idle()
        return result

    def _idle_connection(self) -> Connection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _close_idle(self) -> None:
        while (connection := self._idle_connection()) is not None:
            connection.close()

    def _connect(self) -> Connection:
        connection = connect(self._url, application_name="collector: dashboard")
        try:
            with translated():
                for name, value in QUERY_SETTINGS.items():
                    connection.execute("SELECT set_config(%s, %s, false)", [name, value])
        except BaseException:
            connection.close()
            raise
        connection.read_only = True
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        return connection
