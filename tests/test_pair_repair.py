"""What pages of REST change about what is known to be missing, without any REST."""

from bisect import bisect_left
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from collector.id_ranges import IdRange
from collector.kraken.rest import RestTrade, TradesPage
from collector.pair_repair import JUDGE_AFTER, Neighbour, PairRepair, Taken

START = 1_700_000_000_000_000_000
NOW = START + 10 * JUDGE_AFTER
LIMIT = 10


def trade(number: int, time: int) -> RestTrade:
    return RestTrade(number, time, b"1.00000", b"1.00000000", "buy", "limit")


class Rest:
    """A history of Kraken's, page by page; `since` includes its own time."""

    def __init__(self, trades: list[RestTrade], limit: int = LIMIT) -> None:
        self.trades = trades
        self.limit = limit
        self.requests = 0

    def page(self, since: int) -> TradesPage:
        self.requests += 1
        start = bisect_left(self.trades, since, key=lambda told: told.nanoseconds)
        rows = self.trades[start : start + self.limit]
        return TradesPage(rows, rows[-1].nanoseconds if rows else since)


def repair_all(repair: PairRepair, rest: Rest, stored: dict[int, int], now: int = NOW) -> list[Taken]:
    """Work on gaps until a look has nothing left to do; `stored` (times by id) gets what is fetched."""
    taken = []
    repair.begin_look()
    while (gap := repair.next_gap()) is not None:
        below = max(number for number in stored if number < gap.first)
        since = repair.cursor(gap, Neighbour(below, stored[below] // 1000 * 1000))
        taken.append(repair.take(rest.page(since), gap, since, rest.limit, now))
        stored |= {told.trade_id: told.nanoseconds for told in taken[-1].trades}
        assert rest.requests < 10_000, "it never ends"
    return taken


def repair_of(gaps: list[IdRange], first_id: int = 1) -> PairRepair:
    repair = PairRepair(first_id, -1, None)
    repair.gaps = list(gaps)
    return repair


def gaps_of(stored: dict[int, int]) -> list[IdRange]:
    return [IdRange(low + 1, high - 1) for low, high in pairwise(sorted(stored)) if high - low > 1]


HISTORIES = st.lists(st.sampled_from([0, 0, 1, 1000, 5 * 10**8]), min_size=2, max_size=80)


@given(HISTORIES, st.data())
def test_all_that_kraken_has_is_fetched_and_all_that_it_lacks_is_told(gaps: list[int], data: st.DataObject) -> None:
    """Prevents a trade that is never fetched, one fetched twice, a false absence, and a loop without end."""
    times = [START + sum(gaps[: place + 1]) for place in range(len(gaps))]
    kraken = dict(enumerate(times, 1))
    inner = list(kraken)[1:-1]
    lost = data.draw(st.sets(st.sampled_from(inner)) if inner else st.just(set()))
    absent = data.draw(st.sets(st.sampled_from(sorted(lost))) if lost else st.just(set()))
    stored = {number: time for number, time in kraken.items() if number not in lost}
    # No more rows of one microsecond than a page holds, or only their own cursor tells them apart.
    rest = Rest([trade(number, time) for number, time in kraken.items() if number not in absent], limit=90)
    repair = repair_of(gaps_of(stored))
    taken = repair_all(repair, rest, stored)
    fetched = [told.trade_id for page in taken for told in page.trades]
    assert sorted(fetched) == sorted(lost - absent)
    assert not any(page.absent for page in taken), "one answer is no proof"
    again = repair_all(repair, rest, stored)
    proven = {number for page in again for ids in page.absent for number in range(ids.first, ids.last + 1)}
    assert proven == absent
    assert repair.gaps == []


@given(st.sets(st.integers(2, 499)))
def test_no_more_pages_than_the_gaps_take(lost: set[int]) -> None:
    """Prevents a request for each missing trade, where one page has many of them."""
    stored = {number: START + number * 10**6 for number in range(1, 501) if number not in lost}
    rest = Rest([trade(number, START + number * 10**6) for number in range(1, 501)], limit=100)
    repair = repair_of(gaps_of(stored))
    repair_all(repair, rest, stored)
    assert len(stored) == 500
    # Each page but the first of a stretch begins where another ended; the shortest gap goes first, wherever it is.
    assert rest.requests <= 2 * 500 // 99 + 2


def test_long_gap_waits_for_a_short_one() -> None:
    """Prevents the hole of the moment from waiting for hours of history."""
    repair = repair_of([IdRange(2, 100_000), IdRange(100_500, 100_501)])
    assert repair.next_gap() == IdRange(100_500, 100_501)
    repair.put_off(IdRange(100_500, 100_501))
    assert repair.next_gap() == IdRange(2, 100_000)
    repair.begin_look()
    assert repair.next_gap() == IdRange(100_500, 100_501)


def suspect_twice(rows: list[RestTrade], now: int = NOW) -> list[IdRange]:
    """The ids that are absent after two looks at one and the same answer."""
    repair = repair_of([IdRange(2, 4)])
    absent: list[IdRange] = []
    for _ in range(2):
        repair.begin_look()
        absent += repair.take(TradesPage(rows, None), IdRange(2, 4), START - 1, LIMIT, now).absent
    return absent


def test_absence_takes_both_neighbours() -> None:
    """Prevents ids from passing for absent by an answer that is empty, cut short, or begins too late."""
    one, three, five = trade(1, START), trade(3, START + 2), trade(5, START + 4)
    assert suspect_twice([one, five]) == [IdRange(2, 4)]
    assert suspect_twice([one, three, five]) == [IdRange(2, 2), IdRange(4, 4)]
    assert suspect_twice([one, three]) == [IdRange(2, 2)]
    assert suspect_twice([three, five]) == [IdRange(4, 4)]
    for proves_nothing in ([], [one], [five]):
        assert suspect_twice(proves_nothing) == []


def test_absence_takes_order_and_age() -> None:
    """Prevents ids from passing for absent by rows out of order, or while they may still be on their way."""
    one, five = trade(1, START), trade(5, START + 4)
    assert suspect_twice([one, five], now=START + JUDGE_AFTER) == []
    assert suspect_twice([one, five], now=START + JUDGE_AFTER + 5) == [IdRange(2, 4)]
    assert suspect_twice([five, one]) == []
    assert suspect_twice([trade(0, START), one, five, trade(0, START + 5)]) == []
    assert suspect_twice([one, five, five]) == []


def test_rest_that_is_behind_is_asked_again_at_the_next_look_only() -> None:
    """Prevents a request a second for a trade that REST will have in a minute."""
    repair = repair_of([IdRange(2, 2)])
    taken = repair.take(TradesPage([trade(1, START)], START), IdRange(2, 2), START - 1000, LIMIT, NOW)
    assert taken == Taken([], [], is_stuck=False)
    assert repair.next_gap() is None
    repair.begin_look()
    assert repair.next_gap() == IdRange(2, 2)


def test_more_trades_of_one_microsecond_than_a_page_holds_are_passed() -> None:
    """Prevents a stored time, which is cut to microseconds, from leading to the same page for ever."""
    times = {number: START + number for number in range(1, 101)}
    stored = {number: time for number, time in times.items() if number != 95}
    rest = Rest([trade(number, time) for number, time in times.items()])
    repair_all(repair := repair_of(gaps_of(stored)), rest, stored)
    assert 95 in stored
    assert repair.gaps == []


def test_cursor_that_cannot_move_is_told_and_given_up() -> None:
    """Prevents an endless loop where more trades share a nanosecond than a page holds."""
    stored = {number: START for number in range(1, 101) if number != 95}
    rest = Rest([trade(number, START) for number in range(1, 101)])
    taken = repair_all(repair_of(gaps_of(stored)), rest, stored)
    assert [page.is_stuck for page in taken] == [False, True]


def test_cursors_are_whole_numbers_of_nanoseconds() -> None:
    """Prevents a cursor that lost its low digits, by which the same page comes for ever."""
    repair = repair_of([IdRange(3, 9)])
    neighbour = Neighbour(2, START + 123_456_000)
    assert repair.cursor(IdRange(3, 9), neighbour) == START + 123_455_000
    page = TradesPage([trade(number, START + 123_456_780 + number) for number in (2, 3)], START + 123_456_783)
    repair.take(page, IdRange(3, 9), START + 123_455_000, LIMIT, NOW)
    assert repair.cursor(IdRange(4, 9), Neighbour(3, START + 123_456_000)) == START + 123_456_782


def test_page_without_a_cursor_is_followed_by_the_time_of_its_last_row() -> None:
    """Prevents a history from ending where Kraken leaves out `last`, as it does at times."""
    repair = repair_of([IdRange(2, 9)])
    repair.take(TradesPage([trade(1, START), trade(2, START + 5_000_000)], None), IdRange(2, 9), START, LIMIT, NOW)
    assert repair.cursor(IdRange(3, 9), Neighbour(2, START)) == START + 5_000_000 - 1000


def test_history_makes_a_gap_from_its_first_trade_on() -> None:
    """Prevents trades from before the time that was asked for, rows without an id, and a history fetched twice."""
    repair = PairRepair(100, -1, START)
    rows = [trade(39, START - 1), trade(0, START), trade(40, START), trade(41, START + 1)]
    gap = repair.take_history(TradesPage(rows, START + 1), START)
    assert gap == IdRange(40, 99)
    assert repair.history_since is None
    assert [told.trade_id for told in repair.take(TradesPage(rows, START + 1), gap, START - 1, LIMIT, NOW).trades] == [
        40,
        41,
    ]
    assert repair.gaps == [IdRange(42, 99)]
    whole = PairRepair(40, -1, START)
    assert whole.take_history(TradesPage(rows, START + 1), START) is None
    assert PairRepair(40, -1, START).take_history(TradesPage([], None), START) is None


def test_trades_that_an_earlier_collector_stored_are_not_stored_again() -> None:
    """Prevents duplicates of rows that have no id, up to the microsecond at which they end."""
    repair = PairRepair(1, START + 5000, None)
    repair.gaps = [IdRange(2, 4)]
    rows = [trade(1, START), trade(2, START + 4000), trade(3, START + 5999), trade(4, START + 6000)]
    taken = repair.take(TradesPage(rows, None), IdRange(2, 4), START, LIMIT, NOW)
    assert [told.trade_id for told in taken.trades] == [4]
    assert repair.gaps == []
