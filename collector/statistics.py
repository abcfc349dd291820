"""Counters that the tasks keep, and the live line and the metrics read. Nothing depends on them."""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

# Upper ends of the classes that latencies are counted in, in seconds: around what FLUSH_INTERVAL and a round trip take,
# and up to an outage of some minutes.
LATENCY_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


@dataclass(slots=True)
class Latency:
    """How long something took, counted by class: `counts` has one more than the bounds, for what took longer."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS) + 1))
    seconds: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(LATENCY_BOUNDS, seconds)] += 1
        self.seconds += seconds


@dataclass(slots=True)
class PairStatistics:
    """What is known of a pair now; prices are the digits as sent, None until there are any.

    `desyncs` counts how often its book went wrong, by reason; `checksum` is the one that matters.
    """

    best_bid: bytes | None = None
    best_ask: bytes | None = None
    last_trade: bytes | None = None
    desyncs: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class GroupStarts:
    """How often the group of tasks was started, and since when it has not run for long.

    Attributes:
        count: starts; all but the first followed a crash.
        last_at: when the last one was, in monotonic seconds.
        unstable_since: when the first of those starts was that followed each other closely.

    """

    count: int = 0
    last_at: float = float("-inf")
    unstable_since: float = float("-inf")

    def note(self, now: float, stable_after: float) -> None:
        """Note a start; a run of at least `stable_after` seconds before it makes it a first one."""
        if now - self.last_at >= stable_after:
            self.unstable_since = now
        self.last_at = now
        self.count += 1


@dataclass(slots=True)
class Statistics:
    """What happened since this process began.

    Attributes:
        pairs: by pair, the state of the market as last seen.
        frames: frames received from Kraken.
        rows: trades and book rows appended to the spool; `spool.waiting_rows` of them are not committed yet.
        stored_rows: trades and book rows that PostgreSQL has committed.
        shipped_segments: segments that PostgreSQL has committed.
        connections: connections made to Kraken.
        malformed: frames, or elements of frames, that broke the protocol, by channel (`frame` where none is named).
        unknown: messages of channels that nobody asked for.
        published: messages handed to Redis.
        unpublished: messages that Redis subscribers missed.
        missing_trades: trades that are known to be missing from PostgreSQL now, by pair.
        repaired_trades: trades that were missing and that REST had.
        absent_trades: trades that were missing and that REST does not have either.
        commit_latency: from a verified batch's arrival at the spool to its commit; of each segment, its oldest batch.
        publish_latency: from a verified batch's offer to Redis' answer, of each batch.
        arrivals: when the oldest batch of a segment that is not committed arrived, in monotonic seconds, by number.
        group: the starts of the group of tasks.

    """

    pairs: dict[str, PairStatistics] = field(default_factory=dict)
    frames: int = 0
    rows: int = 0
    stored_rows: int = 0
    shipped_segments: int = 0
    connections: int = 0
    malformed: Counter[str] = field(default_factory=Counter)
    unknown: int = 0
    published: int = 0
    unpublished: int = 0
    missing_trades: Counter[str] = field(default_factory=Counter)
    repaired_trades: int = 0
    absent_trades: int = 0
    commit_latency: Latency = field(default_factory=Latency)
    publish_latency: Latency = field(default_factory=Latency)
    arrivals: dict[int, float] = field(default_factory=dict)
    group: GroupStarts = field(default_factory=GroupStarts)

    @property
    def desyncs(self) -> Counter[str]:
        """Books that went wrong, of all pairs, by reason."""
        return sum((pair.desyncs for pair in self.pairs.values()), Counter[str]())

    def arrived(self, segment: int, now: float) -> None:
        """Note that a batch goes into a segment."""
        self.arrivals.setdefault(segment, now)

    def committed(self, segment: int, rows: int, now: float) -> None:
        """Note that a segment is in PostgreSQL; `rows` is what it added there."""
        self.stored_rows += rows
        self.shipped_segments += 1
        arrived_at = self.arrivals.pop(segment, None)
        if arrived_at is not None:  # else it was left by an earlier process, or brought by a repair alone
            self.commit_latency.observe(now - arrived_at)

    def oldest_waiting(self, now: float) -> float:
        """Seconds for which the oldest batch that is not committed has been waiting, 0 without any."""
        return max((now - arrived_at for arrived_at in self.arrivals.values()), default=0.0)
