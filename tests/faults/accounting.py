"""Holds what a database stored against what was sent: rows lost, rows twice, and coverage that claims too much.

Exact: each chain must be a gapless beginning of one book that was sent, with every digit; a book that was delivered
must be stored to its end; each trade that was delivered must be stored, once.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from typing import NamedTuple

import psycopg
from faults.sent import Entry, Segment, SentLog, SentTrade

TIME = """to_char({}, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
BOOK = f"""SELECT pair, chain, seq, {TIME.format("event_time")}, type, bids::text, asks::text, checksum
FROM kraken_orderbook ORDER BY pair, chain, seq"""
TRADES = f"""SELECT pair, trade_id, {TIME.format("event_time")}, price::text, volume::text, side, order_type
FROM kraken_trades"""
COVERAGE = """SELECT pair, channel, chain, started_at, ended_at, end_reason, updates, rows FROM kraken_coverage
ORDER BY pair, channel, started_at"""
# Seconds between a run's last row and its end: heartbeats come each second, and prove that nothing was missed.
END_TOLERANCE = timedelta(seconds=1)


class StoredRow(NamedTuple):
    """A row of kraken_orderbook."""

    seq: int
    entry: Entry

    @property
    def is_checkpoint(self) -> bool:
        """Whether the collector made it, and nobody sent it."""
        return self.entry.type == "snapshot" and self.seq > 0


class Run(NamedTuple):
    """A row of kraken_coverage."""

    pair: str
    channel: str
    chain: int
    started_at: datetime
    ended_at: datetime | None
    end_reason: str | None
    updates: int
    rows: int


@dataclass
class Exemptions:
    """What a fault takes out of the count: nothing, unless it says so.

    `table_gone_at` are times (as `event_time` text) by table before which its rows may be gone, since somebody
    dropped it. `ends_before` tells of a chain's entry that it may not be stored, nor what follows it in the chain.
    """

    table_gone_at: dict[str, str] = field(default_factory=dict)
    ends_before: Callable[[str, Entry], bool] = lambda _pair, _entry: False
    trade_missing: Callable[[SentTrade], bool] = lambda _trade: False
    end_tolerance: timedelta = END_TOLERANCE
    coverage_may_lack_rows: bool = False


@dataclass
class Account:
    """The result; `problems` is empty when everything is as it must be.

    `unread` counts book messages that were handed to a socket that broke soon after, and never read from it.
    """

    expected: int = 0
    stored: int = 0
    lost: int = 0
    unread: int = 0
    duplicates: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def account(url: str, log: SentLog, exemptions: Exemptions | None = None) -> Account:
    """Compare a database with what was sent."""
    exemptions = exemptions or Exemptions()
    result = Account()
    with psycopg.connect(url, options="-c timezone=UTC") as connection:
        rows = connection.execute(BOOK).fetchall()
        trades = [SentTrade(*row) for row in connection.execute(TRADES).fetchall()]
        runs = [Run(*row) for row in connection.execute(COVERAGE).fetchall()]
    chains = {
        key: [StoredRow(row[2], Entry(*row[3:])) for row in group]
        for key, group in groupby(rows, lambda row: (row[0], row[1]))
    }
    result.stored = len(rows) + len(trades)
    _account_books(chains, log, exemptions, result)
    _account_trades(trades, log, exemptions, result)
    _account_coverage(chains, runs, exemptions, result)
    if exemptions.table_gone_at:
        result.stored = result.expected - result.lost  # older rows may be there, and do not count
    return result


def _account_books(
    chains: dict[tuple[str, int], list[StoredRow]], log: SentLog, exemptions: Exemptions, result: Account
) -> None:
    segments = log.segments()
    by_snapshot: dict[tuple[str, str], list[Segment]] = {}
    for segment in segments:
        by_snapshot.setdefault((segment.pair, segment.entries[0].time), []).append(segment)
    taken: dict[int, int] = {}  # by the segment's identity, how many of its entries are stored
    gone_at = exemptions.table_gone_at.get("kraken_orderbook", "")
    for (pair, chain), rows in chains.items():
        numbers = [row.seq for row in rows]
        result.duplicates += len(numbers) - len(set(numbers))
        if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
            result.problems.append(f"{pair} {chain}: seq has holes or repetitions")
        sent_rows = [row.entry for row in rows if not row.is_checkpoint]
        result.expected += len(rows) - len(sent_rows)  # checkpoints are of the collector's own making
        if numbers[0] == 0:
            candidates = by_snapshot.get((pair, sent_rows[0].time), [])
        else:
            candidates = [segment for segment in segments if segment.pair == pair] if gone_at else []
        best = max(
            (candidate for candidate in candidates if id(candidate) not in taken),
            key=lambda segment: _common(segment, sent_rows),
            default=None,
        )
        if best is None or _common(best, sent_rows) < len(sent_rows):
            result.problems.append(f"{pair} {chain}: its {len(rows)} rows are no beginning of what was sent")
            continue
        taken[id(best)] = _start(best, sent_rows) + len(sent_rows)
    for segment in segments:
        stored = taken.get(id(segment), 0)
        due = _due(segment, log, exemptions)
        if gone_at:
            before = sum(entry.time < gone_at for entry in segment.entries)
            stored, due = max(0, stored - before), max(0, due - before)
        result.expected += max(stored, due)
        if log.delivered_until(segment.connection) < float("inf"):
            result.unread += len(segment.entries) - max(stored, due)
        if stored < due:
            result.lost += due - stored
            result.problems.append(
                f"{segment.pair} on connection {segment.connection}: {due - stored} of {due} rows lost,"
                f" the first one of {segment.entries[stored].time}"
            )


def _start(segment: Segment, rows: list[Entry]) -> int:
    """Where in a book the rows begin: at 0 unless the table was dropped under way."""
    return segment.entries.index(rows[0]) if rows and rows[0] in segment.entries else 0


def _common(segment: Segment, rows: list[Entry]) -> int:
    """How many rows are as they were sent, from the first one on."""
    start = _start(segment, rows)
    count = 0
    for sent, stored in zip(segment.entries[start:], rows, strict=False):
        if sent != stored:
            break
        count += 1
    return count


def _due(segment: Segment, log: SentLog, exemptions: Exemptions) -> int:
    """How many entries of a book that was sent must be stored."""
    until = log.delivered_until(segment.connection)
    due = 0
    for entry, moment in zip(segment.entries, segment.times, strict=True):
        if moment > until or exemptions.ends_before(segment.pair, entry):
            break
        due += 1
    return due


def _account_trades(trades: list[SentTrade], log: SentLog, exemptions: Exemptions, result: Account) -> None:
    stored = {(trade.pair, trade.trade_id): trade for trade in trades}
    result.duplicates += len(trades) - len(stored)
    gone_at = exemptions.table_gone_at.get("kraken_trades", "")
    sent: dict[tuple[str, int], SentTrade] = {}
    due: set[tuple[str, int]] = set()
    for connection, moment, trade in log.trades():
        sent[trade.pair, trade.trade_id] = trade
        if moment <= log.delivered_until(connection) and trade.time >= gone_at and not exemptions.trade_missing(trade):
            due.add((trade.pair, trade.trade_id))
    # What was not sent may have been repaired over REST; the market does not remember all that was sent.
    wrong = [
        trade
        for key, trade in stored.items()
        if trade.time >= gone_at and (log.happened(*key) or sent.get(key)) != trade
    ]
    if wrong:
        result.problems.append(f"{len(wrong)} trades are stored that never happened so, such as {wrong[0]}")
    lost = due - stored.keys()
    result.expected += len(stored.keys() | due)
    result.lost += len(lost)
    if lost:
        result.problems.append(f"{len(lost)} of {len(due)} trades lost, such as {min(lost)}")


def _account_coverage(
    chains: dict[tuple[str, int], list[StoredRow]], runs: Iterable[Run], exemptions: Exemptions, result: Account
) -> None:
    books = {(run.pair, run.chain): run for run in runs if run.channel == "book"}
    for run in runs:
        result.reasons[run.end_reason or "open"] += 1
        if run.ended_at is None or run.ended_at < run.started_at:
            result.problems.append(f"{run}: has no end, or one before its beginning")
    if exemptions.table_gone_at:
        return  # what coverage told of the dropped rows was true when it was told
    for key in books.keys() - chains.keys():
        result.problems.append(f"{books[key]}: covers a book without a row")
    for key, rows in chains.items():
        run = books.get(key)
        if run is None or run.ended_at is None:
            if not exemptions.coverage_may_lack_rows:
                result.problems.append(f"{key}: {len(rows)} rows without coverage")
            continue
        claims = run.rows, run.updates + 1
        holds = len(rows), sum(not row.is_checkpoint for row in rows)
        if claims != holds and not (exemptions.coverage_may_lack_rows and claims <= holds):
            result.problems.append(f"{key}: coverage claims {claims} rows, {holds} are stored")
        last = datetime.strptime(rows[-1].entry.time, "%Y-%m-%dT%H:%M:%S.%fZ")  # noqa: DTZ007 - as the column is
        if not last <= run.ended_at <= last + exemptions.end_tolerance and not exemptions.coverage_may_lack_rows:
            result.problems.append(f"{key}: its last row is of {last}, its end of {run.ended_at} ({run.end_reason})")
