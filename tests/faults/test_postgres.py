"""PostgreSQL in every kind of trouble: rows wait in the spool, and each is stored once when it is over."""

import signal
from datetime import UTC, datetime

import trio
from faults.bench import Bench, Fault, timestamp
from faults.injections_postgres import (
    SLOW_COMMIT,
    disk_full,
    killed,
    mend,
    read_only,
    slow,
    start_again,
    stopped,
    terminated,
)
from faults.lasting import in_lasting_thread
from faults.trial import Trial, TryFaults
from faults.worker import DEADLINE

COMMITTING = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'collector: flush' AND query = 'COMMIT' AND state = 'active'
"""
COMMITS = 3
LOOK_INTERVAL = 0.05  # seconds
REFUSED = 3.0  # seconds: some tries
HANG = 12.0  # seconds: longer than any timeout of the collector's


async def refused_at_start(bench: Bench) -> None:
    """There is no database when the collector starts."""
    assert bench.server is not None
    await trio.to_thread.run_sync(bench.server.stop, signal.SIGINT)
    bench.start()
    await bench.worker.wait_for("storage_unavailable")
    await trio.sleep(REFUSED)
    await in_lasting_thread(start_again, bench.server)
    bench.mended()


async def hanging(bench: Bench) -> None:
    """The network takes what is sent and brings nothing back."""
    proxy = await bench.proxy_database()
    await bench.warm_up()
    proxy.flowing.value = False
    await trio.sleep(HANG)
    assert bench.worker.events("storage_unavailable"), "no timeout ended the wait"
    proxy.flowing.value = True
    bench.mended()


async def answer_lost(bench: Bench) -> None:
    """The connection is cut in the middle of a commit: it happens, and nobody hears of it."""
    proxy = await bench.proxy_database()
    await bench.warm_up()
    await bench.query(SLOW_COMMIT)
    for _ in range(COMMITS):
        with trio.fail_after(DEADLINE):
            while not await bench.query(COMMITTING):  # noqa: ASYNC110 - it is PostgreSQL that is waited for
                await trio.sleep(LOOK_INTERVAL)
        proxy.cut()
    await mend(bench)
    bench.mended()


def dropped(table: str) -> Fault:
    """Somebody drops a table under way; what was in it is their affair."""

    async def fault(bench: Bench) -> None:
        await bench.query(f"DROP TABLE {table} CASCADE")
        bench.exemptions.table_gone_at[table] = timestamp(datetime.now(UTC))
        bench.mended()

    return fault


async def column_dropped(bench: Bench) -> None:
    """Somebody drops a column under way: rows wait until it is there again, and the log says how."""
    await bench.query("ALTER TABLE kraken_trades DROP COLUMN order_type")
    bench.exemptions.table_gone_at["kraken_trades"] = timestamp(datetime.now(UTC))
    await bench.worker.wait_for("storage_unavailable", count=2)
    assert 'ALTER TABLE "kraken_trades" ADD COLUMN "order_type" text;' in bench.worker.log.replace("\\", "")
    await bench.query("ALTER TABLE kraken_trades ADD COLUMN order_type TEXT")
    bench.mended()


async def column_added(bench: Bench) -> None:
    """Somebody adds a column under way."""
    await bench.query("ALTER TABLE kraken_orderbook ADD COLUMN remark TEXT")
    await bench.query("ALTER TABLE kraken_trades ADD COLUMN remark TEXT")


async def test_postgres(try_faults: TryFaults) -> None:
    """A database that fails in any way would lose rows, store them twice, or hold up the collection."""
    await try_faults(
        [
            Trial("database refused at start", refused_at_start, starts=False, own_server=True),
            Trial("database stopped", stopped, own_server=True),
            Trial("database killed", killed, own_server=True),
            Trial("database hanging", hanging, starts=False),
            Trial("answer to a commit lost", answer_lost, starts=False),
            Trial("backend terminated in COPY", terminated),
            Trial("database read-only", read_only),
            Trial("database's disk full", disk_full),
            Trial("commits of 2 s", slow),
            Trial("book table dropped", dropped("kraken_orderbook")),
            Trial("trade table dropped", dropped("kraken_trades")),
            Trial("column dropped", column_dropped),
            Trial("column added", column_added),
        ]
    )
