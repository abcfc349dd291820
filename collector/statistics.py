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
class FramesUnderWay:
    """When the oldest frame arrived, in monotonic seconds, of those that have come as far as this; None for none.

    Attributes:
        unread: received, and not yet taken by the book task.
        batch: in the batch that the book task took last.
        unspooled: made into records that are not in the spool yet.

    """

    unread: float | None = None
    batch: float | None = None
    unspooled: float | None = None

    def read(self, *, made_records: bool) -> None:
        """Note that the book task took all that was unread; what made no records goes no further."""
        self.batch, self.unread = self.unread, None
        if made_records and self.unspooled is None:
            self.unspooled = self.batch

    def spooled(self, now: float) -> float:
        """Note that records went into the spool; returns when their oldest frame came, `now` where none made them."""
        since, self.unspooled = self.unspooled, None
        return now if since is None else since


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
        under_way: when the oldest frames arrived that are not in the spool yet.
        arrivals: when the oldest frame of a segment that is not committed arrived, in monotonic seconds, by number.
        commit_latency: from a frame to the commit of its rows; of each segment, its oldest frame.
        publish_latency: from a frame to Redis' answer; of each batch, its oldest frame.
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
    under_way: FramesUnderWay = field(default_factory=FramesUnderWay)
    arrivals: dict[int, float] = field(default_factory=dict)
    commit_latency: Latency = field(default_factory=Latency)
    publish_latency: Latency = field(default_factory=Latency)
    group: GroupStarts = field(default_factory=GroupStarts)

    @property
    def desyncs(self) -> Counter[str]:
        """Books that went wrong, of all pairs, by reason."""
        return sum((pair.desyncs for pair in self.pairs.values()), Counter[str]())

    def spooled(self, segment: int, now: float) -> None:
        """Note that a batch goes into a segment."""
        self.arrivals.setdefault(segment, self.under_way.spooled(now))

    def committed(self, segment: int, rows: int, now: float) -> None:
        """Note that a segment is in PostgreSQL; `rows` is what it added there."""
        self.stored_rows += rows
        self.shipped_segments += 1
        arrived_at = self.arrivals.pop(segment, None)
        if arrived_at is not None:  # else it was left by an earlier process, or brought by a repair alone
            self.commit_latency.observe(now - arrived_at)

    def oldest_waiting(self, now: float) -> float:
        """Seconds since the oldest frame arrived that is in the spool and not committed, 0 without any."""
        return max((now - arrived_at for arrived_at in self.arrivals.values()), default=0.0)
