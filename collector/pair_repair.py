"""What is known to be missing of one pair's trades, and what a page of Kraken's REST interface changes about it.

Pure: ids and nanoseconds in, ids out. An id counts as absent at Kraken's only when two answers, from two looks, show
both of its neighbours in order and not itself, and when those are old enough that nothing is written there any more.
An answer that is an error, empty, cut short or out of order proves nothing.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from collector.id_ranges import IdRange, between, common, contains, without
from collector.kraken.rest import RestTrade, TradesPage

# A stored time is cut to microseconds, and REST's are floats, of which the nearest to a time may lie 120 ns behind it.
TIME_MARGIN = 1000  # nanoseconds
JUDGE_AFTER = 60 * 10**9  # nanoseconds after which a trade that REST does not show is not on its way there any more


class Neighbour(NamedTuple):
    """The stored trade just below a gap: its id, and its time in nanoseconds."""

    trade_id: int
    nanoseconds: int


class Taken(NamedTuple):
    """What a page brought: trades that were missing, ids that Kraken does not have, whether its cursor is stuck."""

    trades: list[RestTrade]
    absent: list[IdRange]
    is_stuck: bool


class PairRepair:
    """The missing trades of one pair.

    Attributes:
        gaps: the ids that are missing, as far as the database has been asked.
        asked_to: the id up to which it has been.
        adopted_until: the time in nanoseconds up to which an earlier collector's rows reach, -1 without any: trades
            up to it are stored already, under no id.
        history_since: the time in nanoseconds from which history is still to be found, None when it has been.

    """

    def __init__(self, first_id: int, adopted_until: int, history_since: int | None) -> None:
        self.gaps: list[IdRange] = []
        self.asked_to = first_id
        self.adopted_until = adopted_until
        self.history_since = history_since
        self._first_id = first_id
        self._later: set[IdRange] = set()
        self._suspected: set[IdRange] = set()
        self._found: set[IdRange] = set()
        self._page_end = Neighbour(0, 0)

    def begin_look(self) -> None:
        """Try again what was put off; what was not to be found since the last look is under suspicion now."""
        self._later.clear()
        self._suspected, self._found = self._found, set()

    def next_gap(self) -> IdRange | None:
        """The gap to work on: the shortest, so that a hole of the moment does not wait for hours of history."""
        return min((gap for gap in self.gaps if gap not in self._later), key=lambda gap: gap.size, default=None)

    def put_off(self, gap: IdRange) -> None:
        """Leave a gap alone until the next look."""
        self._later.add(gap)

    def cursor(self, gap: IdRange, neighbour: Neighbour) -> int:
        """The `since` of the page that shows the beginning of a gap, its lower neighbour included.

        It is one nanosecond before the last row of the page before, where that is nearer: so the next page repeats
        that row whether `since` includes its own time or not.
        """
        nearest = neighbour.nanoseconds - TIME_MARGIN
        return max(nearest, self._page_end.nanoseconds) if self._page_end.trade_id < gap.first else nearest

    def take_history(self, page: TradesPage, since: int) -> IdRange | None:
        """Note how far the history that was asked for reaches; return the gap that it makes, None where it is whole."""
        self.history_since = None
        found = (trade.trade_id for trade in page.trades if trade.nanoseconds >= since and trade.trade_id > 0)
        first = next(found, self._first_id)
        if first >= self._first_id:
            return None
        gap = IdRange(first, self._first_id - 1)
        self._first_id = first
        self.gaps.insert(0, gap)
        return gap

    def take(self, page: TradesPage, gap: IdRange, since: int, limit: int, now: int) -> Taken:
        """What a page brings that was asked for `gap` from `since` on, with at most `limit` rows."""
        if not page.trades:
            self.put_off(gap)
            return Taken([], [], is_stuck=False)
        ids = sorted({trade.trade_id for trade in page.trades})
        missing = [trade for trade in page.trades if contains(self.gaps, trade.trade_id)]
        self.gaps = without(self.gaps, [IdRange(number, number) for number in ids])
        absent = self._judge(page.trades, now)
        self.gaps = without(self.gaps, absent)
        before, self._page_end = self._page_end, Neighbour(ids[-1], _next_cursor(page))
        is_stuck = False
        if ids[-1] < gap.first:  # rows of its neighbour's time filled the page, or REST is not that far yet
            is_full = len(page.trades) >= limit
            is_stuck = is_full and self._page_end.nanoseconds <= since
            if is_stuck or not is_full:
                self._page_end = before
                self.put_off(gap)
        self._later.update(left for left in self.gaps if left.first <= ids[-1] and left.last >= min(gap.first, ids[0]))
        fresh = [trade for trade in missing if trade.nanoseconds // 1000 > self.adopted_until // 1000]
        return Taken(fresh, absent, is_stuck)

    def _judge(self, rows: Sequence[RestTrade], now: int) -> list[IdRange]:
        """The missing ids that are absent at Kraken's; those that seem so for the first time become suspects."""
        if any(low.trade_id >= high.trade_id for low, high in pairwise(rows)):
            return []
        old = [row.trade_id for row in rows if row.nanoseconds < now - JUDGE_AFTER]
        seen = set(common(self.gaps, between(old)))
        self._found |= seen - self._suspected
        return sorted(seen & self._suspected)


def _next_cursor(page: TradesPage) -> int:
    """Just before the last row of a page, by its own time where Kraken left out `last`, as it does at times."""
    if page.last is None:
        return page.trades[-1].nanoseconds - TIME_MARGIN
    return page.last - 1
