"""Continuity: whatever is lost, what is stored of each chain is a gapless beginning, and coverage says just that."""

import json
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import TIME, batch, book_row, run
from stored import coverage, stored_books, stored_trades

from collector.records import Interrupted, Record
from collector.storage.continuity import Continued, continue_runs
from collector.storage.copy_text import book_line
from collector.storage.database import Connection, connect
from collector.storage.partitions import ensure_day
from collector.storage.segments import Header, Segment, encode_header, encode_records, read_segment
from collector.storage.shipping import prepare, ship
from collector.verification.checks import StoredRun, run_faults

SPOOL = UUID(int=1)
PAIRS = ("BTC/USD", "ETH/USD")
EMPTY = "TRUNCATE kraken_orderbook, kraken_trades, kraken_coverage, collector_spools"
RUNS = """SELECT pair, channel, chain, started_at::text, last_at::text, updates, rows, ended_at::text, end_reason, NULL,
NULL FROM kraken_coverage"""


@pytest.fixture
def connection(migrated_url: str) -> Iterator[Connection]:
    """A connection that is ready to ship, to a database with the day of the samples."""
    with connect(migrated_url, application_name="tests") as prepared:
        prepare(prepared)
        ensure_day(prepared, date.fromisoformat(TIME[:10]))
        yield prepared


def segment(number: int, *appends: Sequence[Record], lost_bytes: int = 0) -> Segment:
    """A segment as it is read from its file, whose end may be gone; at least its header is there."""
    header = encode_header(Header(SPOOL, number, None, 0))
    data = b"".join(map(encode_records, appends))
    read = read_segment(header + data[: max(0, len(data) - lost_bytes)])
    assert read is not None
    return read


def ship_what_fits(connection: Connection, whole: Segment, directory: Path) -> Continued:
    """Ship a segment as the ship task does."""
    with connection.transaction():
        continued = continue_runs(connection, whole, directory)
        ship(connection, continued.segment)
    return continued


def kept_lines(directory: Path) -> list[bytes]:
    """The rows in the files of what was set apart."""
    files = sorted((directory / "rejected").glob("*")) if (directory / "rejected").exists() else []
    return [json.loads(line)["line"].encode() for file in files for line in file.read_bytes().splitlines()]


def test_whole_segments_are_stored_as_they_are(connection: Connection, migrated_url: str, tmp_path: Path) -> None:
    """Prevents what nothing is wrong with from being ended, set apart or told."""
    for number in range(1, 4):
        whole = segment(number, batch(number * 3 - 3, 2), batch(number * 3 - 1, 1))
        assert ship_what_fits(connection, whole, tmp_path) == (whole, range(0), [])
        assert ship_what_fits(connection, whole, tmp_path) == (whole, range(0), []), "it is stored already"
    assert [row.seq for row in stored_books(migrated_url)["BTC/USD", 1]] == list(range(9))
    assert [(of.rows, of.is_ended) for of in coverage(migrated_url)] == [(9, False)]
    assert kept_lines(tmp_path) == []


def test_segment_that_is_missing(connection: Connection, migrated_url: str, tmp_path: Path) -> None:
    """Prevents rows behind a lost segment from being stored as if nothing were missing before them."""
    quiet = run(1, pair="ETH/USD", chain=2)
    trades = run(5, channel="trade", chain=3)
    begin = [*batch(0, 2), book_row(0, pair="ETH/USD", chain=2), quiet, trades]
    ship_what_fits(connection, segment(1, begin), tmp_path)
    later = [*batch(3, 2), book_row(7, pair="SOL/USD", chain=4), run(8, pair="SOL/USD", chain=4)]
    continued = ship_what_fits(connection, segment(3, later), tmp_path)
    assert continued.lost == range(2, 3)
    assert {(of.pair, of.chain, of.reason) for of in continued.apart} == {
        ("BTC/USD", 1, "segment_lost"),
        ("SOL/USD", 4, "segment_lost"),  # it began within the lost segment
    }
    assert sorted(kept_lines(tmp_path)) == sorted(
        map(book_line, [book_row(3), book_row(4), book_row(7, pair="SOL/USD", chain=4)])
    )
    assert [(of.chain, of.rows, of.end_reason) for of in coverage(migrated_url)] == [
        (1, 2, "segment_lost"),
        (2, 1, "segment_lost"),  # the lost segment may have ended it
    ]
    assert coverage(migrated_url, "trade")[0].end_reason == "segment_lost"
    assert [row.trade_id for row in stored_trades(migrated_url)] == [0, 1, 3, 4], "of trades, the ids tell"
    again = ship_what_fits(connection, segment(4, [*batch(5, 1), quiet, trades]), tmp_path)
    assert [of.chain for of in again.apart] == [1]
    assert [(of.chain, of.rows, of.is_ended) for of in coverage(migrated_url)] == [(1, 2, True), (2, 1, False)]
    assert not coverage(migrated_url, "trade")[0].is_ended, "what goes on says so"


def test_run_that_only_reports_behind_a_hole(connection: Connection, migrated_url: str, tmp_path: Path) -> None:
    """Prevents coverage from claiming rows of which none came, only the word that they are watched still."""
    ship_what_fits(connection, segment(1, batch(0, 1)), tmp_path)
    ship_what_fits(connection, segment(3, [run(4), run(6, pair="ETH/USD", chain=2)]), tmp_path)
    assert [(of.chain, of.rows, of.end_reason) for of in coverage(migrated_url)] == [(1, 1, "segment_lost")]


@pytest.mark.parametrize("lost_bytes", [1, 7, len(encode_records([run(4)]))])
def test_cut_between_rows_and_their_coverage(
    lost_bytes: int, connection: Connection, migrated_url: str, tmp_path: Path
) -> None:
    """Prevents rows that lost their coverage with the end of the segment from being stored without any."""
    ship_what_fits(connection, segment(1, batch(0, 2)), tmp_path)
    torn = segment(2, [book_row(2), book_row(3), run(4)], lost_bytes=lost_bytes)
    assert torn.coverage == []
    ship_what_fits(connection, torn, tmp_path)
    ((_, rows),) = stored_books(migrated_url).items()
    ((of),) = coverage(migrated_url)
    assert (of.rows, of.updates, of.end_reason) == (len(rows), len(rows) - 1, "segment_lost") == (4, 3, of.end_reason)
    ship_what_fits(connection, segment(3, batch(4, 1)), tmp_path)
    assert [(of.rows, of.is_ended) for of in coverage(migrated_url)] == [(5, False)], "no row of it was lost"


def test_row_that_was_taken_out(connection: Connection, migrated_url: str, tmp_path: Path) -> None:
    """Prevents the rows behind one that PostgreSQL rejects from being stored in its run, in its segment or later."""
    rejected = [(b"BTC/USD", 1)]
    without = segment(1, [book_row(0), book_row(1), book_row(3), run(4)])
    with connection.transaction():
        continued = continue_runs(connection, without, tmp_path, rejected)
        ship(connection, continued.segment)
    continued = ship_what_fits(connection, segment(2, batch(4, 2)), tmp_path)
    assert [of.reason for of in continued.apart] == ["row_rejected"]
    assert [(of.rows, of.end_reason) for of in coverage(migrated_url)] == [(2, "row_rejected")]
    assert kept_lines(tmp_path) == list(map(book_line, map(book_row, (3, 4, 5))))


def test_set_back_before_the_first_segment(connection: Connection, migrated_url: str, tmp_path: Path) -> None:
    """Prevents a database that has forgotten the spool altogether from taking the middle of a run for its beginning."""
    continued = ship_what_fits(connection, segment(9, batch(30, 2)), tmp_path)
    assert (continued.lost, [of.chain for of in continued.apart]) == (range(0), [1])
    assert stored_books(migrated_url) == {}
    assert coverage(migrated_url) == []
    assert [row.trade_id for row in stored_trades(migrated_url)] == [30, 31]


# What a segment brings of each pair: how many rows, and whether the run then ends and another begins.
steps = st.lists(st.tuples(*[st.tuples(st.integers(0, 3), st.booleans())] * len(PAIRS)), min_size=3, max_size=7)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps, data=st.data())
def test_anything_may_be_lost(
    steps: list,
    data: st.DataObject,
    connection: Connection,
    migrated_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Prevents any pattern of lost and torn segments from leaving a hole, a false claim, or a row that is nowhere."""
    directory = tmp_path_factory.mktemp("spool")
    connection.execute(EMPTY)
    chains, seqs, last_chain = dict.fromkeys(PAIRS, 0), dict.fromkeys(PAIRS, 0), 0
    arrived: list[bytes] = []
    for number, step in enumerate(steps, 1):
        appends: list[list[Record]] = []
        for pair, (rows, ends) in zip(PAIRS, step, strict=True):
            if not chains[pair]:
                last_chain += 1
                chains[pair], seqs[pair] = last_chain, 0
            first, chain = seqs[pair], chains[pair]
            seqs[pair] += rows
            end = {"ended_at": TIME, "end_reason": "closed"} if ends else {}
            if seqs[pair]:
                lines = [book_row(seq, pair=pair, chain=chain) for seq in range(first, seqs[pair])]
                appends.append([*lines, run(seqs[pair], pair=pair, chain=chain, **end)])
            if ends:
                chains[pair] = 0
        fate = data.draw(st.sampled_from(["whole", "whole", "lost", "torn"]))
        if fate == "lost":
            continue
        lost_bytes = data.draw(st.integers(1, 300)) if fate == "torn" else 0
        found = segment(number, *appends, lost_bytes=lost_bytes)
        arrived += [line for block in found.book for line in block.splitlines(keepends=True)]
        ship_what_fits(connection, found, directory)
    kept = kept_lines(directory)
    stored = stored_books(migrated_url)  # holds each chain to be numbered from 0 without holes
    assert sum(map(len, stored.values())) + len(kept) == len(arrived)
    assert set(kept) <= set(arrived)
    runs = [StoredRun(*row) for row in connection.execute(RUNS)]
    assert {(of.pair, of.chain): (of.rows, of.updates) for of in runs} == {
        key: (len(rows), len(rows) - 1) for key, rows in stored.items()
    }
    assert [fault for of in runs for fault in run_faults(of)] == []
    ship_what_fits(connection, segment(len(steps) + 1, [Interrupted("process_ended")]), directory)
    assert all(of.is_ended for of in coverage(migrated_url))
