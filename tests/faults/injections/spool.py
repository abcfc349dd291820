"""The spool in trouble: its disk full, its limit near, its end torn, its rows rejected."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trio
from faults.bench import Bench, utc_now
from faults.fault import DATABASE, EVERYTHING, INSIDE, KRAKEN, PROCESS, REDIS, Fault, Strike
from faults.injections.database import start_again
from faults.lasting import in_lasting_thread
from faults.market import PAIRS

DISK = "40m"  # of the disk that is filled: the collector keeps 4 MiB and asks for 16 free ones to go on
FULL_FOR = 4.0  # seconds
CHUNK = bytes(64 * 1024)
LIMIT = 256 * 2**20  # bytes of SPOOL_MAX_BYTES; a thousandth of it is reached within seconds, see launcher.py
BEFORE_THE_CUT = 1.0  # seconds without a database
TORN_BYTES = 7
WORTH_TEARING = 1000  # bytes of a segment that holds rows
LOOK_INTERVAL = 0.01  # seconds
AHEAD, TRADES_AHEAD = 400, 100  # rows: some seconds of a pair, so that nothing is refused that is on its way
REJECT_BOOK = """
CREATE FUNCTION reject() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.chain = {chain} AND NEW.seq = {seq} THEN RAISE 'not this one' USING ERRCODE = '{state}'; END IF;
    RETURN NEW; END $$;
CREATE TRIGGER reject BEFORE INSERT ON kraken_orderbook FOR EACH ROW EXECUTE FUNCTION reject()
"""
REJECT_TRADE = """
ALTER TABLE kraken_trades ADD CONSTRAINT reject CHECK (pair <> '{pair}' OR trade_id <> {trade_id}) NOT VALID
"""
ACCEPT = "DROP FUNCTION reject CASCADE; ALTER TABLE kraken_trades DROP CONSTRAINT reject"
NEXT_ROW = f"""
SELECT chain, max(seq) + {AHEAD} FROM kraken_orderbook WHERE pair = '{PAIRS[0]}' GROUP BY chain
ORDER BY max(event_time) DESC LIMIT 1
"""
NEXT_TRADE = f"SELECT max(trade_id) + {TRADES_AHEAD} FROM kraken_trades WHERE pair = '{PAIRS[1]}'"


@contextmanager
def small_disk(directory: Path) -> Iterator[None]:
    """A disk of its own at a folder, where this process may mount one."""
    if os.geteuid() != 0:
        pytest.skip("a disk that can be filled takes root to mount")
    directory.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", directory], check=False, capture_output=True
    )
    if mount.returncode:
        pytest.skip(f"no disk can be mounted here: {mount.stderr.decode()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


def fill(disk: Path, seconds: float) -> None:
    """Take every byte of a disk, also those that are given back meanwhile."""
    ends = time.monotonic() + seconds
    with (disk / "ballast").open("wb", buffering=0) as ballast:
        while time.monotonic() < ends:
            try:
                ballast.write(CHUNK)
            except OSError:
                with suppress(OSError):
                    ballast.write(b"x")
                time.sleep(0.001)


async def disk_filled(bench: Bench) -> None:
    """Another program fills the disk, reserve and all, and then cleans up."""
    async with bench.expecting("intake_changed", intake="nothing"):
        await trio.to_thread.run_sync(fill, bench.spool.parent, FULL_FOR)
    (bench.spool.parent / "ballast").unlink()
    bench.mended()


async def disk_told_full(bench: Bench) -> None:
    """Every write meets a full disk for a while; a process that is just starting would end, and say why."""
    await bench.connected()
    async with bench.expecting("intake_changed", intake="nothing"):
        full = bench.tell("disk-full")
    await trio.sleep(FULL_FOR)
    full.unlink()
    bench.mended()


async def limit_reached(bench: Bench) -> None:
    """The database is away until the spool takes nothing any more."""
    async with bench.expecting("intake_changed", intake="all"):
        async with bench.expecting("intake_changed"):  # books go first, or all at once where much waits already
            small = bench.tell("small-room")
            await trio.to_thread.run_sync(bench.server.stop)
        await trio.sleep(FULL_FOR)
        await in_lasting_thread(start_again, bench.server)
        bench.mended()
    small.unlink()


async def torn(bench: Bench) -> None:
    """A power cut takes the end of the last segment, and with it the coverage of its last rows."""
    await trio.to_thread.run_sync(bench.server.stop)
    await trio.sleep(BEFORE_THE_CUT)
    with trio.fail_after(bench.deadline):
        while True:
            bench.worker.freeze()
            segment = max(bench.spool.glob("*.segment"))
            if segment.stat().st_size > WORTH_TEARING:
                break
            bench.worker.thaw()
            await trio.sleep(LOOK_INTERVAL)
    await bench.kill()
    with segment.open("ab") as file:
        file.truncate(segment.stat().st_size - TORN_BYTES)
    bench.exemptions.torn_at.append(utc_now())
    async with bench.expecting("segment_torn"):
        bench.start()
        await in_lasting_thread(start_again, bench.server)
        bench.mended()


def rejected(state: str) -> Strike:
    """PostgreSQL refuses one row of the book and one trade: each is kept in a file, and the rest goes on."""

    async def strike(bench: Bench) -> None:
        await bench.collecting()
        before = set(bench.spool.glob("rejected/*"))
        ((chain, seq),) = await bench.query(NEXT_ROW)
        ((trade_id,),) = await bench.query(NEXT_TRADE)
        async with bench.expecting("row_rejected", times=2):
            await bench.query(REJECT_BOOK.format(chain=chain, seq=seq, state=state))
            await bench.query(REJECT_TRADE.format(pair=PAIRS[1], trade_id=trade_id))
        bench.mended()
        await bench.recovered()
        await bench.query(ACCEPT)
        rows = book_rows_of(set(bench.spool.glob("rejected/*")) - before)
        numbers = [int(row[7]) for row in rows]
        assert numbers[0] == seq, "the rejected row is the first that is set apart"
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "no row between is missing"
        bench.exemptions.set_apart.add((PAIRS[0], rows[0][0]))
        bench.exemptions.rejected_trades.add((PAIRS[1], int(str(trade_id))))

    return strike


def book_rows_of(files: set[Path]) -> list[list[str]]:
    """The columns of the book rows that files of rejected rows hold, in their order."""
    kept = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    rows = [line["line"].split("\t") for line in kept if line["table"] == "kraken_orderbook"]
    return sorted(rows, key=lambda row: int(row[7]))


ALL_BUT_REDIS = EVERYTHING - REDIS
FAULTS = (
    # What a full disk holds up in memory goes with a process that is killed.
    Fault("spool's disk full (simulated)", disk_told_full, PROCESS | INSIDE, constants={}, reasons=["spool_full"]),
    Fault(
        "SPOOL_MAX_BYTES reached",
        limit_reached,
        DATABASE | PROCESS | INSIDE | KRAKEN,
        environment={"SPOOL_MAX_BYTES": str(LIMIT)},
        constants={},
        reasons=["spool_full"],
        needs=frozenset({"own server"}),
    ),
    Fault(
        "segment torn",
        torn,
        ALL_BUT_REDIS,
        needs=frozenset({"own server"}),
        reasons=["segment_lost"],
    ),
    *(
        Fault(f"row rejected ({state})", rejected(state), ALL_BUT_REDIS, reasons=["row_rejected"])
        for state in ("22000", "23514")
    ),
)


def disk_full(spool: Path) -> Fault:
    """The disk that holds a spool is filled by another program."""
    return Fault(
        "spool's disk full",
        disk_filled,
        PROCESS | INSIDE,
        environment={"SPOOL_DIR": str(spool)},
        reasons=["spool_full"],
        suite_only="it takes root, and a disk of its own for the spool",
    )
