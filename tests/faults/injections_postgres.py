"""Faults of PostgreSQL: each breaks it under a collector, and mends it again."""

import signal
import time
from contextlib import suppress

import psycopg
import trio
from embedded import EmbeddedPostgres
from faults.bench import Bench
from faults.lasting import in_lasting_thread
from faults.worker import DEADLINE
from psycopg.conninfo import conninfo_to_dict

AWAY = 5.0  # seconds for which a test takes the database away
RESTART_INTERVAL = 0.2  # seconds between tries to start a server whose workers have not all noticed its death
TERMINATIONS = 3

REFUSE = """
CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN {body}; RETURN NEW; END $$;
CREATE {kind} TRIGGER fault {when} ON {table} {scope} EXECUTE FUNCTION fault()
"""
DISK_FULL = REFUSE.format(
    body="RAISE 'could not extend file: No space left on device' USING ERRCODE = '53100'",
    kind="",
    when="BEFORE INSERT",
    table="kraken_orderbook",
    scope="FOR EACH STATEMENT",
)
SLOW_COPY = REFUSE.format(
    body="PERFORM pg_sleep(0.005)", kind="", when="BEFORE INSERT", table="kraken_orderbook", scope="FOR EACH ROW"
)
SLOW_COMMIT = REFUSE.format(
    body="PERFORM pg_sleep(2)",
    kind="CONSTRAINT",
    when="AFTER INSERT OR UPDATE",
    table="collector_spools",
    scope="DEFERRABLE INITIALLY DEFERRED FOR EACH ROW",
)
MEND = "DROP FUNCTION fault CASCADE"
TERMINATE_COPY = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND state = 'active' AND query LIKE 'COPY%' AND pid <> pg_backend_pid()
"""
TERMINATE_ALL = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'collector%'
"""


def start_again(server: EmbeddedPostgres) -> None:
    """Start a server that was stopped or killed."""
    deadline = time.monotonic() + DEADLINE
    while True:
        with suppress(psycopg.OperationalError, RuntimeError):
            server.start()
            return
        assert time.monotonic() < deadline, "PostgreSQL does not start again"
        server.stop()
        time.sleep(RESTART_INTERVAL)


async def away(bench: Bench, how: signal.Signals, seconds: float = AWAY) -> None:
    """The server is stopped or killed, and comes back after a while."""
    assert bench.server is not None
    await trio.to_thread.run_sync(bench.server.stop, how)
    await trio.sleep(seconds)
    await in_lasting_thread(start_again, bench.server)
    bench.mended()


async def stopped(bench: Bench) -> None:
    """A restart in good order, as for maintenance."""
    await away(bench, signal.SIGINT)


async def killed(bench: Bench) -> None:
    """A crash: PostgreSQL recovers from its log."""
    await away(bench, signal.SIGKILL)


async def broken_by(bench: Bench, statement: str, seconds: float = AWAY) -> None:
    """SQL that breaks the tables for a while."""
    await bench.query(statement)
    await trio.sleep(seconds)
    await mend(bench)
    bench.mended()


async def mend(bench: Bench) -> None:
    """Take the trigger away; on the way to its lock it may meet a worker that waits for another."""
    with trio.fail_after(DEADLINE):
        while True:
            with suppress(psycopg.errors.DeadlockDetected):
                await bench.query(MEND)
                return


async def disk_full(bench: Bench) -> None:
    """PostgreSQL's disk is full."""
    await broken_by(bench, DISK_FULL)


async def slow(bench: Bench) -> None:
    """Every commit takes two seconds."""
    await broken_by(bench, SLOW_COMMIT)


async def terminated(bench: Bench) -> None:
    """The backend is ended in the middle of a COPY, several times."""
    await bench.query(SLOW_COPY)
    ended = 0
    with trio.fail_after(DEADLINE):
        while ended < TERMINATIONS:
            ended += len(await bench.query(TERMINATE_COPY))
            await trio.sleep(0.01)
    await mend(bench)
    bench.mended()


async def read_only(bench: Bench) -> None:
    """A primary that has become a standby takes connections, and writes nothing."""
    name = conninfo_to_dict(bench.database_url)["dbname"]
    count = len(bench.worker.events("storage_unavailable"))
    await bench.query(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    await bench.query(TERMINATE_ALL)
    await bench.worker.wait_for("storage_unavailable", count + 2)
    await bench.query(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
    await bench.query(TERMINATE_ALL)
    bench.mended()
