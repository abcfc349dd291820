"""The spool's folder: what was appended is there after any end, in order, under numbers that only ever increase."""

import os
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import LATER, batch, book_row, run, trade
from spooling import lines, opened, seal, segments
from structlog.testing import capture_logs

from collector.records import Interrupted
from collector.storage.copy_text import book_line, trade_line
from collector.storage.segments import encode_records

ONE, OTHER = UUID(int=1), UUID(int=2)
LAST_BLOCKS = encode_records(batch(4, 2))


def test_appended_records_are_in_the_folder_at_once(tmp_path: Path) -> None:
    """Prevents a record that was appended from being lost with its process, sealed or not."""
    with opened(tmp_path) as spool:
        spool.append(batch(0, 3))
        seal(spool)
        spool.append(batch(3, 2))
        assert {number: sealed.rows for number, sealed in spool.sealed.items()} == {1: 6}
        assert (spool.open_rows, spool.rows, spool.waiting_rows) == (4, 10, 10)
        copy = [path.read_bytes() for path in sorted(tmp_path.glob("*.segment"))]
    with opened(tmp_path) as again:
        assert list(again.sealed) == [1, 2]
        assert [path.read_bytes() for path in sorted(tmp_path.glob("*.segment"))][:2] == copy
        book, trades = lines(segments(again))
    assert book == b"".join(map(book_line, map(book_row, range(5))))
    assert trades == b"".join(map(trade_line, map(trade, range(5))))


def test_nothing_to_seal(tmp_path: Path) -> None:
    """Prevents a quiet market from making a segment each interval."""
    with opened(tmp_path) as spool:
        assert spool.seal() is None
        spool.append([])
        assert spool.seal() is None
        spool.append([Interrupted("crash")])
        seal(spool)
        assert {number: sealed.rows for number, sealed in spool.sealed.items()} == {1: 0}


@pytest.mark.parametrize("is_shipped", [True, False])
def test_numbers_go_on_after_a_restart(is_shipped: bool, tmp_path: Path) -> None:
    """Prevents a number from being used twice: its second segment would count as shipped already, and be lost."""
    identities, numbers = set(), []
    for _ in range(4):
        with opened(tmp_path) as spool:
            for number in list(spool.sealed):
                if is_shipped:
                    spool.delete(number)
                    spool.forget(number)
            spool.append([trade(1)])
            seal(spool)
            segment = spool.read(max(spool.sealed))
            assert segment is not None
            identities.add(segment.header.spool)
            numbers.append(segment.header.number)
            if is_shipped:
                spool.delete(segment.header.number)
    assert len(identities) == 1
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("is_sealed", [True, False])
def test_last_chain_is_remembered(is_sealed: bool, tmp_path: Path) -> None:
    """Prevents a clock that was set back between two processes from giving a chain's number out again."""
    with opened(tmp_path) as spool:
        spool.append([run(1, chain=5000), run(1, chain=7000), run(2, chain=5000, last_at=LATER)])
        assert spool.last_chain == 7000
        if is_sealed:
            seal(spool)
            spool.delete(1)
    for _ in range(2):
        with opened(tmp_path) as spool:
            assert spool.last_chain == 7000


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kept=st.integers(0, len(LAST_BLOCKS)))
def test_torn_tail_after_a_power_cut(kept: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Prevents a half-written end from costing what stands before it, and from stopping the next start."""
    directory = tmp_path_factory.mktemp("spool")
    with opened(directory) as spool:
        spool.append(batch(0, 4))
        spool.append(batch(4, 2))
    (path,) = directory.glob("*.segment")
    os.truncate(path, path.stat().st_size - len(LAST_BLOCKS) + kept)
    with capture_logs() as logs, opened(directory) as again:
        (segment,) = segments(again)
        assert segment is not None
        again.append([trade(9)])
        assert again.number == 2
    book, trades = lines([segment])
    assert book.count(b"\n") in (4, 6)
    assert trades.count(b"\n") in (4, 6)
    assert max(covered.rows for covered in segment.coverage) <= book.count(b"\n")
    assert [log["event"] for log in logs] == (["segment_torn"] if segment.torn else [])


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(min_size=1, max_size=200))
def test_damaged_segment_is_moved_aside(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Prevents a segment without a readable header from holding up those behind it, or from being deleted."""
    directory = tmp_path_factory.mktemp("spool")
    with opened(directory) as spool:
        spool.append(batch(0, 1))
        seal(spool)
        spool.append(batch(1, 1))
        name = spool._path(1).name
    (directory / name).write_bytes(data)
    with capture_logs() as logs, opened(directory) as again:
        first, second = segments(again)
    assert first is None
    assert second is not None
    assert not (directory / name).exists()
    assert (directory / "damaged" / name).read_bytes() == data
    assert [log["event"] for log in logs] == ["segment_damaged"]


def test_last_segment_without_its_header(tmp_path: Path) -> None:
    """Prevents a file that was made just when its process ended from costing the spool its identity or a number."""
    with opened(tmp_path) as spool:
        spool.append([run(1, chain=9)])
        seal(spool)
        empty = spool._path(2)
        identity = spool.identity
    empty.write_bytes(b"")
    with capture_logs() as logs, opened(tmp_path) as again:
        assert again.identity == identity
        assert again.last_chain == 9
        assert list(again.sealed) == [1]
        assert again.number == 2, "a number that is left out would look like a lost segment"
        again.append([trade(1)])
        seal(again)
        second = again.read(2)
    assert second is not None
    assert second.header.number == 2
    assert logs == []


def test_segment_is_moved_aside_once(tmp_path: Path) -> None:
    """Prevents a call that was given up, and finished, from crashing the one that took its place."""
    with opened(tmp_path) as spool:
        spool.append([trade(1)])
        seal(spool)
        targets = {spool.set_damaged_apart(1) for _ in range(2)}
    assert targets == {tmp_path / "damaged"}
    assert len(list((tmp_path / "damaged").iterdir())) == 1


def test_segment_that_never_reached_the_disk(tmp_path: Path) -> None:
    """Prevents a sealed segment that a power cut emptied from holding up what comes behind it."""
    with opened(tmp_path) as spool:
        spool.append([trade(1)])
        seal(spool)
        spool.append([trade(2)])
        empty = spool._path(1)
    empty.write_bytes(b"")
    with opened(tmp_path) as again:
        assert list(again.sealed) == [1, 2]
        assert again.read(1) is None
        assert not empty.exists()


def test_segment_of_another_database(tmp_path: Path) -> None:
    """Prevents rows of one database from getting into another, and the numbers of both from being confused."""
    with opened(tmp_path) as spool:
        assert not spool.belongs_to(ONE)
        spool.append(batch(0, 1))
        seal(spool)
        spool.append(batch(1, 1))  # of a segment that began before the database was met: it goes to whoever comes
        identity = spool.identity
    with capture_logs() as logs, opened(tmp_path) as spool:
        spool.belongs_to(OTHER)
        of_one = spool.read(2)
        assert of_one is not None
        assert of_one.header.database == ONE
        spool.set_apart(2, ONE)
        assert spool.identity != identity
        assert spool.read(2) is None
    assert [log["event"] for log in logs] == ["segment_of_another_database"]
    with opened(tmp_path / f"of-database-{ONE}") as apart:
        (segment,) = segments(apart)
        assert segment is not None
        assert segment.header.spool == identity
        assert lines([segment])[1] == trade_line(trade(1))


def test_another_database_is_another_spool(tmp_path: Path) -> None:
    """Prevents a database that was swapped under the collector from taking numbers of the one before for its own."""
    with opened(tmp_path) as spool:
        spool.belongs_to(ONE)
        spool.append(batch(0, 1))
        seal(spool)
        spool.append(batch(1, 1))
        spool.belongs_to(OTHER)
        spool.append(batch(2, 1))
        seal(spool)
        spool.belongs_to(OTHER)
        headers = [segment.header for segment in segments(spool) if segment is not None]
    assert [header.database for header in headers] == [None, ONE, OTHER]
    assert headers[0].spool == headers[1].spool != headers[2].spool
    assert [header.number for header in headers] == [1, 2, 3]


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    """Prevents a file that somebody put into the folder from being shipped, deleted, or from stopping the start."""
    for name in ("notes.txt", "x.segment", "-1.segment"):
        (tmp_path / name).write_bytes(b"not of the spool")
    with opened(tmp_path) as spool:
        assert spool.sealed == {}
        assert spool.number == 1
    assert (tmp_path / "x.segment").exists()
