"""The repair task: asks the database which trades are missing, and fetches them over REST.

Start-up, reconnects, outages, crashes and a history that was asked for are one path. The database is asked as a whole
at the start and once a day, and every minute about what has come since. Nothing is asked before all that was appended
to the spool is committed, and no more than one page of trades is on its way through the spool at a time, so that
repair is never in the way of what arrives. That is also why it appends to the spool itself: the channel of records has
its places for the live feed, and pages of trades would take them. On a full disk the round ends, as without a
database; the spool keeps the page, and the next round begins with it. Where a history stands after a restart shows in
the table itself: what is fetched is stored in order, so that what is not is a gap like any other.
"""

import math
import time

import httpx2
import structlog
import trio
from trio_util import AsyncValue

from collector.errors import RestError, StorageUnavailable, UnknownPair
from collector.id_ranges import IdRange
from collector.kraken.rest import TRADES_LIMIT, TradesPage, to_trade
from collector.pair_repair import Neighbour, PairRepair
from collector.settings import Settings
from collector.statistics import Statistics
from collector.storage import missing_trades
from collector.storage.missing_trades import nanoseconds
from collector.storage.reserve import DISK_FULL
from collector.storage.spool import Spool
from collector.tasks.database import Session, open_session
from collector.tasks.paced_rest import PacedRest
from collector.tasks.repair_progress import RepairProgress, moment

INTERVAL = 60.0  # seconds from one look to the next
WHOLE_INTERVAL = 86_400.0  # seconds after which the whole table is looked at again
SNAPSHOT_GRACE = 3.0  # seconds from a connection to the look: its subscriptions, and the latest 50 trades, come first
OCCASION_POLL = 0.5  # seconds between two looks for a new connection or other pairs
SPOOL_POLL = 0.05  # seconds between two looks at the spool, which is no part of trio and signals nothing
SLICE_PAUSE = 0.1  # seconds between two slices, longer than one takes: the database does other things, too
OPEN_GAPS = 10_000  # gaps of a pair that are remembered; the rest is asked for when these are filled
RETRY_AFTER = 5.0  # seconds after a failure of the database, or on a full disk
LONG_GAP = 10 * TRADES_LIMIT  # trades, some ten seconds of work, from which on a person is told how it goes

log = structlog.get_logger()


async def repair(settings: Settings, pairs: AsyncValue[frozenset[str]], spool: Spool, statistics: Statistics) -> None:
    """Find and fill the gaps in the trades of `pairs`, for ever."""
    async with httpx2.AsyncClient(base_url=settings.kraken_rest_url) as client:
        rest = PacedRest(client)
        while True:
            try:
                with trio.move_on_after(WHOLE_INTERVAL):
                    await _Repairs(settings, pairs, spool, statistics, rest).run()
            except StorageUnavailable as error:  # when it is back, it may be an older one: everything is asked again
                await _wait(error)
            except OSError as error:
                if error.errno not in DISK_FULL:
                    raise
                await _wait(error)


async def repair_once(settings: Settings, pairs: frozenset[str], spool: Spool, statistics: Statistics) -> None:
    """Fill the gaps in the trades of `pairs` that REST can fill now, and record what it does not have.

    Ends early, with a warning, when REST or the disk fails: who asked for this has other things to do than to wait.

    Raises:
        StorageUnavailable: the database was lost on the way; what was filled until then is filled.

    """
    async with httpx2.AsyncClient(base_url=settings.kraken_rest_url) as client:
        repairs = _Repairs(settings, AsyncValue(pairs), spool, statistics, PacedRest(client, gives_up=True))
        brought: tuple[int, int] | None = None
        try:
            while brought != (now_brought := (statistics.repaired_trades, statistics.absent_trades)):
                brought = now_brought
                await repairs.look_and_work(deadline=math.inf)
            await repairs.look_and_work(deadline=math.inf)  # an id is absent only when a second look says the same
        except (RestError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in DISK_FULL:
                raise
            log.warning(
                "repair_ended_early",
                error=str(error),
                repaired=statistics.repaired_trades,
                effect="what is still missing stays so for now",
            )


async def _wait(error: Exception) -> None:
    log.info("repair_waits", error=str(error), retry_in=RETRY_AFTER)
    await trio.sleep(RETRY_AFTER)


async def settled(spool: Spool) -> None:
    """Wait until a database has everything that was appended to the spool before this call."""
    last = spool.number if spool.open_bytes else spool.number - 1
    while spool.database is None or next(iter(spool.sealed), spool.number) <= last:  # noqa: ASYNC110 - no event tells
        await trio.sleep(SPOOL_POLL)


class _Repairs:
    """The looks from one at the whole table to the next."""

    def __init__(
        self,
        settings: Settings,
        pairs: AsyncValue[frozenset[str]],
        spool: Spool,
        statistics: Statistics,
        rest: PacedRest,
    ) -> None:
        self._url = settings.database_url.get_secret_value()
        self._since = settings.backfill_since
        self._pairs = pairs
        self._spool = spool
        self._statistics = statistics
        self._rest = rest
        self._repairs: dict[str, PairRepair] = {}
        self._without_history: list[str] = []  # pairs whose history this look has still to find
        self._progress = RepairProgress()

    async def run(self) -> None:
        while True:
            await self._pairs.wait_value(bool)
            occasion, due = self._occasion(), trio.current_time() + INTERVAL
            await self.look_and_work(due)
            with trio.move_on_at(due):
                await self._wait_for_occasion(occasion)

    async def look_and_work(self, deadline: float) -> None:
        """Ask what is missing, and fetch it until nothing more can be done, or the deadline or an occasion comes."""
        occasion, before = self._occasion(), self._statistics.repaired_trades
        self._forget_yielded()
        self._spool.append([])  # the rest of a page that did not fit on a full disk
        await settled(self._spool)
        async with open_session(self._url, "collector: repair") as session:
            for pair in sorted(self._pairs.value):
                await self._look(session, pair)
            self._without_history = [pair for pair, known in self._repairs.items() if known.history_since is not None]
            while trio.current_time() < deadline and self._occasion() == occasion and await self._work(session):
                pass
        if repaired := self._statistics.repaired_trades - before:
            log.info("trades_repaired", trades=repaired, missing=self._statistics.missing_trades.total())

    def _occasion(self) -> tuple[int, frozenset[str]]:
        """What calls for a look when it changes."""
        return self._statistics.connections, self._pairs.value

    async def _wait_for_occasion(self, before: tuple[int, frozenset[str]]) -> None:
        while self._occasion() == before:  # noqa: ASYNC110 - a counter has no event
            await trio.sleep(OCCASION_POLL)
        await trio.sleep(SNAPSHOT_GRACE)

    def _forget_yielded(self) -> None:
        """Know nothing of pairs that another process collects now."""
        for pair in self._repairs.keys() - self._pairs.value:
            del self._repairs[pair], self._statistics.missing_trades[pair]

    async def _look(self, session: Session, pair: str) -> None:
        """Ask the database what is missing of a pair, from where it was asked before."""
        repair = self._repairs.get(pair) or await self._begin(session, pair)
        if repair is None:
            return
        repair.begin_look()
        is_last = False
        while not is_last and len(repair.gaps) < OPEN_GAPS:
            missing, repair.asked_to, is_last = await session.call(missing_trades.look, pair, repair.asked_to)
            repair.gaps += missing
            if not is_last:
                await trio.sleep(SLICE_PAUSE)
        self._count(pair)

    async def _begin(self, session: Session, pair: str) -> PairRepair | None:
        """Begin with a pair; None while nothing is stored of it, and so nothing missing."""
        adopted = await session.call(missing_trades.adopted_until, pair)
        first_id = await session.call(missing_trades.first_id, pair, adopted, timeout=missing_trades.FIRST_ID_TIMEOUT)
        if first_id is None:
            return None
        # What came behind an earlier collector's last row, until this one began, is a gap like any other.
        beginnings = [] if adopted is None else [nanoseconds(adopted) + 1000]
        if self._since is not None:
            beginnings.append(nanoseconds(self._since.replace(tzinfo=None)))
        repair = PairRepair(first_id, -1 if adopted is None else nanoseconds(adopted), max(beginnings, default=None))
        self._repairs[pair] = repair
        return repair

    async def _work(self, session: Session) -> bool:
        """Fetch one page; return whether there was anything to do."""
        found = self._next_gap()
        if self._without_history and (found is None or found[1].size >= LONG_GAP):
            await self._find_history(session, self._without_history.pop())
        elif found is not None:
            await self._fill(session, *found)
        else:
            return False
        return True

    async def _find_history(self, session: Session, pair: str) -> None:
        """Find the trade with which a history begins."""
        repair = self._repairs[pair]
        since = repair.history_since
        if since is None or self._rest.refuses(pair):
            return
        page = await self._fetch(pair, since - 1)
        if page is None:
            return
        gap = repair.take_history(page, since)
        if gap is not None:
            log.info("history_found", pair=pair, trades=gap.size, since=moment(since))
            await self._take(session, pair, gap, page, since - 1)

    def _next_gap(self) -> tuple[str, IdRange] | None:
        """The shortest gap of any pair that can be filled now."""
        gaps = [
            (pair, gap)
            for pair, repair in self._repairs.items()
            if pair in self._pairs.value and not self._rest.refuses(pair) and (gap := repair.next_gap()) is not None
        ]
        return min(gaps, key=lambda found: found[1].size, default=None)

    async def _fill(self, session: Session, pair: str, gap: IdRange) -> None:
        """Fetch the page of trades that shows the beginning of a gap."""
        repair = self._repairs[pair]
        below = await session.call(missing_trades.neighbour, pair, gap.first)
        if below is None:  # somebody deleted all rows below the gap: nothing shows any more that it is one
            repair.put_off(gap)
            return
        since = repair.cursor(gap, Neighbour(below[0], nanoseconds(below[1])))
        page = await self._fetch(pair, since)
        if page is None:
            repair.put_off(gap)
        else:
            await self._take(session, pair, gap, page, since)

    async def _fetch(self, pair: str, since: int) -> TradesPage | None:
        """A page of trades, and before it what its storing takes; None when REST has none of it now, as is told.

        Raises:
            RestError: REST is away, and nobody comes again.

        """
        try:
            await self._rest.precision(pair)
            return await self._rest.trades(pair, since)
        except UnknownPair:
            return None
        except RestError:
            if self._rest.gives_up:
                raise
            return None

    async def _take(self, session: Session, pair: str, gap: IdRange, page: TradesPage, since: int) -> None:
        """Send what a page brings to the database."""
        precision = await self._rest.precision(pair)
        taken = self._repairs[pair].take(page, gap, since, TRADES_LIMIT, time.time_ns())
        if taken.is_stuck:
            log.error(
                "rest_cursor_stuck",
                pair=pair,
                since=since,
                first_id=gap.first,
                last_id=gap.last,
                detail=f"more than {TRADES_LIMIT} trades within one nanosecond, or a cursor that does not move",
            )
        if taken.absent:
            await session.call(missing_trades.record_absent, pair, taken.absent)
            self._statistics.absent_trades += sum(ids.size for ids in taken.absent)
            log.warning("trades_absent_at_kraken", pair=pair, ids=taken.absent)
        if taken.trades:
            self._spool.append([to_trade(trade, pair, precision) for trade in taken.trades])
            self._statistics.repaired_trades += len(taken.trades)
            await settled(self._spool)
            if gap.size >= LONG_GAP:
                self._progress.note(pair, gap, len(taken.trades), taken.trades[-1].nanoseconds)
        self._count(pair)

    def _count(self, pair: str) -> None:
        self._statistics.missing_trades[pair] = sum(gap.size for gap in self._repairs[pair].gaps)
