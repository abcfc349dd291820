"""One run of one contestant: a tape as fast as it is taken, from the first frame to the last commit.

A contestant has started, and its books are there, when the clock starts. Every row of the tape must be stored.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import psycopg
from embedded import EmbeddedPostgres
from psycopg import sql

from bench.contestants import Contestant, Place
from bench.processes import (
    POLL_INTERVAL,
    BenchError,
    cpu_seconds,
    open_contestant,
    open_frame_server,
    peak_megabytes,
    wait_until_settled,
)
from bench.tape import Tape
from collector.kraken.server.source import NANOSECONDS

QUIET = 1.5  # seconds without a commit after which no more is expected; both commit twice a second at least
_MARKET_BYTES = sql.SQL("""
SELECT coalesce(sum(pg_relation_size(oid)), 0)::bigint FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
      AND relname NOT LIKE 'collector%' AND relname <> 'kraken_coverage'
""")
STORE_TIMEOUT = 120.0  # seconds for a whole tape to be stored


@dataclass(frozen=True, slots=True)
class Run:
    """What one run came to.

    Attributes:
        messages_a_second: from the first frame to the last commit.
        cpu_microseconds: of the whole process for a message, without its start.
        peak_megabytes: the most memory that the process held.
        bytes_an_update: on disk for a book update, with indexes, TOAST and the snapshots among the updates.

    """

    messages_a_second: float
    cpu_microseconds: float
    peak_megabytes: float
    bytes_an_update: float


@contextmanager
def new_database(server: EmbeddedPostgres, name: str) -> Iterator[str]:
    """The address of an empty database that is dropped afterwards."""
    identifier = sql.Identifier(name)
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(identifier))
        try:
            yield server.url(name)
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))


@contextmanager
def running(
    contestant: Contestant, tape: Tape, database_url: str, port: int, redis_url: str | None = None
) -> Iterator[psutil.Process]:
    """A contestant on the server of frames, in a folder of its own.

    Raises:
        BenchError: with the end of its log, when the block raises one.

    """
    with TemporaryDirectory(prefix="collector-bench-") as folder:
        place = Place(database_url, port, Path(folder), redis_url)
        log = place.folder / "log"
        try:
            with log.open("wb") as output:
                command, variables = contestant.command(tape, place), contestant.variables(tape, place)
                with open_contestant(command, variables, place.folder, output) as process:
                    yield process
        except BenchError as error:
            raise BenchError(f"{contestant.name}: {error}\n{log.read_text()}") from error


def run(contestant: Contestant, tape: Tape, server: EmbeddedPostgres, name: str) -> Run:
    """Run a contestant once, in a database of this name.

    Raises:
        BenchError: it did not store every row.

    """
    with new_database(server, name) as url, psycopg.connect(url, autocommit=True) as connection:
        contestant.prepare(url)
        empty = number(connection, contestant.book_bytes)
        with (
            open_frame_server(tape) as frames,
            running(contestant, tape, url, frames.port) as process,
        ):
            frames.wait_subscribed()
            wait_until_settled(process)
            cpu_before = cpu_seconds(process)
            began = frames.go()
            wait_until_quiet(connection)
            cpu = cpu_seconds(process) - cpu_before
            peak = peak_megabytes(process)
            check_stored(connection, contestant, tape)
        connection.execute("CHECKPOINT")
        seconds = (number(connection, contestant.last_commit) - began) / NANOSECONDS
        return Run(
            messages_a_second=tape.timed_messages / seconds,
            cpu_microseconds=cpu * 1e6 / tape.timed_messages,
            peak_megabytes=peak,
            bytes_an_update=(number(connection, contestant.book_bytes) - empty) / tape.book_updates,
        )


def wait_until_quiet(connection: psycopg.Connection) -> None:
    """Wait until no rows have come for a while, from now on.

    Told by the sizes of the tables of the market, which takes little time: what a collector says of itself each second
    is no row.

    Raises:
        BenchError: that did not happen in time.

    """
    deadline = time.monotonic() + STORE_TIMEOUT
    size, grew_at = 0, time.monotonic()
    while time.monotonic() < deadline:
        before, size = size, number(connection, _MARKET_BYTES)
        if size != before:
            grew_at = time.monotonic()
        if time.monotonic() - grew_at >= QUIET:
            return
        time.sleep(POLL_INTERVAL)
    raise BenchError(f"rows are still being committed after {STORE_TIMEOUT:g} s")


def check_stored(connection: psycopg.Connection, contestant: Contestant, tape: Tape) -> None:
    """See that every row of the tape is stored.

    Raises:
        BenchError: rows are missing, or there are too many.

    """
    stored = connection.execute(contestant.stored).fetchone()
    if stored != (tape.book_updates, tape.trades):
        raise BenchError(f"stored {stored} book updates and trades, of {(tape.book_updates, tape.trades)}")


def number(connection: psycopg.Connection, query: sql.SQL | sql.Composed) -> int:
    """The number that a query gives."""
    row = connection.execute(query).fetchone()
    assert row is not None  # noqa: S101 - it is an aggregate
    return int(row[0])
