"""A file tells how much of its time was watched, and a finished file is known again. Pure."""

from datetime import datetime, timedelta

from collector.export.document import Covered, Document, Gap, covered_parts, decode, encode, gaps
from collector.history.spans import Span
from collector.verification.checks import StoredRun

NOON = datetime.fromisoformat("2026-11-24T12:00:00")


def at(minutes: int) -> str:
    return f"2026-11-24T12:{minutes:02}:00.000000Z"


def run(chain: int, begin: int, end: int, **more: str | None) -> StoredRun:
    times = [str(NOON + timedelta(minutes=minutes)) for minutes in (begin, end)]
    ended = {"ended_at": times[1], "end_reason": "closed_1012", "dropped_before": None, "suspect_since": None} | more
    return StoredRun("BTC/USD", "book", chain, *times, 1, 1, *ended.values())


def test_coverage_is_cut_to_the_file() -> None:
    """Prevents a file from claiming a time that it does not hold, or a run's end that lies outside."""
    span = Span(NOON, NOON + timedelta(minutes=30))
    dropped = str(NOON + timedelta(minutes=8))
    runs = [
        run(1, -5, 5),
        run(2, 6, 10, dropped_before=dropped, suspect_since=str(NOON + timedelta(minutes=9))),
        run(3, 20, 40, suspect_since=str(NOON + timedelta(minutes=35))),
        run(4, 30, 40),
    ]
    assert covered_parts(runs, "book", span) == [
        Covered(1, at(0), at(5), "closed_1012"),
        Covered(2, at(8), at(10), "closed_1012", at(9)),
        Covered(3, at(20), at(30)),
    ]
    assert covered_parts(runs, "trade", span) == []


def test_gaps_are_what_no_run_covers() -> None:
    """Prevents a gap that an overlapping run closes from being told, and one at the edges from being kept quiet."""
    parts = [Covered(1, at(1), at(10), "closed"), Covered(2, at(2), at(3), "desync"), Covered(3, at(12), at(20), "end")]
    span = Span(NOON, NOON + timedelta(minutes=30))
    assert gaps(parts, span) == [
        Gap(at(0), at(1), None),
        Gap(at(10), at(12), "closed"),
        Gap(at(20), at(30), "end"),
    ]
    assert gaps(parts, Span(None, None)) == [Gap(at(10), at(12), "closed")]
    assert gaps([], span) == [Gap(at(0), at(30), None)]


def document(**more: object) -> Document:
    values = {
        "layout": 1,
        "what": "book",
        "pair": "BTC/USD",
        "since": at(0),
        "until": at(30),
        "options": {},
        "coverage": [Covered(1, at(1), at(10))],
    }
    return Document(**values | more)  # type: ignore[arg-type]


def test_a_file_is_known_again() -> None:
    """Prevents a file from being passed over that has become less than what is stored, or is another."""
    written = document(rows=5)
    assert decode(encode(written)) == written
    assert decode(b"{}") is None
    assert document().says_the_same(written)
    grown = document(coverage=[Covered(1, at(1), at(11))])
    assert not grown.says_the_same(written)
    assert grown.is_of_same_file(written)
    assert not written.holds_more_than(grown)
    assert grown.holds_more_than(written)
    for other in (document(until=at(20)), document(options={"width": "60s"}), document(layout=2)):
        assert not other.is_of_same_file(written)
