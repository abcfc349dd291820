"""Counters that the tasks keep and the live line (and whoever else wants to) reads. Nothing depends on them."""

from collections import Counter, deque
from dataclasses import dataclass, field

from collector.kraken.messages import Malformed

SAMPLES = 20  # bad frames that are kept for diagnosis, 2 kB each at the most


@dataclass(slots=True)
class PairStatistics:
    """What is known of a pair now; prices are the digits as sent, None until there are any."""

    best_bid: bytes | None = None
    best_ask: bytes | None = None
    last_trade: bytes | None = None


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
        malformed_samples: the latest of them.
        desyncs: books that went wrong, by reason; `checksum` is the one that matters.
        unknown: messages of channels that nobody asked for.
        published: messages handed to Redis.
        unpublished: messages that Redis subscribers missed.
        missing_trades: trades that are known to be missing from PostgreSQL now, by pair.
        repaired_trades: trades that were missing and that REST had.
        absent_trades: trades that were missing and that REST does not have either.

    """

    pairs: dict[str, PairStatistics] = field(default_factory=dict)
    frames: int = 0
    rows: int = 0
    stored_rows: int = 0
    shipped_segments: int = 0
    connections: int = 0
    malformed: Counter[str] = field(default_factory=Counter)
    malformed_samples: deque[Malformed] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    desyncs: Counter[str] = field(default_factory=Counter)
    unknown: int = 0
    published: int = 0
    unpublished: int = 0
    missing_trades: Counter[str] = field(default_factory=Counter)
    repaired_trades: int = 0
    absent_trades: int = 0
