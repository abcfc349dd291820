"""Rows of books and of coverage as lines of CSV, in the order of their columns. Pure."""

from itertools import zip_longest

from collector.history.levels import LevelChange, Sample
from collector.kraken.orderbook import Level
from collector.kraken.times import format_time, from_microseconds
from collector.records import BookRow
from collector.verification.checks import StoredRun

_TIME_WIDTH = len("2026-01-31T12:00:00.000000")


def one_width(time: str) -> str:
    """A time as PostgreSQL writes it, which leaves out zeros at the end, in the collector's one width."""
    text = time.replace(" ", "T")
    return (text if "." in text else text + ".").ljust(_TIME_WIDTH, "0") + "Z"


def update_line(row: BookRow) -> bytes:
    """A row of a book: a line of `UPDATE_COLUMNS`."""
    return b'%b,"%b","%b",%b,%d,%d,%d,%b\n' % (
        row.event_time.encode(),
        row.bids,
        row.asks,
        row.type.encode(),
        row.checksum,
        row.chain,
        row.seq,
        b"" if row.evicted is None else b'"%b"' % row.evicted.replace(b'"', b'""'),
    )


def change_line(change: LevelChange) -> bytes:
    """A change of a level: a line of `LEVEL_COLUMNS`."""
    row = change.row
    return b"%b,%d,%d,%b,%b,%b\n" % (
        row.event_time.encode(),
        row.chain,
        row.seq,
        change.side.encode(),
        change.price,
        change.size,
    )


def sample_line(sample: Sample, chain: int, levels: int) -> bytes:
    """A sample of a book: a line of `top_columns(levels)`."""
    numbers = [b"%b,%b" % (_number_pair(bid), _number_pair(ask)) for bid, ask in zip_longest(sample.bids, sample.asks)]
    numbers += [b",,,"] * (levels - len(numbers))
    return b"%b,%d,%b\n" % (format_time(from_microseconds(sample.at)).encode(), chain, b",".join(numbers))


def run_line(run: StoredRun) -> bytes:
    """A run: a line of `COVERAGE_COLUMNS`."""
    ended_at, dropped_before, suspect_since = (
        "" if time is None else one_width(time) for time in (run.ended_at, run.dropped_before, run.suspect_since)
    )
    values = [
        one_width(run.started_at),
        one_width(run.last_at),
        _quoted(run.pair),
        run.channel,
        str(run.chain),
        str(run.updates),
        str(run.rows),
        ended_at,
        "" if run.end_reason is None else _quoted(run.end_reason),
        dropped_before,
        suspect_since,
    ]
    return ",".join(values).encode() + b"\n"


def _number_pair(level: Level | None) -> bytes:
    return b"," if level is None else b"%b,%b" % (level.price, level.size)


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
