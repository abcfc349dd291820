"""Every fault that a store can have is found, at its chain and seq; a store without one is not accused."""

import json
import random
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from functools import cache

import pytest
from simulated_store import simulate

from collector.id_ranges import IdRange
from collector.records import BookRow, Coverage
from collector.storage.copy_text import book_line
from collector.verification.chain_replay import OVERTAKEN_ROWS
from collector.verification.checks import BookVerification, StoredRun, TimeRange, check_trade_ids, check_trade_runs
from collector.verification.findings import MAX_FINDINGS, Findings

PAIR = "BTC/USD"
DEPTHS = (10, 1000)
TRIES = 40  # of each kind of damage and depth, each at another place

Row = list[bytes]


@cache
def market(depth: int) -> tuple[list[Row], StoredRun]:
    """The rows of a chain as PostgreSQL writes them, and its run."""
    records = simulate([PAIR], depth=depth, count=1500)
    rows = [record for record in records if isinstance(record, BookRow)]
    assert sum(row.type == "snapshot" for row in rows) > 2, "the chain has checkpoints"
    run = next(record for record in records if isinstance(record, Coverage) and record.channel == "book")
    return [as_stored(row) for row in rows], StoredRun(
        run.pair, run.channel, run.chain, sql_time(run.started_at), sql_time(run.last_at), run.updates, run.rows,
        sql_time(run.ended_at or ""), run.end_reason, None, None,
    )  # fmt: skip


def as_stored(row: BookRow) -> Row:
    fields = book_line(row)[:-1].split(b"\t")
    for place in (2, 3, 8):
        fields[place] = fields[place].replace(b",", b", ").replace(b":", b": ")
    if row.evicted is not None:  # JSONB puts its keys in order
        bids, _, asks = fields[8][1:-1].partition(b', "asks')
        fields[8] = b'{"asks' + asks + b", " + bids + b"}"
    fields[0] = sql_time(row.event_time).encode()
    return fields


def sql_time(time: str) -> str:
    whole, _, fraction = time.removesuffix("Z").replace("T", " ").partition(".")
    fraction = fraction.rstrip("0")
    return f"{whole}.{fraction}" if fraction else whole


def verify(rows: Sequence[Row], *runs: StoredRun, now: Sequence[StoredRun] = ()) -> Findings:
    findings = Findings()
    verification = BookVerification(runs, {}, TimeRange(), findings)
    verification.take(sorted(rows, key=lambda row: int(row[7])))
    verification.finish(now)
    return findings


def places(depth: int) -> list[int]:
    return random.Random(depth).sample(range(len(market(depth)[0])), TRIES)


def told(findings: Findings, *kinds: str) -> list[tuple[int | None, int | None]]:
    return [(finding.chain, finding.seq) for finding in findings.kept if finding.kind in kinds]


@pytest.mark.parametrize("depth", DEPTHS)
def test_what_was_verified_when_it_came_is_verified_again(depth: int) -> None:
    """Prevents a false alarm, after which nobody would believe a true one."""
    rows, run = market(depth)
    findings = verify(rows, run)
    assert not findings.kept
    assert findings.tallies[PAIR].book_rows == len(rows)
    assert findings.tallies[PAIR].chains == 1


@pytest.mark.parametrize("depth", DEPTHS)
def test_any_row_that_is_missing_is_found(depth: int) -> None:
    """Prevents a lost row from passing, the first and the last one of a chain included."""
    rows, run = market(depth)
    for place in {*places(depth), 0, 1, len(rows) - 1}:
        findings = verify(rows[:place] + rows[place + 1 :], run)
        assert (run.chain, place) in told(findings, "seq_hole", "coverage"), place


@pytest.mark.parametrize("depth", DEPTHS)
def test_any_row_that_is_stored_twice_is_found_and_nothing_else(depth: int) -> None:
    """Prevents a repeated row from passing, and from making the rows behind it look wrong."""
    rows, run = market(depth)
    for place in {*places(depth), 0, len(rows) - 1}:
        findings = verify([*rows, rows[place]], run)
        assert [(finding.kind, finding.seq) for finding in findings.kept] == [("seq_repeat", place)]


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("side", [2, 3])
def test_any_digit_of_the_best_levels_is_found(depth: int, side: int) -> None:
    """Prevents a changed digit of a level among the best ten from passing, or from being told of another row."""
    rows, run = market(depth)
    chance, among_best = random.Random(side), 0
    for place in (*places(depth), *places(depth + 1)):
        digits = [at for at, byte in enumerate(rows[place][side]) if byte in b"123456789"]
        if not digits:
            continue
        changed = [list(row) for row in rows]
        levels, at = rows[place][side], chance.choice(digits)
        changed[place][side] = levels[:at] + b"%d" % ((levels[at] - 47) % 10) + levels[at + 1 :]
        if best_levels(changed[: place + 1], side) != best_levels(rows[: place + 1], side):
            assert (run.chain, place) in told(verify(changed, run), "checksum", "checkpoint"), (place, levels)
            among_best += 1
    assert among_best > 5


def best_levels(rows: Sequence[Row], side: int) -> list[tuple[Decimal, Decimal]]:
    """The ten best levels of a side, by the plain rule that a reader in SQL would follow."""
    first = max(place for place, row in enumerate(rows) if row[4] == b"snapshot")
    levels: dict[Decimal, Decimal] = {}
    for row in rows[first:]:
        levels |= {Decimal(price): Decimal(size) for price, size in json.loads(row[side], parse_float=str)}
        if row[8] != b"\\N":
            for price in json.loads(row[8], parse_float=str)["bids" if side == 2 else "asks"]:
                levels.pop(Decimal(price), None)
        levels = {price: size for price, size in levels.items() if size}
    return sorted(levels.items(), reverse=side == 2)[:10]


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        (5, b"1", "checksum"),
        (8, b'{"asks": [1.0], "bids": []}', "evicted"),
        (8, b"5", "evicted"),
        (2, b"{}", "unreadable"),
        (2, b"[[1.0]]", "unreadable"),
        (3, b'[["x", 1.0]]', "unreadable"),
        (3, b"[[-1.0, 1.0]]", "unreadable"),
        (4, b"other", "unreadable"),
        (7, b"\\N", "unreadable"),
        (2, b"[[999999999.0, 1.00000000]]", "crossed"),
    ],
)
def test_field_that_is_not_as_it_was_is_found(field: int, value: bytes, kind: str) -> None:
    """Prevents any field's damage from passing, or from ending the verification with a traceback."""
    rows, run = market(10)
    changed = [list(row) for row in rows]
    changed[700][field] = value
    findings = Findings()
    verification = BookVerification([run], {}, TimeRange(), findings)
    verification.take(changed)
    verification.finish([])
    place = None if field == 7 else 700
    assert (run.chain, place) in told(findings, kind)


def test_checkpoint_that_is_not_the_replayed_book_is_found() -> None:
    """Prevents a changed level behind the best ten from passing for good: the next checkpoint tells."""
    rows, run = market(1000)
    changed = [list(row) for row in rows]
    levels = changed[0][2][2:-2].split(b"], [")
    levels[500] = levels[500].split(b", ")[0] + b", 123.45678900"
    changed[0][2] = b"[[" + b"], [".join(levels) + b"]]"
    checkpoint = next(place for place, row in enumerate(rows) if place and row[4] == b"snapshot")
    assert told(verify(changed, run), "checkpoint") == [(run.chain, checkpoint)]


def test_eviction_that_is_not_told_is_found() -> None:
    """Prevents a reader who follows the rows alone from keeping levels that Kraken's book does not have."""
    rows, run = market(10)
    evicting = [place for place, row in enumerate(rows) if row[8] != b"\\N"]
    for place in (evicting[0], evicting[1], evicting[-1]):
        changed = [list(row) for row in rows]
        changed[place][8] = b"\\N"
        assert "evicted" in {finding.kind for finding in verify(changed, run).kept}, place


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": 5},
        {"rows": 10**6},
        {"updates": 5},
        {"started_at": "2020-01-01 00:00:00"},
        {"last_at": "2023-11-14 22:13:21"},
        {"ended_at": "2030-01-01 00:00:00"},
        {"end_reason": None},
        {"rows": 5, "ended_at": None, "end_reason": None},
    ],
)
def test_coverage_that_says_something_else_is_found(changes: dict[str, object]) -> None:
    """Prevents coverage from claiming what is not stored, of ended and of open runs."""
    rows, run = market(10)
    changed = run._replace(**changes)
    assert {(finding.kind, finding.chain) for finding in verify(rows, changed, now=[changed]).kept} == {
        ("coverage", run.chain)
    }


def test_rows_without_coverage_and_coverage_without_rows_are_found() -> None:
    """Prevents either from passing because there is nothing to compare it with."""
    rows, run = market(10)
    other = run._replace(chain=run.chain + 1)
    assert [finding.kind for finding in verify(rows, run, other).kept] == ["coverage_without_rows"]
    assert [(finding.kind, finding.chain) for finding in verify(rows).kept] == [("rows_without_coverage", run.chain)]


@pytest.mark.parametrize("reason", [None, "spool_lost", "segment_lost"])
def test_what_is_written_meanwhile_is_left_alone(reason: str | None) -> None:
    """Prevents a collector that goes on writing from being accused of what was not committed yet."""
    rows, run = market(10)
    last_at = rows[899][0].decode()
    then = run._replace(rows=900, last_at=last_at, ended_at=None if reason is None else last_at, end_reason=reason)
    then = then._replace(updates=sum(row[4] == b"update" for row in rows[:900]))
    begun_since = [[*row[:6], b"77", *row[7:]] for row in rows]
    later_rows = [row for place, row in enumerate(rows) if place < 900 or place % 3]
    findings = verify([*later_rows, *begun_since], then, now=[run, run._replace(chain=77)])
    assert not findings.kept


def test_rows_that_come_late_are_no_holes_and_lost_ones_are() -> None:
    """Prevents rows whose times overlap from being told as missing, and a hole from holding rows in memory."""
    rows, run = market(10)
    findings = Findings()
    verification = BookVerification([run], {}, TimeRange(), findings)
    verification.take([*rows[:500], *rows[501:700], rows[500], *rows[700:]])
    verification.finish([])
    assert not findings.kept
    findings = Findings()
    verification = BookVerification([run], {}, TimeRange(), findings)
    verification.take(rows[:100] + rows[103 : 105 + OVERTAKEN_ROWS])
    assert [(finding.kind, finding.seq) for finding in findings.kept][:1] == [("seq_hole", 100)]


def test_dropped_days_are_not_missing() -> None:
    """Prevents retention from looking like a loss: the chain is verified from its first checkpoint that is left."""
    rows, run = market(10)
    checkpoint = next(place for place, row in enumerate(rows) if place and row[4] == b"snapshot")
    kept = rows[checkpoint:]
    dropped = run._replace(dropped_before=kept[0][0].decode())
    assert not verify(kept, dropped).kept
    assert not verify([], dropped._replace(dropped_before="2030-01-01 00:00:00")).kept
    assert told(verify(kept[:50] + kept[51:], dropped), "seq_hole") == [(run.chain, checkpoint + 50)]
    assert told(verify(kept[1:], dropped), "no_snapshot") == [(run.chain, checkpoint + 1)]


def test_run_that_failed_an_audit_is_told_where_it_is_in_the_range() -> None:
    """Prevents a book that an audit found wrong from being called right, and a time before that from being accused."""
    rows, run = market(10)
    since = rows[700][0].decode()
    suspect = run._replace(suspect_since=since)
    (finding,) = verify(rows, suspect).kept
    assert (finding.kind, finding.pair, finding.chain, finding.time) == ("suspect", PAIR, run.chain, since)
    assert run.last_at in finding.what
    before = Findings()
    verification = BookVerification([suspect], {}, TimeRange(until=datetime.fromisoformat(since)), before)
    verification.take(rows[:700])
    verification.finish([])
    assert not before.kept
    assert not verify([], suspect._replace(dropped_before="2030-01-01 00:00:00")).kept


def test_trade_ids() -> None:
    """Prevents holes and repeats from passing, and ids that Kraken does not have from being called holes."""
    findings = Findings()
    ids = [1, 2, 5, 6, 6, 7, 20]
    check_trade_ids(PAIR, ids, [IdRange(3, 3), IdRange(8, 12), IdRange(30, 40)], findings)
    assert [(finding.kind, finding.seq) for finding in findings.kept] == [
        ("trade_hole", 4),
        ("trade_repeat", 6),
        ("trade_hole", 13),
    ]
    assert [found.what for found in findings.kept if found.kind == "trade_hole"] == [
        "id 4 is missing",
        "ids 13 to 19 are missing",
    ]
    assert findings.tallies[PAIR].missing_trades == 1 + 7
    assert findings.tallies[PAIR].absent_trades == 1 + 5


def test_trade_run_that_contradicts_itself_is_found() -> None:
    """Prevents a changed count of trades from passing."""
    _, run = market(10)
    trades = run._replace(channel="trade", updates=7, rows=7)
    findings = Findings()
    check_trade_runs([trades, trades._replace(chain=9, rows=8)], findings)
    assert [(finding.kind, finding.chain) for finding in findings.kept] == [("coverage", 9)]


def test_findings_are_bounded_and_counted() -> None:
    """Prevents a ruined table from filling memory and terminal, and its damage from being understated."""
    findings = Findings()
    check_trade_ids(PAIR, range(1, 1001, 2), [], findings)
    assert len(findings.kept) == MAX_FINDINGS
    assert findings.total == findings.tallies[PAIR].wrong["trade_hole"] == 499
