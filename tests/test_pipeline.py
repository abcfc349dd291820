"""The group: a crash in any of its tasks restarts all three and loses nothing that was appended; a stop drains."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import trio
import trio.lowlevel
from collecting import collecting, count, open_kraken, open_market, settings_for, wait_until
from stored import assert_prefixes, coverage, entries, sent_books, stored_books, stored_trades, verify_checksums
from structlog.testing import capture_logs

from collector import pipeline, supervisor
from collector.books import Books
from collector.errors import UnusableDatabase
from collector.kraken.messages import Decoder
from collector.pipeline import Collector
from collector.storage import spool as spool_module
from collector.storage.spool import Spool


@pytest.fixture(autouse=True)
def _restart_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "BACKOFF_BASE", 0.01)


def fail_once(monkeypatch: pytest.MonkeyPatch, owner: type | ModuleType, name: str) -> Callable[[], bool]:
    """Let the next call of a function fail; returns whether it has."""
    function = getattr(owner, name)
    failed = []

    def fail(*arguments: object) -> object:
        if not failed:
            failed.append(True)
            raise ZeroDivisionError("a bug")
        return function(*arguments)

    monkeypatch.setattr(owner, name, fail)
    return lambda: bool(failed)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        pytest.param(Decoder, "decode", id="socket"),
        pytest.param(Books, "take", id="book"),
        pytest.param(spool_module, "encode_records", id="flush"),
        pytest.param(Spool, "seal", id="seal"),
        pytest.param(Spool, "read", id="ship"),
    ],
)
async def test_crash_restarts_the_group(
    owner: type | ModuleType, name: str, migrated_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents a bug in one task from stopping the collector, from costing a row, or from leaving a run open."""
    async with open_market() as market, open_kraken(market) as kraken:
        with capture_logs() as logs:
            async with collecting(settings_for(kraken, migrated_url, tmp_path)) as collector:
                for _ in range(2):
                    stored = collector.statistics.stored_rows
                    await wait_until(lambda stored=stored: collector.statistics.stored_rows > stored + 100)
                    has_failed = fail_once(monkeypatch, owner, name)
                    await wait_until(has_failed)
                stored = collector.statistics.stored_rows
                await wait_until(lambda: collector.statistics.stored_rows > stored + 100)
    assert [log["task"] for log in logs if log["event"] == "crashed"] == ["group"] * 2
    chains = stored_books(migrated_url)
    assert len(chains) == collector.statistics.connections == collector.statistics.group.count == 3
    assert_prefixes(chains, kraken.sent)
    assert sum(verify_checksums(rows) for rows in chains.values()) == count(migrated_url)
    assert collector.statistics.rows >= count(migrated_url) + len(stored_trades(migrated_url))
    runs = coverage(migrated_url)
    assert [run.end_reason for run in runs] == ["crash", "crash", "shutdown"]
    assert {run.chain: run.rows for run in runs} == {chain: len(rows) for (_, chain), rows in chains.items()}
    assert collector.spool.sealed == {}


async def test_crash_of_the_flush_task_keeps_what_was_received(
    migrated_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents records on their way to the spool from dying with the task that was to write them."""
    produced = []
    take = Books.take

    def take_and_note(self: Books, batch: list, now: float) -> list:
        records = take(self, batch, now)
        produced.extend(records)
        return records

    monkeypatch.setattr(Books, "take", take_and_note)
    async with (
        open_market(rate=2000) as market,
        open_kraken(market) as kraken,
        collecting(settings_for(kraken, migrated_url, tmp_path)) as collector,
    ):
        for _ in range(3):
            rows = collector.statistics.rows
            await wait_until(lambda rows=rows: collector.statistics.rows > rows + 100)
            has_failed = fail_once(monkeypatch, spool_module, "encode_records")
            await wait_until(has_failed)
        rows = collector.statistics.rows
        await wait_until(lambda: collector.statistics.rows > rows + 100)
    made = {(row.chain, row.seq) for row in produced if hasattr(row, "seq")}
    stored = {(row.chain, row.seq) for rows in stored_books(migrated_url).values() for row in rows}
    assert stored <= made
    # What the book task held in its hand when it was cancelled is the end of its chain, at most one batch each time.
    for chain in {chain for chain, _ in made - stored}:
        of_chain = sorted(seq for number, seq in stored if number == chain)
        assert of_chain == list(range(len(of_chain)))


async def test_stop_drains(migrated_url: str, tmp_path: Path) -> None:
    """Prevents a stop from costing what was received, in the channels, in the spool or on the way to the database."""
    async with open_market(rate=2000) as market, open_kraken(market) as kraken:
        settings = settings_for(kraken, migrated_url, tmp_path, flush_interval=60, flush_rows=1_000_000)
        async with collecting(settings) as collector:
            await wait_until(lambda: collector.statistics.rows > 500)
            assert collector.statistics.stored_rows == 0
    ((_, rows),) = stored_books(migrated_url).items()
    stored = entries(rows)
    assert stored == sent_books(kraken.sent[1])["BTC/USD"][: len(stored)]
    assert collector.statistics.stored_rows == collector.statistics.rows == len(rows) + len(stored_trades(migrated_url))
    assert {run.end_reason for run in coverage(migrated_url) + coverage(migrated_url, "trade")} == {"shutdown"}


@pytest.mark.parametrize("moment", ["while it runs", "before the restart", "while it drains"])
async def test_stop_and_crash(moment: str, migrated_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a crash around a stop from costing what was appended, or from holding up the exit."""
    monkeypatch.setattr(supervisor, "BACKOFF_BASE", 20.0 if moment == "before the restart" else 0.01)
    monkeypatch.setattr(supervisor.random, "uniform", lambda _low, high: high)
    async with open_market() as market, open_kraken(market) as kraken:
        settings = settings_for(kraken, migrated_url, tmp_path, flush_interval=60, flush_rows=1_000_000)
        with capture_logs() as logs:
            async with collecting(settings) as collector:
                await wait_until(lambda: collector.statistics.rows > 100)
                if moment == "while it drains":
                    fail_once(monkeypatch, Spool, "read")
                else:
                    fail_once(monkeypatch, spool_module, "encode_records")
                    if moment == "before the restart":
                        await wait_until(lambda: any(log["event"] == "crashed" for log in logs))
                started = trio.current_time()
            assert trio.current_time() - started < supervisor.DRAIN_TIMEOUT
    assert [log["task"] for log in logs if log["event"] == "crashed"] == ["group"]
    assert_prefixes(stored_books(migrated_url), kraken.sent)
    assert count(migrated_url) > 30
    assert collector.statistics.stored_rows == collector.statistics.rows
    assert collector.spool.waiting_rows == 0


async def test_side_task_restarts_alone(migrated_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a bug beside the group from costing coverage."""
    crashes = []

    async def crash(_settings: object) -> None:
        crashes.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    monkeypatch.setattr(pipeline, "keep_partitions_ahead", crash)
    async with open_market() as market, open_kraken(market) as kraken:
        with capture_logs() as logs:
            async with collecting(settings_for(kraken, migrated_url, tmp_path)) as collector:
                await wait_until(lambda: len(crashes) > 3 and collector.statistics.stored_rows > 100)
    assert {log["task"] for log in logs if log["event"] == "crashed"} == {"partitions"}
    assert len(stored_books(migrated_url)) == 1
    assert [run.end_reason for run in coverage(migrated_url)] == ["shutdown"]


async def test_what_only_a_person_can_mend_ends_the_collector(migrated_url: str, tmp_path: Path) -> None:
    """Prevents a database that must not be written to from being tried again and again."""
    async with open_market() as market, open_kraken(market) as kraken:
        settings = settings_for(kraken, "postgresql://u:p@ss@host/d", tmp_path)
        spool = Spool.open(tmp_path)
        with pytest.raises(ExceptionGroup) as ended, trio.fail_after(10):
            await Collector(settings, spool).run()
        assert ended.value.split(UnusableDatabase)[1] is None  # from whichever of its tasks
        spool.close()
    assert count(migrated_url) == 0
