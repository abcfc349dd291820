"""Following the pairs that somebody looks at: one poller a pair, whose state all who look at it share.

Invariant: the database is asked as often for a hundred clients as for one, and not at all for none. A slow client
misses states, never trades of the tape; it costs the others nothing.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec
import trio
from trio_util import AsyncValue

from collector.dashboard import queries
from collector.dashboard.live_book import HISTORY, LiveBook, Sample
from collector.dashboard.reader import Reader
from collector.dashboard.views import BookView, Health, book_view, clock, health, utc_text
from collector.errors import BookDesync, StorageUnavailable, UnusableDatabase
from collector.kraken.orderbook import CHECKSUM_LEVELS
from collector.storage.database import Connection

POLL_INTERVAL = 0.5  # seconds: what FLUSH_INTERVAL is by default; more often there would be nothing new
TAPE = 60  # trades that are shown
LINGER = 30.0  # seconds that a pair is followed after the last client left: a page that reconnects goes on where it was
PAGE_ROWS = 5000  # of the book, in a query: some 5 MB
POLL_PAGES = 10  # in a poll, so that one that has much to catch up on is seen to proceed
# After a book that does not follow from its rows, seconds until it is tried again from the last checkpoint.
RETRY_AFTER = timedelta(seconds=10)
# By how much another collector's run may be ahead of the one that is followed, which is still open: two collectors of
# one pair report in turns.
LOYALTY = timedelta(seconds=10)


class Broken(NamedTuple):
    """A run whose rows do not make a book: why, and when it is tried again, by the database's clock."""

    chain: int
    why: str
    again_at: datetime


class PairState(msgspec.Struct, frozen=True):
    """What is known of a pair; `trades` are the latest, newest first."""

    health: Health
    book: BookView | None = None
    trades: tuple[queries.StoredTrade, ...] = ()
    samples: tuple[Sample, ...] = ()


class Follower:
    """One pair, followed.

    Attributes:
        state: what is known; replaced as a whole.
        version: counts the states, for who waits for the next.

    """

    def __init__(self, pair: str, reader: Reader) -> None:
        self.state = PairState(Health("silent", "Reading the database …"))
        self.version = AsyncValue(0)
        self.watchers = 0
        self._pair = pair
        self._reader = reader
        self._left_at = trio.current_time()
        self._samples: deque[Sample] = deque(maxlen=HISTORY)
        self._live: LiveBook | None = None
        self._broken: Broken | None = None

    async def run(self) -> None:
        """Follow the pair until nobody has looked at it for some time."""
        while self.watchers or trio.current_time() - self._left_at < LINGER:
            try:
                state = await self._reader.read(self._poll)
            except (StorageUnavailable, UnusableDatabase) as error:
                # What was known stays to be seen, and the page says that it is old.
                told = Health("outage", f"The database cannot be read: {error}.", self.state.health.covered_until)
                state = msgspec.structs.replace(self.state, health=told)
            if state != self.state:
                self.state = state
                self.version.value += 1
            await trio.sleep(POLL_INTERVAL)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Keep it followed while the block is open."""
        self.watchers += 1
        try:
            yield
        finally:
            self.watchers -= 1
            self._left_at = trio.current_time()

    def _poll(self, connection: Connection) -> PairState:
        """Read what is new, in a worker thread; no other touches what it works on meanwhile."""
        newest = next((trade.trade_id for trade in self.state.trades if trade.trade_id is not None), -1)
        new = queries.new_trades(connection, self._pair, newest, TAPE)
        followed = None if self._live is None else self._live.chain
        run = queries.latest_run(connection, self._pair, followed, LOYALTY)
        told, book = health(run), None
        if run is not None:
            try:
                book = self._follow(connection, run)
            except BookDesync as error:
                self._live, self._broken = None, Broken(run.chain, str(error), run.now + RETRY_AFTER)
            if self._broken is not None:
                told = Health("broken", f"No verified book: {self._broken.why}.", told.covered_until)
        return PairState(told, book, (*new, *self.state.trades)[:TAPE], tuple(self._samples))

    def _follow(self, connection: Connection, run: queries.Run) -> BookView | None:
        """The book as far as it is stored; None where its rows do not make one."""
        if self._live is None or self._live.chain != run.chain:
            history = timedelta(seconds=HISTORY)
            if self._broken is not None and self._broken.chain == run.chain:
                if run.now < self._broken.again_at:
                    return None
                history = timedelta(0)  # not from before the place where it broke
            start = queries.replay_start(connection, self._pair, run, run.last_at - history)
            if start is None:
                raise BookDesync(f"the run since {clock(run.started_at)} has no snapshot")
            self._live = LiveBook(run.chain, start.seq, self._samples)
            after = start.event_time
        else:
            after = self._live.time or run.started_at
        for _ in range(POLL_PAGES):
            rows = queries.book_rows(connection, self._pair, run.chain, self._live.next, PAGE_ROWS, after)
            for row in rows:
                self._live.take(row)
            if len(rows) < PAGE_ROWS:
                break
        self._broken = None
        if self._live.time is None:
            return None
        return _view(self._live, run)


def _view(live: LiveBook, run: queries.Run) -> BookView:
    sides = live.levels()
    if run.suspect_since is not None:
        sides = sides[0][:CHECKSUM_LEVELS], sides[1][:CHECKSUM_LEVELS]
    bids, asks = ([(level.price.decode(), level.size.decode()) for level in side] for side in sides)
    return book_view(utc_text(live.time or run.started_at), bids, asks)


class Followers:
    """The pairs that are followed, in the tasks of a nursery."""

    def __init__(self, nursery: trio.Nursery, reader: Reader) -> None:
        self._nursery = nursery
        self._reader = reader
        self._followers: dict[str, Follower] = {}

    @property
    def watchers(self) -> int:
        """How many look at any pair."""
        return sum(follower.watchers for follower in self._followers.values())

    @contextmanager
    def watching(self, pair: str) -> Iterator[Follower]:
        """Follow a pair while the block is open, together with whoever else does."""
        follower = self._followers.get(pair)
        if follower is None:
            follower = self._followers[pair] = Follower(pair, self._reader)
            self._nursery.start_soon(self._run, pair, follower)
        with follower.watched():
            yield follower

    async def _run(self, pair: str, follower: Follower) -> None:
        try:
            await follower.run()
        finally:
            del self._followers[pair]
