"""The followed book: the rows that are stored make the book that the database makes of them, or none."""

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from conftest import new_database
from embedded import EmbeddedPostgres
from simulated_store import simulate, store

from collector.dashboard import queries
from collector.dashboard.live_book import HISTORY, BookRow, LiveBook, Sample
from collector.errors import BookDesync
from collector.storage.database import Connection, connect
from collector.storage.history import book_at

PAIR = "BTC/USD"
AN_HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def stored(postgres_server: EmbeddedPostgres, migrated_template: str) -> Iterator[Connection]:
    """A database with one run of a pair, with evictions and checkpoints."""
    with new_database(postgres_server, "live_book", migrated_template) as url:
        store(url, simulate((PAIR,), count=1500))
        with connect(url, application_name="tests") as connection:
            yield connection


@pytest.fixture(scope="module")
def run(stored: Connection) -> queries.Run:
    found = queries.latest_run(stored, PAIR, None, AN_HOUR)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def rows(stored: Connection, run: queries.Run) -> list[BookRow]:
    return queries.book_rows(stored, PAIR, run.chain, 0, 100_000, run.started_at)


def digits(live: LiveBook) -> list[list[tuple[bytes, bytes]]]:
    return [[(level.price, level.size) for level in side] for side in live.levels()]


def test_book_is_that_of_the_database(stored: Connection, run: queries.Run, rows: list[BookRow]) -> None:
    """Prevents a live book that is another than kraken_book_at tells later, in any level or digit."""
    assert len({row.type for row in rows}) == 2
    assert any(row.evicted for row in rows)
    live = LiveBook(run.chain, 0, deque())
    places = range(0, len(rows), len(rows) // 7)
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        live.take(row)
        is_last_of_its_time = after is None or after.event_time > row.event_time
        if row.seq in places and is_last_of_its_time:
            assert live.time is not None
            found = book_at(stored, PAIR, live.time.replace(tzinfo=UTC))
            expected = [
                [(f"{level.price:f}".encode(), f"{level.size:f}".encode()) for level in side]
                for side in (found.bids, found.asks)
            ]
            assert digits(live) == expected


def test_begun_at_a_checkpoint_it_is_the_same(stored: Connection, run: queries.Run, rows: list[BookRow]) -> None:
    """Prevents a page that was opened later from showing another book."""
    whole = LiveBook(run.chain, 0, deque())
    for row in rows:
        whole.take(row)
    start = queries.replay_start(stored, PAIR, run, run.last_at)
    assert start is not None
    assert start.seq > 0
    late = LiveBook(run.chain, start.seq, deque())
    for row in rows[start.seq :]:
        late.take(row)
    assert digits(late) == digits(whole)


def test_replay_begins_no_later_than_asked_for(stored: Connection, run: queries.Run, rows: list[BookRow]) -> None:
    """Prevents a chart that is emptier than what is stored, and a replay that takes in a whole day."""
    checkpoints = [row for row in rows if row.type == "snapshot"]
    assert len(checkpoints) > queries.REPLAY_CHECKPOINTS
    since = checkpoints[-2].event_time + timedelta(microseconds=1)
    assert queries.replay_start(stored, PAIR, run, since) == (checkpoints[-2].seq, checkpoints[-2].event_time)
    oldest = checkpoints[-queries.REPLAY_CHECKPOINTS]
    assert queries.replay_start(stored, PAIR, run, run.started_at) == (oldest.seq, oldest.event_time)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda row: row._replace(checksum=row.checksum ^ 1), "the checksum of row 3 of the run 7 does not hold"),
        (lambda row: row._replace(seq=4), "row 3 of the run 7 is missing"),
        (lambda row: row._replace(bids="[[1, 2"), "row 3 of the run 7 cannot be read"),
        (lambda row: row._replace(evicted="[]"), "row 3 of the run 7 cannot be read"),
    ],
)
def test_wrong_row_is_refused(rows: list[BookRow], change: object, told: str) -> None:
    """Prevents a book that nobody has verified from being shown as one."""
    live = LiveBook(7, 0, deque())
    for row in rows[:3]:
        live.take(row)
    with pytest.raises(BookDesync, match=told):
        live.take(change(rows[3]))


def test_update_before_any_snapshot_is_refused(rows: list[BookRow]) -> None:
    """Prevents a book that is made of changes alone."""
    with pytest.raises(BookDesync, match="no snapshot"):
        LiveBook(7, 1, deque()).take(rows[1])


def test_each_second_is_sampled_once(run: queries.Run, rows: list[BookRow]) -> None:
    """Prevents seconds that are missing, double or miscounted, also where a book is begun again."""
    samples: deque[Sample] = deque(maxlen=HISTORY)
    for _ in range(2):
        live = LiveBook(run.chain, 0, samples)
        for row in rows:
            live.take(row)
    seconds = [sample.second for sample in samples]
    begun, ended = (int(row.event_time.replace(tzinfo=UTC).timestamp()) for row in (rows[0], rows[-1]))
    assert seconds == list(range(begun, ended))
    assert sum(sample.updates for sample in samples) == sum(
        row.type == "update" and row.event_time < datetime.fromtimestamp(ended, UTC).replace(tzinfo=None)
        for row in rows
    )
    assert all(sample.spread is not None and sample.spread > 0 for sample in samples)


def test_quiet_time_is_sampled_and_bounded(rows: list[BookRow]) -> None:
    """Prevents a quiet market from looking like a gap, and a long silence from taking all memory."""
    samples: deque[Sample] = deque()
    live = LiveBook(7, 0, samples)
    live.take(rows[0])
    live.take(rows[1]._replace(event_time=rows[0].event_time + timedelta(days=1)))
    assert len(samples) <= HISTORY + 1
    assert [sample.updates for sample in samples][1:] == [0] * (len(samples) - 1)
