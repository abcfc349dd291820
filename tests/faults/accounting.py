"""Holds what a database stored against what was sent: rows lost, rows twice, and coverage that claims too much.

Exact: each chain must be a gapless beginning of one book that was sent, with every digit; a book that was delivered
must be stored to its end; each trade that was delivered must be stored, once.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import takewhile

from faults.sent import UNREAD, Segment, SentLog
from stored import BookEntry, Run, StoredRow, TradeEntry, coverage, entries, read_chains, stored_trades

# Seconds between a run's last row and its end: heartbeats come each second, and prove that nothing was missed.
END_TOLERANCE = timedelta(seconds=1)
# Before a spool was torn: what its end held may have been written that long before, at the most.
TORN_WITHIN = timedelta(seconds=UNREAD)


@dataclass
class Exemptions:
    """What faults take out of the count: nothing, unless they say so.

    `set_apart` holds entries by pair and time that PostgreSQL was made to reject: what follows them in their chain is
    set apart, too; `rejected_trades` likewise, by pair and id. `quiet` are times in which nothing came but heartbeats,
    which prove that nothing was missed. `torn_at` is when a spool lost its end, and with it perhaps the coverage of
    rows that are stored.
    """

    set_apart: set[tuple[str, str]] = field(default_factory=set)
    rejected_trades: set[tuple[str, int]] = field(default_factory=set)
    quiet: list[tuple[datetime, datetime]] = field(default_factory=list)
    torn_at: list[datetime] = field(default_factory=list)

    def quiet_within(self, start: datetime, end: datetime) -> timedelta:
        """How much of a time was quiet."""
        overlaps = (min(end, until) - max(start, since) for since, until in self.quiet)
        return sum((overlap for overlap in overlaps if overlap > timedelta()), timedelta())

    def may_be_torn(self, last_row: datetime) -> bool:
        """Whether the end of a chain with that last row may have been in what a spool lost."""
        return any(torn - TORN_WITHIN <= last_row <= torn for torn in self.torn_at)


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


def account(url: str, log: SentLog, exemptions: Exemptions) -> Account:
    """Compare a database with what was sent."""
    result = Account()
    chains, trades = read_chains(url), stored_trades(url)
    result.stored = sum(map(len, chains.values())) + len(trades)
    _account_books(chains, log, exemptions, result)
    _account_trades(trades, log, exemptions, result)
    _account_coverage(chains, coverage(url, "book") + coverage(url, "trade"), exemptions, result)
    return result


def _account_books(
    chains: Mapping[tuple[str, int], list[StoredRow]], log: SentLog, exemptions: Exemptions, result: Account
) -> None:
    segments = log.segments()
    by_snapshot: dict[tuple[str, str], list[Segment]] = {}
    for segment in segments:
        by_snapshot.setdefault((segment.pair, segment.entries[0].event_time), []).append(segment)
    taken: dict[int, int] = {}  # by the segment's identity, how many of its entries are stored
    for (pair, chain), rows in chains.items():
        numbers = [row.seq for row in rows]
        result.duplicates += len(numbers) - len(set(numbers))
        if numbers != list(range(len(numbers))):
            result.problems.append(f"{pair} {chain}: seq has holes or repetitions")
        sent_rows = entries(rows)
        result.expected += len(rows) - len(sent_rows)  # checkpoints are of the collector's own making
        candidates = by_snapshot.get((pair, sent_rows[0].event_time), []) if sent_rows else []
        best = max(
            (candidate for candidate in candidates if id(candidate) not in taken),
            key=lambda segment: _common(segment.entries, sent_rows),
            default=None,
        )
        if best is None or _common(best.entries, sent_rows) < len(sent_rows):
            result.problems.append(f"{pair} {chain}: its {len(rows)} rows are no beginning of what was sent")
            continue
        taken[id(best)] = len(sent_rows)
    for segment in segments:
        stored, due = taken.get(id(segment), 0), _due(segment, log, exemptions)
        result.expected += max(stored, due)
        if log.due_until(segment) < float("inf"):
            result.unread += len(segment.entries) - max(stored, due)
        if stored < due:
            result.lost += due - stored
            result.problems.append(
                f"{segment.pair} on connection {segment.connection}: {due - stored} of {due} rows lost,"
                f" the first one of {segment.entries[stored].event_time}"
            )


def _common(sent: Iterable[BookEntry], stored: Iterable[BookEntry]) -> int:
    """How many rows are as they were sent, from the first one on."""
    return sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(sent, stored, strict=False)))


def _due(segment: Segment, log: SentLog, exemptions: Exemptions) -> int:
    """How many entries of a book that was sent must be stored."""
    until = log.due_until(segment)
    due = 0
    for entry, moment in zip(segment.entries, segment.times, strict=True):
        if moment > until or (segment.pair, entry.event_time) in exemptions.set_apart:
            break
        due += 1
    return due


def _account_trades(trades: list[TradeEntry], log: SentLog, exemptions: Exemptions, result: Account) -> None:
    stored = {(trade.pair, trade.trade_id): trade for trade in trades}
    result.duplicates += len(trades) - len(stored)
    sent: dict[tuple[str, int], TradeEntry] = {}
    due: set[tuple[str, int]] = set()
    for connection, moment, trade in log.trades():
        sent[trade.pair, trade.trade_id] = trade
        if moment <= log.delivered_until(connection):
            due.add((trade.pair, trade.trade_id))
    due -= exemptions.rejected_trades
    # What was not sent may have been repaired over REST; the market does not remember all that was sent.
    wrong = [trade for key, trade in stored.items() if (log.happened(*key) or sent.get(key)) != trade]
    if wrong:
        result.problems.append(f"{len(wrong)} trades are stored that never happened so, such as {wrong[0]}")
    lost = due - stored.keys()
    result.expected += len(stored.keys() | due)
    result.lost += len(lost)
    if lost:
        result.problems.append(f"{len(lost)} of {len(due)} trades lost, such as {min(lost)}")


def _account_coverage(
    chains: Mapping[tuple[str, int], list[StoredRow]], runs: Iterable[Run], exemptions: Exemptions, result: Account
) -> None:
    books = {(run.pair, run.chain): run for run in runs if run.channel == "book"}
    for run in runs:
        result.reasons[run.end_reason or "open"] += 1
        if run.ended_at is None or run.ended_at < run.started_at:
            result.problems.append(f"{run}: has no end, or one before its beginning")
    for key in books.keys() - chains.keys():
        result.problems.append(f"{books[key]}: covers a book without a row")
    for key, rows in chains.items():
        last = datetime.fromisoformat(rows[-1].entry.event_time).astimezone(UTC).replace(tzinfo=None)
        may_be_torn = exemptions.may_be_torn(last)
        run = books.get(key)
        if run is None or run.ended_at is None:
            if not may_be_torn:
                result.problems.append(f"{key}: {len(rows)} rows without coverage")
            continue
        claims = run.rows, run.updates + 1
        holds = len(rows), len(entries(rows))
        if claims != holds and not (may_be_torn and claims <= holds):
            result.problems.append(f"{key}: coverage claims {claims} rows, {holds} are stored")
        latest = last + END_TOLERANCE + exemptions.quiet_within(last, run.ended_at)
        if not last <= run.ended_at <= latest and not may_be_torn:
            result.problems.append(f"{key}: its last row is of {last}, its end of {run.ended_at} ({run.end_reason})")
