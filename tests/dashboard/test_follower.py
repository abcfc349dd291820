"""Following a pair: what is stored is what is known, once for all who look."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from zlib import crc32

import psycopg
import pytest
import trio
from collecting import DEADLINE
from simulated_store import records_of, simulate, store

from collector.dashboard import follower as module
from collector.dashboard.follower import Follower, Followers, PairState
from collector.dashboard.reader import Reader
from collector.kraken.simulator.simulation import simulated_frames
from collector.kraken.times import read_time
from collector.records import Coverage
from collector.storage.database import connect
from collector.storage.history import book_at

PAIR = "BTC/USD"


@asynccontextmanager
async def open_followers(url: str) -> AsyncIterator[Followers]:
    reader = Reader(url)
    async with trio.open_nursery() as nursery:
        yield Followers(nursery, reader)
        nursery.cancel_scope.cancel()
    reader.close()


async def wait_for_state(follower: Follower, wanted: object) -> PairState:
    """The first state that is as wanted."""
    with trio.fail_after(DEADLINE):
        while not wanted(follower.state):
            await follower.version.wait_value(lambda number, seen=follower.version.value: number > seen)
    return follower.state


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_INTERVAL", 0.02)


async def test_state_is_what_is_stored(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a book, a tape or a chart that is not that of the database, also where it comes in pages and pieces."""
    monkeypatch.setattr(module, "PAGE_ROWS", 100)
    monkeypatch.setattr(module, "POLL_PAGES", 2)
    frames = list(simulated_frames((PAIR,), 10, 1, 1600))
    whole = records_of(frames, (PAIR,), end=None)
    part = records_of(frames[:800], (PAIR,), end=None)
    store(migrated_url, part)
    async with open_followers(migrated_url) as followers:
        with followers.watching(PAIR) as follower:
            for records, segment in ((part, 1), (whole, 2)):
                if segment == 2:
                    store(migrated_url, [record for record in whole if record not in part], segment)
                last = max(record.event_time for record in records if not isinstance(record, Coverage))
                book_until = max(record.last_at for record in records if isinstance(record, Coverage))
                assert last <= book_until
                with connect(migrated_url, application_name="tests") as connection:
                    expected = book_at(connection, PAIR, read_time(_book_time(migrated_url)))
                state = await wait_for_state(
                    follower, lambda state: state.book is not None and state.book.time == _book_time(migrated_url)
                )
                assert state.book.bids == [(f"{level.price:f}", f"{level.size:f}") for level in expected.bids]
                assert state.book.asks == [(f"{level.price:f}", f"{level.size:f}") for level in expected.asks]
                with psycopg.connect(migrated_url) as connection:
                    ids = connection.execute(
                        "SELECT trade_id FROM kraken_trades ORDER BY trade_id DESC LIMIT 60"
                    ).fetchall()
                assert [(trade.trade_id,) for trade in state.trades] == ids
                assert state.health.state == "silent", "the simulated day is long gone"
            assert len(state.samples) > 3


def _book_time(url: str) -> str:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT max(event_time) FROM kraken_orderbook").fetchone()
    assert row is not None
    return row[0].isoformat(timespec="microseconds") + "Z"


async def test_run_that_follows_is_taken_up(migrated_url: str) -> None:
    """Prevents a page that shows the book of before a reconnect for ever, as if it were the present one."""
    store(migrated_url, simulate((PAIR,), count=200, end="closed_1012"))
    async with open_followers(migrated_url) as followers:
        with followers.watching(PAIR) as follower:
            state = await wait_for_state(follower, lambda state: state.book is not None)
            assert state.health.state == "ended"
            assert "closed_1012" in state.health.text
            _put_now(migrated_url)
            state = await wait_for_state(follower, lambda state: state.health.state == "live")
            assert state.book is not None
            assert (state.book.bids, state.book.asks) == ([("99.5", "1.00")], [("100.5", "2.00")])


def _put_now(url: str, chain: int = 9_000_000_000_000_000, checksum: int = 0) -> None:
    """A run that goes on now, with a book of one level a side."""
    checksum = checksum or crc32(b"1005200" + b"995100")
    now = datetime.now(UTC).replace(tzinfo=None)
    with psycopg.connect(url) as connection:
        day = now.date()
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS today PARTITION OF kraken_orderbook FOR VALUES FROM ('{day}') TO ('infinity')"
        )
        connection.execute(
            "INSERT INTO kraken_orderbook VALUES (%s, %s, '[[99.5, 1.00]]', '[[100.5, 2.00]]', 'snapshot', %s, %s, 0)",
            [now, PAIR, checksum, chain],
        )
        connection.execute(
            "INSERT INTO kraken_coverage VALUES (%s, 'book', %s, %s, %s, 0, 1, NULL, NULL, gen_random_uuid())",
            [PAIR, chain, now, now],
        )


async def test_book_that_does_not_hold_is_not_shown(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents rows that were damaged from being shown as a verified book, and a page that never tries again."""
    _put_now(migrated_url, checksum=1)
    async with open_followers(migrated_url) as followers:
        with followers.watching(PAIR) as follower:
            state = await wait_for_state(follower, lambda state: state.health.state == "broken")
            assert state.book is None
            assert "the checksum of row 0" in state.health.text
            monkeypatch.setattr(module, "RETRY_AFTER", timedelta(0))
            with psycopg.connect(migrated_url) as connection:
                connection.execute("UPDATE kraken_orderbook SET checksum = checksum + 1")
            state = await wait_for_state(follower, lambda state: "row 0" in state.health.text)
            assert state.book is None, "it is tried again, and still wrong"
            _put_now(migrated_url, chain=9_000_000_000_000_001)
            state = await wait_for_state(follower, lambda state: state.health.state == "live")
            assert state.book is not None


async def test_two_who_look_share_one_poller_that_ends(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a database that is asked once a viewer, or for ever after the last one has gone."""
    monkeypatch.setattr(module, "LINGER", 0.1)
    async with open_followers(migrated_url) as followers:
        with followers.watching(PAIR) as one, followers.watching(PAIR) as other, followers.watching("ETH/USD") as third:
            assert one is other
            assert one is not third
            assert followers.watchers == 3
            await wait_for_state(one, lambda state: state.health.state == "never")
        assert followers.watchers == 0
        with trio.fail_after(DEADLINE):
            while followers._followers:  # noqa: ASYNC110 - it has no event to wait for
                await trio.sleep(0.02)
        with followers.watching(PAIR) as again:
            assert again is not one
            await wait_for_state(again, lambda state: state.health.state == "never")


async def test_outage_is_told_beside_what_was_known(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents an outage from looking like an empty market, or from ending the page."""
    store(migrated_url, simulate((PAIR,), count=200))
    async with open_followers(migrated_url) as followers:
        with followers.watching(PAIR) as follower:
            known = await wait_for_state(follower, lambda state: state.book is not None)
            url = follower._reader._url
            follower._reader._url = "postgresql://postgres@127.0.0.1:1/nowhere"
            follower._reader.close()
            with psycopg.connect(url) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'collector: dashboard' AND datname = current_database()"
                )
            state = await wait_for_state(follower, lambda state: state.health.state == "outage")
            assert (state.book, state.trades) == (known.book, known.trades)
            follower._reader._url = url
            await wait_for_state(follower, lambda state: state.health.state == known.health.state)
