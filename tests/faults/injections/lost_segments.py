"""Segments that are lost: damaged on the disk before they were shipped, or forgotten by a database."""

import json
import shutil
import subprocess
from pathlib import Path

import trio
from embedded import EmbeddedPostgres
from faults.bench import Bench, utc_now
from faults.fault import EVERYTHING, Fault, Strike
from faults.injections.database import start_again
from faults.lasting import in_lasting_thread
from faults.market import PAIRS
from faults.queries import timestamp

from collector.storage.segments import read_segment

WAITING = 2.0  # seconds for which segments pile up, and for which a database takes what it forgets again
STORED_UNTIL = """SELECT pair, to_char(max(event_time), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') FROM kraken_orderbook
WHERE (pair, chain) IN (SELECT pair, chain FROM kraken_coverage WHERE end_reason = 'segment_lost' AND channel = 'book')
GROUP BY pair"""
TRADE_HOLES = """SELECT pair, trade_id + 1, next_id - 1 FROM (
    SELECT pair, trade_id, lead(trade_id) OVER (PARTITION BY pair ORDER BY trade_id) AS next_id FROM kraken_trades
) AS ids WHERE next_id > trade_id + 1"""


def damage(spool: Path) -> tuple[dict[str, str], set[tuple[str, int]]]:
    """Overwrite a segment in the middle; by pair, the time of its first book row, and the trades that it had."""
    segments = sorted(spool.glob("*.segment"))
    path = segments[len(segments) // 2]
    segment = read_segment(path.read_bytes())
    assert segment is not None
    path.write_bytes(bytes(path.stat().st_size))
    first: dict[str, str] = {}
    for line in b"".join(segment.book).splitlines():
        time, pair, *_ = line.decode().split("\t")
        first.setdefault(pair, time)
    trades = [line.decode().split("\t") for line in b"".join(segment.trades).splitlines()]
    return first, {(fields[1], int(fields[6])) for fields in trades}


async def damaged(bench: Bench) -> None:
    """A bad block of the disk hits a segment that waits for the database, amid others."""
    await trio.to_thread.run_sync(bench.server.stop)
    await trio.sleep(WAITING)
    first, trades = await trio.to_thread.run_sync(damage, bench.spool)
    assert set(first) == set(PAIRS)
    bench.exemptions.set_apart |= set(first.items())
    bench.exemptions.rejected_trades |= trades
    async with bench.expecting("run_broken", times=len(PAIRS)):
        await in_lasting_thread(start_again, bench.server)
        bench.mended()
    assert list((bench.spool / "damaged").iterdir())
    assert_rows_are_kept(bench.spool)


def keep_copy(server: EmbeddedPostgres) -> Path:
    """A backup of a server that is stopped."""
    copy = server.directory.with_name("copy")
    subprocess.run(["cp", "-a", server.directory, copy], check=True)
    return copy


def restore(server: EmbeddedPostgres, copy: Path) -> None:
    """Put the backup into the place of the data."""
    shutil.rmtree(server.directory)
    copy.rename(server.directory)


async def set_back(bench: Bench) -> None:
    """The database is restored from a backup, and has forgotten what it committed since."""
    await trio.to_thread.run_sync(bench.server.stop)
    copy = await trio.to_thread.run_sync(keep_copy, bench.server)
    await in_lasting_thread(start_again, bench.server)
    await bench.collecting()
    await trio.sleep(WAITING)
    await trio.to_thread.run_sync(bench.server.stop)
    await trio.to_thread.run_sync(restore, bench.server, copy)
    async with bench.expecting("segments_lost"), bench.expecting("run_broken", times=len(PAIRS)):
        await in_lasting_thread(start_again, bench.server)
        bench.mended()
        back_at = timestamp(utc_now())
    holes = await bench.query(TRADE_HOLES)
    stored_until = {str(pair): str(time) for pair, time in await bench.query(STORED_UNTIL)}
    bench.exemptions.set_apart |= {
        (segment.pair, entry.event_time)
        for segment in bench.log.segments()
        for entry in segment.entries
        if stored_until[segment.pair] < entry.event_time < back_at
    }
    bench.exemptions.rejected_trades |= {
        (trade.pair, trade.trade_id)
        for _, _, trade in bench.log.trades()
        if any(pair == trade.pair and first <= trade.trade_id <= last for pair, first, last in holes)
    }
    assert_rows_are_kept(bench.spool)


def assert_rows_are_kept(spool: Path) -> None:
    """What fits no chain any more is in files, each chain from the hole on without another one."""
    kept = [json.loads(line) for path in (spool / "rejected").iterdir() for line in path.read_text().splitlines()]
    numbers: dict[tuple[str, str], list[int]] = {}
    for row in kept:
        fields = row["line"].split("\t")
        numbers.setdefault((fields[1], fields[6]), []).append(int(fields[7]))
    assert {pair for pair, _ in numbers} == set(PAIRS)
    for seqs in numbers.values():
        assert sorted(seqs) == list(range(min(seqs), min(seqs) + len(seqs)))


def lost(name: str, strike: Strike) -> Fault:
    """A fault that costs rows by its nature, and must say so."""
    return Fault(
        name,
        strike,
        EVERYTHING,
        reasons=["segment_lost"],
        needs=frozenset({"own server"}),
        suite_only="what it costs can be told from what another fault costs only while it is alone",
    )


FAULTS = (lost("waiting segment damaged", damaged), lost("database set back", set_back))
