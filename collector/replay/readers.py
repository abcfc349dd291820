"""Worker threads that read history, a few connections between them, and how a stream is kept a page ahead."""

import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Concatenate, ParamSpec, TypeVar

import trio

from collector.errors import StorageUnavailable
from collector.replay.events import Event, Reader
from collector.storage.database import Connection, connect
from collector.storage.stored_rows import prepare_reading

# Reads at a time, each on a connection of its own. The interpreter has room for one; more hide the database's own time.
READERS = 4
PAGES_AHEAD = 1  # that wait for their stream, beside the one that is sent and the one that is read

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Readers:
    """Runs functions that take a connection. What they do must only read: a call that is cancelled is left behind."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._limiter = trio.CapacityLimiter(READERS)
        self._lock = threading.Lock()  # over what follows
        self._idle: list[Connection] = []
        self._is_closed = False

    async def call(
        self,
        function: Callable[Concatenate[Connection, Arguments], Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        """Call a function in a thread.

        Raises:
            StorageUnavailable: the database cannot be had.

        """

        def run() -> Result:
            connection = self._take() or self._connect()
            try:
                result = function(connection, *args, **kwargs)
            except BaseException:
                connection.close()
                raise
            self._give_back(connection)
            return result

        return await trio.to_thread.run_sync(run, limiter=self._limiter, abandon_on_cancel=True)

    def _connect(self) -> Connection:
        connection = connect(self._url, application_name="collector: replay")
        try:
            prepare_reading(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _take(self) -> Connection | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _give_back(self, connection: Connection) -> None:
        with self._lock:
            if self._is_closed:
                connection.close()
            else:
                self._idle.append(connection)

    def close(self) -> None:
        """Close the connections; one that a call left behind is at work on is closed when that ends."""
        with self._lock:
            self._is_closed = True
            while self._idle:
                self._idle.pop().close()

    @asynccontextmanager
    async def open_pages(
        self, reader: Reader, nursery: trio.Nursery
    ) -> AsyncGenerator[trio.MemoryReceiveChannel[Sequence[Event] | StorageUnavailable], None]:
        """The pages of a reader, read ahead while the block is open; a lost database comes in its turn."""
        send, receive = trio.open_memory_channel[Sequence[Event] | StorageUnavailable](PAGES_AHEAD)
        nursery.start_soon(self._read_ahead, reader, send)
        with receive:
            yield receive

    async def _read_ahead(
        self, reader: Reader, pages: trio.MemorySendChannel[Sequence[Event] | StorageUnavailable]
    ) -> None:
        with pages:
            try:
                while (page := await self.call(reader.next_page)) is not None:
                    await pages.send(page)
            except StorageUnavailable as error:
                await pages.send(error)
            except trio.BrokenResourceError:
                pass  # the stream has ended before its pages
