"""The rows of a chain are put into order and cut at a time, however their times waver. Pure."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from collector.history.book_rows import LATENESS, effects, in_order
from collector.history.levels import level_changes, top_samples
from collector.kraken.times import format_time, from_microseconds, microseconds, read_time
from collector.records import BookRow

BEGIN = 1_700_000_000_000_000
SECOND = 1_000_000


def row(seq: int, at: int = BEGIN, kind: str = "update", **sides: bytes) -> BookRow:
    values = {"bids": b"[]", "asks": b"[]", "evicted": None} | sides
    return BookRow(
        format_time(from_microseconds(at)),
        "BTC/USD",
        values["bids"],
        values["asks"],
        kind,
        0,
        1,
        seq,
        values["evicted"],
    )


@given(st.lists(st.integers(-LATENESS // 2, LATENESS // 2), min_size=1, max_size=60), st.integers(0, 60))
def test_a_cut_is_made_by_the_rule(jitter: list[int], place: int) -> None:
    """Prevents a row from being on the wrong side of a cut, where times do not rise with every message."""
    times = [BEGIN + number * SECOND + wavering for number, wavering in enumerate(jitter)]
    rows = [row(seq, at) for seq, at in enumerate(times)]
    found = list(effects(rows))
    assert [effect.row for effect in found] == rows
    assert all(before.at <= after.at for before, after in pairwise(found))
    moment = BEGIN + place * SECOND
    last_before = max((seq for seq, at in enumerate(times) if at < moment), default=-1)
    assert [effect.row.seq for effect in found if effect.at < moment] == list(range(last_before + 1))


@given(st.permutations(range(12)), st.sets(st.integers(1, 11)), st.sets(st.integers(0, 11)))
def test_rows_come_in_order_and_none_comes_without_a_book(
    order: list[int], snapshots: set[int], lost: set[int]
) -> None:
    """Prevents a row from being given twice, too early, or after a row that is missing."""
    rows = [row(seq, kind="snapshot" if seq in snapshots | {0} else "update") for seq in order if seq not in lost]
    told: list[str] = []
    found = [each.seq for each in in_order([*rows, *rows], 0, told.append)]
    expected, has_book = [], False
    for seq in range(12):
        if seq in lost:
            has_book = False
        else:
            has_book = has_book or seq in snapshots | {0}
            expected += [seq] * has_book
    assert found == expected
    holes = [seq for seq in lost if seq + 1 not in lost and seq != 11]
    assert len(told) == len(holes)


def test_levels_of_a_later_snapshot_are_what_it_changes() -> None:
    """Prevents a checkpoint from being told as changes, and a level that a hole hid from staying for ever."""
    rows = [
        row(0, kind="snapshot", bids=b"[[2.0, 1.00], [1, 1]]", asks=b"[[3, 1]]"),
        row(1, kind="snapshot", bids=b"[[2.0, 1.00], [1, 1]]", asks=b"[[3, 1]]"),
        row(2, bids=b"[[2.0, 0.00]]", asks=b"[[4, 5]]", evicted=b'{"asks": [3], "bids": []}'),
        row(9, kind="snapshot", bids=b"[[1, 2]]", asks=b"[]"),
    ]
    found = [(change.row.seq, change.side, change.price, change.size) for change in level_changes(rows)]
    assert found == [
        (0, "bid", b"2.0", b"1.00"),
        (0, "bid", b"1", b"1"),
        (0, "ask", b"3", b"1"),
        (2, "bid", b"2.0", b"0"),
        (2, "ask", b"4", b"5"),
        (2, "ask", b"3", b"0"),
        (9, "bid", b"1", b"2"),
        (9, "ask", b"4", b"0"),
    ]


def test_samples_are_taken_between_rows() -> None:
    """Prevents a sample at the time of a row from being without that row, and samples before there is a book."""
    rows = [
        row(0, BEGIN + SECOND // 2, "snapshot", bids=b"[[1, 1]]"),
        row(1, BEGIN + 2 * SECOND, bids=b"[[2, 1]]"),
        row(2, BEGIN + 2 * SECOND + 1, bids=b"[[3, 1]]"),
    ]
    samples = top_samples(effects(rows), BEGIN, BEGIN + 5 * SECOND, SECOND, 1)
    assert [((sample.at - BEGIN) // SECOND, sample.bids[0].price) for sample in samples] == [
        (1, b"1"),
        (2, b"2"),
        (3, b"3"),
        (4, b"3"),
    ]


def test_microseconds_are_whole() -> None:
    """Prevents a time from being moved by the last digit of a float."""
    for text in ("2026-08-24T22:21:58.345081Z", "2026-08-24T22:21:58.999999Z", "2013-01-01T00:00:00.000000Z"):
        assert format_time(from_microseconds(microseconds(read_time(text)))) == text
