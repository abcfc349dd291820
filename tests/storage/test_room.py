"""The room in a spool: books are given up before trades, and nothing begins and stops in turns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.storage.room import BOOKS_SHARE, RESUME_SHARE, TRADES_SHARE, Room

LIMIT = 1000


@pytest.mark.parametrize(
    ("used", "intakes"),
    [
        ([0, 899, 900, 989, 990, 2000], ["all", "all", "trades", "trades", "nothing", "nothing"]),
        ([990, 950, 700, 699], ["nothing", "trades", "trades", "all"]),
        ([900, 800, 700, 800, 899, 699, 899], ["trades", "trades", "trades", "trades", "trades", "all", "all"]),
    ],
)
def test_intake_follows_what_is_used(used: list[int], intakes: list[str]) -> None:
    """Prevents trades from being given up with the books, and books from coming back into the last free bytes."""
    room = Room(LIMIT)
    assert [room.update(bytes_, disk_full=False) for bytes_ in used] == intakes


def test_full_disk_leaves_no_trace() -> None:
    """Prevents a disk that was full for a moment from stopping the books until the spool is nearly empty."""
    room = Room(LIMIT)
    assert room.update(750, disk_full=True) == room.intake == "nothing"
    assert room.update(750, disk_full=False) == room.intake == "all"


@given(st.lists(st.tuples(st.integers(0, 2 * LIMIT), st.booleans())))
def test_intake_is_never_more_than_there_is_room_for(looks: list[tuple[int, bool]]) -> None:
    """Prevents any history of the spool from letting it grow beyond its limit, or from closing one that is empty."""
    room = Room(LIMIT)
    for used, disk_full in looks:
        intake = room.update(used, disk_full=disk_full)
        if disk_full or used >= TRADES_SHARE * LIMIT:
            assert intake == "nothing"
        elif used >= BOOKS_SHARE * LIMIT:
            assert intake == "trades"
        elif used < RESUME_SHARE * LIMIT:
            assert intake == "all"


def test_each_warning_is_told_once() -> None:
    """Prevents a spool near its limit from filling the log, and the second time from passing in silence."""
    room = Room(LIMIT)
    told = [room.new_warning(used) for used in (0, 499, 500, 700, 899, 900, 950, 600, 900, 100, 500)]
    assert told == [None, None, 0.5, None, None, 0.9, None, None, 0.9, None, 0.5]
