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
from faults.bench import PAIRS, Bench, Fault
from faults.injections_postgres import start_again
from faults.lasting import in_lasting_thread
from faults.sent import Entry, SentTrade
from faults.trial import Trial, TryFaults

DISK = "40m"  # of the disk that is filled: the collector keeps 4 MiB and asks for 16 free ones to go on
FULL_FOR = 4.0  # seconds
CHUNK = bytes(64 * 1024)
SMALL_ROOM = {  # of SPOOL_MAX_BYTES, whose least is 16 MiB: reached within seconds of an outage
    "collector.storage.room:BOOKS_SHARE": 0.02,
    "collector.storage.room:TRADES_SHARE": 0.04,
    "collector.storage.room:RESUME_SHARE": 0.01,
}
TORN_BYTES = 7
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
NEXT_ROW = f"SELECT chain, max(seq) + {AHEAD} FROM kraken_orderbook WHERE pair = '{PAIRS[0]}' GROUP BY chain"
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
    await trio.to_thread.run_sync(fill, bench.spool.parent, FULL_FOR)
    intakes = [event["intake"] for event in bench.worker.events("intake_changed")]
    assert "nothing" in intakes
    (bench.spool.parent / "ballast").unlink()
    bench.mended()


async def disk_told_full(bench: Bench) -> None:
    """Every write meets a full disk for a while."""
    full = bench.tell("disk-full")
    await bench.worker.wait_for("intake_changed")
    await trio.sleep(FULL_FOR)
    full.unlink()
    bench.mended()


async def limit_reached(bench: Bench) -> None:
    """The database is away until the spool takes nothing any more."""
    assert bench.server is not None
    await trio.to_thread.run_sync(bench.server.stop)
    await bench.worker.wait_for("intake_changed")
    await trio.sleep(FULL_FOR)
    await in_lasting_thread(start_again, bench.server)
    bench.mended()


async def torn(bench: Bench) -> None:
    """A power cut takes the end of the last segment, and with it the coverage of its last rows."""
    assert bench.server is not None
    await trio.to_thread.run_sync(bench.server.stop)
    await trio.sleep(1)
    await bench.kill()
    segment = max(bench.spool.glob("*.segment"), key=lambda path: (path.stat().st_size > 1000, path.name))
    with segment.open("ab") as file:
        file.truncate(segment.stat().st_size - TORN_BYTES)
    bench.start()
    await in_lasting_thread(start_again, bench.server)
    bench.mended()
    await bench.worker.wait_for("segment_torn")


def rejected(state: str) -> Fault:
    """PostgreSQL refuses one row of the book and one trade: each is kept in a file, and the rest goes on."""

    async def fault(bench: Bench) -> None:
        pair = PAIRS[0]
        ((chain, seq),) = await bench.query(NEXT_ROW)
        await bench.query(REJECT_BOOK.format(chain=chain, seq=seq, state=state))
        ((trade_id,),) = await bench.query(NEXT_TRADE)
        await bench.query(REJECT_TRADE.format(pair=PAIRS[1], trade_id=trade_id))
        await bench.worker.wait_for("row_rejected", count=2)
        files = [path.read_text() for path in bench.spool.glob("rejected/*")]
        kept = [json.loads(line) for text in files for line in text.splitlines()]
        rows = [line["line"].split("\t") for line in kept if line["table"] == "kraken_orderbook"]
        rows.sort(key=lambda row: int(row[7]))
        numbers = [int(row[7]) for row in rows]
        assert numbers[0] == seq, "the rejected row is the first that is set apart"
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "no row between is missing"
        first = rows[0][0]

        def is_set_apart(of: str, entry: Entry) -> bool:
            return of == pair and entry.time == first

        def is_rejected(trade: SentTrade) -> bool:
            return (trade.pair, trade.trade_id) == (PAIRS[1], trade_id)

        bench.exemptions.ends_before = is_set_apart
        bench.exemptions.trade_missing = is_rejected

    return fault


async def test_spool(try_faults: TryFaults) -> None:
    """A spool without room, or with what cannot be stored, would lose what was received, or hold up the rest."""
    await try_faults(
        [
            Trial("spool's disk full (simulated)", disk_told_full, constants={}, reasons=["spool_full"]),
            Trial(
                "SPOOL_MAX_BYTES reached",
                limit_reached,
                {"SPOOL_MAX_BYTES": str(16 * 2**20)},
                SMALL_ROOM,
                reasons=["spool_full"],
                own_server=True,
            ),
            Trial("segment torn", torn, own_server=True, reasons=["segment_lost"]),
            Trial("row rejected (22000)", rejected("22000"), reasons=["row_rejected"]),
            Trial("row rejected (23514)", rejected("23514"), reasons=["row_rejected"]),
        ]
    )


async def test_full_disk(try_faults: TryFaults, tmp_path: Path) -> None:
    """A disk that another program fills would end the collector, or cost it what it had received."""
    with small_disk(tmp_path / "disk"):
        spool = tmp_path / "disk" / "spool"
        await try_faults([Trial("spool's disk full", disk_filled, {"SPOOL_DIR": str(spool)}, reasons=["spool_full"])])
