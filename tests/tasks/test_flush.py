"""The flush task: records reach the database once, whatever the database, the disk and the network do meanwhile."""

import errno
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
import trio
from collecting import BOOK_COUNT, TRADE_COUNT, Kraken, count, settings_for, wait_until
from proxy import Proxy
from samples import LATER, TIME, batch, run, trade
from stored import coverage, stored_books, stored_trades
from structlog.testing import capture_logs
from trio_util import AsyncValue

from collector.assignment import CHANNELS, Assignment
from collector.errors import UnusableDatabase
from collector.feed import Doubts
from collector.records import Record
from collector.settings import Settings
from collector.statistics import Statistics
from collector.storage import segments
from collector.storage.database import connect
from collector.storage.identity import claim_database
from collector.storage.spool import Spool
from collector.tasks import flush as flush_module
from collector.tasks import ship
from collector.tasks.flush import flush

SOON, NEVER = 0.02, 60.0  # seconds of FLUSH_INTERVAL
AWAY = "postgresql://nobody@127.0.0.1:1/none"


@pytest.fixture(autouse=True)
def _find_database_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ship, "BACKOFF_CAP", 0.2)


class Flush:
    """What outlives a flush task: its spool, its channel and its counters."""

    def __init__(self, directory: Path) -> None:
        self.spool = Spool.open(directory)
        self.statistics = Statistics()
        self.assignment = Assignment()
        self.to_flush, self.records = trio.open_memory_channel[list[Record]](1000)

    async def run(self, settings: Settings) -> None:
        with trio.fail_after(30):
            await flush(settings, self.assignment, self.records, self.spool, Doubts(), self.statistics)


def settings_with(url: str, interval: float = SOON, rows: int = 5000, origin: str = "127.0.0.1") -> Settings:
    """Settings of a flush task; Kraken is not asked for anything."""
    kraken = Kraken()
    kraken.address = kraken.address._replace(ws_url=f"wss://{origin}/v2", rest_url="http://127.0.0.1:1")
    return settings_for(kraken, url, Path("unused"), flush_interval=interval, flush_rows=rows)


@pytest.fixture
def flushing(tmp_path: Path) -> AsyncIterator[Flush]:
    """A flush task's surroundings."""
    flushing = Flush(tmp_path / "spool")
    yield flushing
    flushing.spool.close()


@asynccontextmanager
async def running(flushing: Flush, settings: Settings) -> AsyncIterator[None]:
    """A flush task while the block is open, and until it has drained."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flushing.run, settings)
        yield
        await flushing.to_flush.aclose()


async def test_end_of_records_ships_what_is_left(flushing: Flush, migrated_url: str, tmp_path: Path) -> None:
    """Prevents an orderly stop from leaving rows behind in the spool."""
    async with running(flushing, settings_with(migrated_url, NEVER)):
        for number in range(0, 50, 5):
            await flushing.to_flush.send(batch(number, 5))
    assert [row.seq for row in stored_books(migrated_url)["BTC/USD", 1]] == list(range(50))
    assert [row.trade_id for row in stored_trades(migrated_url)] == list(range(50))
    assert coverage(migrated_url)[0].rows == 50
    assert flushing.statistics.stored_rows == flushing.statistics.rows == 100
    assert flushing.spool.waiting_rows == 0
    assert len(list((tmp_path / "spool").glob("*.segment"))) == 1, "only the new one, which is empty"


@pytest.mark.parametrize("why", ["interval", "rows", "bytes"])
async def test_segments_are_shipped_in_time(
    why: str, flushing: Flush, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents rows from waiting for more than FLUSH_INTERVAL, FLUSH_ROWS or a segment's size."""
    if why == "bytes":
        monkeypatch.setattr(flush_module, "SEGMENT_BYTES", 1000)
    settings = settings_with(migrated_url, SOON if why == "interval" else NEVER, 20 if why == "rows" else 5000)
    async with running(flushing, settings):
        await flushing.to_flush.send(batch(0, 10))
        await wait_until(lambda: count(migrated_url) == 10)


async def test_what_the_spool_holds_is_shipped_first(flushing: Flush, migrated_url: str, tmp_path: Path) -> None:
    """Prevents segments of an earlier process from staying behind, or from being shipped out of order."""
    for number in range(3):
        flushing.spool.append(batch(number, 1))
        file = flushing.spool.seal()
        assert file is not None
        flushing.spool.sync(file)
    flushing.spool.close()
    again = Flush(tmp_path / "spool")
    async with running(again, settings_with(migrated_url)):
        await again.to_flush.send([run(3, last_at=LATER, ended_at=LATER, end_reason="shutdown")])
    flushing.spool = again.spool
    assert [row.seq for row in stored_books(migrated_url)["BTC/USD", 1]] == [0, 1, 2]
    assert [(of.rows, of.end_reason) for of in coverage(migrated_url)] == [(3, "shutdown")]


async def test_full_disk_in_the_middle(flushing: Flush, migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a full disk from costing what was received, from storing it twice, and from taking in more."""
    monkeypatch.setattr(flush_module, "ROOM_INTERVAL", 0.02)
    channels = flushing.assignment.channels
    async with running(flushing, settings_with(migrated_url)):
        with monkeypatch.context() as full_disk:
            full_disk.setattr("collector.storage.spool._write_all", partial(_fail, errno.ENOSPC))
            await flushing.to_flush.send(batch(0, 5))
            await flushing.to_flush.send(batch(5, 5))
            await wait_until(lambda: not channels.value)
            await trio.sleep(0.2)
            assert (flushing.statistics.rows, channels.value) == (0, frozenset())
        await flushing.to_flush.send(batch(10, 5))
        await wait_until(lambda: channels.value == CHANNELS)
    assert [row.seq for row in stored_books(migrated_url)["BTC/USD", 1]] == list(range(15))
    assert count(migrated_url, TRADE_COUNT) == 15


def _fail(number: int, *_: object) -> None:
    raise OSError(number, os.strerror(number))


async def test_bug_in_an_append_keeps_the_batch(
    flushing: Flush, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents a crash before anything was written from costing the records that were being written."""
    with monkeypatch.context() as broken:
        broken.setattr(segments, "book_line", lambda _row: 1 / 0)
        await flushing.to_flush.send(batch(0, 5))
        with pytest.RaisesGroup(pytest.RaisesExc(ZeroDivisionError), flatten_subgroups=True):
            await flushing.run(settings_with(migrated_url))
    await flushing.to_flush.aclose()
    await flushing.run(settings_with(migrated_url))
    assert count(migrated_url) == 5


async def test_cancelled_while_sealing(flushing: Flush) -> None:
    """Prevents a stop at the moment of sealing from leaving a segment that nobody syncs, closes or ships."""
    flushing.spool.append(batch(0, 1))
    waiting = AsyncValue(0)
    file = flushing.spool._file
    with trio.CancelScope() as scope:
        scope.cancel()
        await flush_module._seal(flushing.spool, waiting)
    assert waiting.value == 1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)


async def test_lost_answers_to_commits(flushing: Flush, migrated_url: str, nursery: trio.Nursery) -> None:
    """Prevents rows whose commit was never confirmed from being stored twice, or not at all."""
    proxy = Proxy.in_front_of(migrated_url)
    await nursery.start(proxy.serve)
    async with running(flushing, settings_with(proxy.leading_to(migrated_url))):
        await flushing.to_flush.send(batch(0, 5))
        await wait_until(lambda: flushing.statistics.shipped_segments == 1)
        for number in range(1, 4):
            proxy.answers_to_lose = 1
            await flushing.to_flush.send(batch(number * 5, 5))
            await wait_until(lambda: proxy.answers_to_lose == 0)
        await wait_until(lambda: flushing.statistics.shipped_segments >= 4)
    assert proxy.connections >= 4
    assert [row.seq for row in stored_books(migrated_url)["BTC/USD", 1]] == list(range(20))
    assert [row.trade_id for row in stored_trades(migrated_url)] == list(range(20))


async def test_database_that_hangs(
    flushing: Flush, migrated_url: str, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents a server that holds the connection and is silent from stopping the shipping for good."""
    monkeypatch.setattr(ship.Session.call, "__kwdefaults__", {"timeout": 0.4})
    proxy = Proxy.in_front_of(migrated_url)
    await nursery.start(proxy.serve)
    async with running(flushing, settings_with(proxy.leading_to(migrated_url))):
        await flushing.to_flush.send(batch(0, 5))
        await wait_until(lambda: flushing.statistics.shipped_segments == 1)
        with capture_logs() as logs:
            proxy.flowing.value = False
            await flushing.to_flush.send(batch(5, 5))
            await wait_until(lambda: any(log["event"] == "storage_unavailable" for log in logs))
            await flushing.to_flush.send(batch(10, 5))
            proxy.flowing.value = True
        await wait_until(lambda: count(migrated_url) == 15)
    assert [row.seq for row in stored_books(migrated_url)["BTC/USD", 1]] == list(range(15))


async def test_appending_does_not_wait_for_the_database(flushing: Flush) -> None:
    """Prevents an outage from reaching the book task, and through it the socket."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flushing.run, settings_with(AWAY))
        for number in range(3000):
            await flushing.to_flush.send(batch(number, 1))
        await wait_until(lambda: flushing.statistics.rows == 6000)
        assert flushing.spool.waiting_rows == 6000
        nursery.cancel_scope.cancel()


async def test_table_that_is_dropped_under_way(flushing: Flush, migrated_url: str) -> None:
    """Prevents a schema that somebody changed from needing a new process, where migrating mends it."""
    async with running(flushing, settings_with(migrated_url)):
        await flushing.to_flush.send(batch(0, 5))
        await wait_until(lambda: flushing.statistics.shipped_segments == 1)
        with psycopg.connect(migrated_url) as connection:
            connection.execute("DROP TABLE kraken_orderbook")
        await flushing.to_flush.send(batch(5, 5))
        await wait_until(lambda: count(migrated_url, BOOK_COUNT) == 5)
    assert count(migrated_url, TRADE_COUNT) == 10


async def test_schema_that_migrating_does_not_mend(
    flushing: Flush, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents a schema that stays wrong from being retried as if it were an outage, without a crash to be seen."""
    monkeypatch.setattr(ship, "migrate", lambda _connection: [])
    with psycopg.connect(migrated_url) as connection:
        connection.execute("DROP TABLE kraken_trades")
    await flushing.to_flush.send(batch(0, 5))
    undefined = pytest.RaisesExc(psycopg.errors.UndefinedTable)
    with pytest.RaisesGroup(undefined, flatten_subgroups=True):
        await flushing.run(settings_with(migrated_url))
    assert flushing.spool.rows == 10, "what was received meanwhile is in the spool"


async def test_database_of_another_feed(flushing: Flush, migrated_url: str) -> None:
    """Prevents a simulator's rows from getting among Kraken's."""
    with connect(migrated_url, application_name="tests") as connection:
        claim_database(connection, "ws.kraken.com")
    await flushing.to_flush.send(batch(0, 5))
    with pytest.RaisesGroup(pytest.RaisesExc(UnusableDatabase), flatten_subgroups=True):
        await flushing.run(settings_with(migrated_url))
    assert count(migrated_url) == 0


async def test_segments_of_another_database(flushing: Flush, migrated_url: str, tmp_path: Path) -> None:
    """Prevents what belongs to another database from being stored here, or from holding up what belongs here."""
    other = UUID(int=5)
    flushing.spool.belongs_to(other)
    flushing.spool.append([trade(1)])
    flushing.spool.sync(flushing.spool.seal())
    flushing.spool.append([trade(2)])
    flushing.spool.close()
    again = Flush(tmp_path / "spool")
    with capture_logs() as logs:
        async with running(again, settings_with(migrated_url)):
            await again.to_flush.send([trade(3)])
    flushing.spool = again.spool
    assert [row.trade_id for row in stored_trades(migrated_url)] == [1, 3], "1 was received before any database was met"
    assert [log["segment"] for log in logs if log["event"] == "segment_of_another_database"] == [2]
    assert len(list((tmp_path / "spool" / f"of-database-{other}").iterdir())) == 1


async def test_database_that_is_swapped_under_way(flushing: Flush, migrated_url: str) -> None:
    """Prevents a run from being stored half in one database and half in another."""
    flushing.spool.belongs_to(UUID(int=5))
    flushing.spool.append([trade(1)])
    flushing.spool.sync(flushing.spool.seal())
    flushing.spool.synced_to = flushing.spool.number - 1
    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="another database"), flatten_subgroups=True):
        await flushing.run(settings_with(migrated_url))
    await flushing.to_flush.send([trade(2, event_time=TIME)])
    async with running(flushing, settings_with(migrated_url)):
        await wait_until(lambda: flushing.spool.successor is None)
        await flushing.to_flush.send([trade(3, event_time=TIME)])
    assert [row.trade_id for row in stored_trades(migrated_url)] == [1, 3], "2 was received for the other one"


async def test_folder_that_was_set_back(flushing: Flush, migrated_url: str, tmp_path: Path) -> None:
    """Prevents a folder that was restored or copied from having its new segments taken for ones stored long ago."""
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "spool", copy, ignore=shutil.ignore_patterns("lock"))
    async with running(flushing, settings_with(migrated_url)):
        for number in range(1, 4):
            await flushing.to_flush.send([trade(number)])
            await wait_until(lambda: not flushing.spool.open_rows and not flushing.spool.sealed)
    again = Flush(copy)
    again.spool.append([trade(4)])  # while no database had been met
    again.spool.sync(again.spool.seal())
    async with running(again, settings_with(migrated_url)):
        await again.to_flush.send([trade(5)])
    again.spool.close()
    assert [row.trade_id for row in stored_trades(migrated_url)] == [1, 2, 3, 4, 5]
