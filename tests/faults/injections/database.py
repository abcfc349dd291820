"""PostgreSQL in every kind of trouble: rows wait in the spool, and each is stored once when it is over."""

import signal
import time
from contextlib import suppress

import psycopg
import trio
from embedded import EmbeddedPostgres
from faults.bench import Bench
from faults.fault import DATABASE, PROCESS, Fault, Strike
from faults.lasting import in_lasting_thread
from psycopg.conninfo import conninfo_to_dict

LONGEST_TIMEOUT = 12.0  # seconds: longer than any timeout of the collector's
REFUSED = 3.0  # seconds: some tries
START_DEADLINE = 60.0  # seconds
START_INTERVAL = 0.2  # seconds between tries to start a server whose workers have not all noticed its death
TERMINATIONS = 3
COMMITS = 3
LOOK_INTERVAL = 0.01  # seconds

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

COLUMNS = {
    "kraken_orderbook": "event_time, pair, bids, asks, type, checksum, chain, seq, evicted",
    "kraken_trades": "event_time, pair, price, volume, side, order_type, trade_id",
}
# Somebody breaks a table, and has a copy of it: what was stored counts all the same, when it is put back.
COPY_ASIDE = "LOCK {table} IN ACCESS EXCLUSIVE MODE; CREATE TABLE aside AS TABLE {table};"
PUT_BACK = "INSERT INTO {table} ({columns}) SELECT {columns} FROM aside ON CONFLICT DO NOTHING; DROP TABLE aside;"
FILL_COLUMN = """
UPDATE kraken_trades SET order_type = aside.order_type FROM aside
WHERE kraken_trades.pair = aside.pair AND kraken_trades.trade_id = aside.trade_id AND kraken_trades.order_type IS NULL;
DROP TABLE aside;
"""
IS_MISSING = "SELECT 1 WHERE to_regclass('{table}') IS NULL"


def start_again(server: EmbeddedPostgres) -> None:
    """Start a server that was stopped or killed."""
    deadline = time.monotonic() + START_DEADLINE
    while True:
        with suppress(psycopg.OperationalError, RuntimeError):
            server.start()
            return
        assert time.monotonic() < deadline, "PostgreSQL does not start again"
        server.stop()
        time.sleep(START_INTERVAL)


def away(how: signal.Signals) -> Strike:
    """The server is stopped in good order (SIGINT) or killed, and comes back after a while."""

    async def strike(bench: Bench) -> None:
        async with bench.expecting("storage_unavailable"):
            await trio.to_thread.run_sync(bench.server.stop, how)
            await trio.sleep(bench.outage)
        await in_lasting_thread(start_again, bench.server)
        bench.mended()

    return strike


async def refused_at_start(bench: Bench) -> None:
    """There is no database when the collector starts."""
    await trio.to_thread.run_sync(bench.server.stop)
    bench.start()
    await bench.logged("storage_unavailable")
    await trio.sleep(REFUSED)
    await in_lasting_thread(start_again, bench.server)
    bench.mended()


async def hanging(bench: Bench) -> None:
    """The network takes what is sent and brings nothing back."""
    async with bench.expecting("storage_unavailable"):
        bench.database_proxy.flowing.value = False
        await trio.sleep(max(LONGEST_TIMEOUT, bench.outage))
    bench.database_proxy.flowing.value = True
    bench.mended()


async def answer_lost(bench: Bench) -> None:
    """The connection is cut in the place of the answer to a commit: it happened, and nobody hears of it."""
    for _ in range(COMMITS):
        bench.database_proxy.answers_to_lose = 1
        await bench.wait_until(lambda: not bench.database_proxy.answers_to_lose, "no commit")
    bench.mended()


def broken_by(statement: str) -> Strike:
    """SQL that breaks the tables for a while."""

    async def strike(bench: Bench) -> None:
        await bench.query(statement)
        await trio.sleep(bench.outage)
        await bench.query(MEND)
        bench.mended()

    return strike


async def terminated(bench: Bench) -> None:
    """The backend is ended in the middle of a COPY, several times."""
    await bench.query(SLOW_COPY)
    ended = 0
    with trio.fail_after(bench.deadline):
        while ended < TERMINATIONS:
            ended += len(await bench.query(TERMINATE_COPY))
            await trio.sleep(LOOK_INTERVAL)
    await bench.query(MEND)
    bench.mended()


async def read_only(bench: Bench) -> None:
    """A primary that has become a standby takes connections, and writes nothing."""
    name = conninfo_to_dict(bench.database_url)["dbname"]
    async with bench.expecting("storage_unavailable"):
        await bench.query(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        await bench.query(TERMINATE_ALL)
        await trio.sleep(bench.outage)
    await bench.query(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
    await bench.query(TERMINATE_ALL)
    bench.mended()


def dropped(table: str) -> Strike:
    """Somebody drops a table under way."""

    async def strike(bench: Bench) -> None:
        await bench.query(f"{COPY_ASIDE.format(table=table)} DROP TABLE {table} CASCADE")
        with trio.fail_after(bench.deadline):
            while await bench.query(IS_MISSING.format(table=table)):  # noqa: ASYNC110 - nobody here makes it
                await trio.sleep(LOOK_INTERVAL)
        bench.mended()
        await bench.recovered()
        await bench.query(PUT_BACK.format(table=table, columns=COLUMNS[table]))

    return strike


async def column_dropped(bench: Bench) -> None:
    """Somebody drops a column under way: rows wait until it is there again, and the log says how."""
    statement = 'ALTER TABLE "kraken_trades" ADD COLUMN "order_type" text;'
    await bench.query(COPY_ASIDE.format(table="kraken_trades") + "ALTER TABLE kraken_trades DROP COLUMN order_type")

    def is_told() -> bool:
        return any(statement in str(event["error"]) for event in bench.worker.log.events("storage_unavailable"))

    await bench.wait_until(is_told, "the log does not say how to add the column")
    await bench.query(statement)
    bench.mended()
    await bench.recovered()
    await bench.query(FILL_COLUMN)


async def column_added(bench: Bench) -> None:
    """Somebody adds a column under way, and takes it away again."""
    for table in COLUMNS:
        await bench.query(f"ALTER TABLE {table} ADD COLUMN remark TEXT")
    await bench.recovered()
    for table in COLUMNS:
        await bench.query(f"ALTER TABLE {table} DROP COLUMN remark")


FAULTS = (
    Fault(
        "database refused at start",
        refused_at_start,
        DATABASE,
        starts=False,
        needs=frozenset({"own server"}),
        suite_only="there is but one first start; any later one may fall into an outage",
    ),
    Fault("database stopped", away(signal.SIGINT), DATABASE, needs=frozenset({"own server"})),
    Fault("database killed", away(signal.SIGKILL), DATABASE, needs=frozenset({"own server"})),
    Fault("database hanging", hanging, DATABASE, needs=frozenset({"database proxy"})),
    Fault("answer to a commit lost", answer_lost, DATABASE, needs=frozenset({"database proxy"})),
    Fault("backend terminated in COPY", terminated, DATABASE),
    Fault("database read-only", read_only, DATABASE),
    Fault("database's disk full", broken_by(DISK_FULL), DATABASE),
    Fault("commits of 2 s", broken_by(SLOW_COMMIT), DATABASE),
    Fault("book table dropped", dropped("kraken_orderbook"), DATABASE),
    Fault("trade table dropped", dropped("kraken_trades"), DATABASE),
    # A process that starts meanwhile refuses the table, and ends: at the start a person is there to read it.
    Fault("column dropped", column_dropped, DATABASE | PROCESS),
    Fault("column added", column_added, DATABASE),
)
