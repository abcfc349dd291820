"""What the book task hands to the flush task and to the publisher: rows and the coverage that they prove.

Prices and sizes are the digits that Kraken sent, as ASCII bytes in plain notation; they never pass through float.
Times are RFC 3339 text of one fixed width (`2026-08-24T22:21:58.345080Z`: UTC, microseconds), so that they compare
as text, and PostgreSQL and Redis subscribers both read them as they are.
"""

from typing import Literal, TypeAlias

import msgspec

# Ends of runs that nobody saw: of a spool that is not heard of any more, and at a hole among a spool's segments. The
# spool may still come with more of such a run, and opens it again.
SPOOL_LOST = "spool_lost"
SEGMENT_LOST = "segment_lost"


class Trade(msgspec.Struct, frozen=True, gc=False):
    """One trade: a row of kraken_trades."""

    event_time: str
    pair: str
    price: bytes
    volume: bytes
    side: str
    order_type: str
    trade_id: int


class BookRow(msgspec.Struct, frozen=True, gc=False):
    """One snapshot or update of an order book: a row of kraken_orderbook.

    `bids` and `asks` are JSON arrays of `[price, size]`; `evicted` is a JSON object of the prices that the cut to the
    subscribed depth removed in this row, None when it removed none. A snapshot with `seq` above 0 is the collector's
    own checkpoint.
    """

    event_time: str
    pair: str
    bids: bytes
    asks: bytes
    type: Literal["snapshot", "update"]
    checksum: int
    chain: int
    seq: int
    evicted: bytes | None


class Coverage(msgspec.Struct, frozen=True, gc=False, tag="coverage"):
    """The state of one unbroken run of verified data: a row of kraken_coverage, absolute, so that the last one wins.

    `updates` counts Kraken's updates in a book run, and trades received in a trade run; `rows` counts what the run
    stored (for a book run the next `seq`). `ended_at` and `end_reason` are None while the run goes on.
    """

    pair: str
    channel: Literal["book", "trade"]
    chain: int
    started_at: str
    last_at: str
    updates: int
    rows: int
    ended_at: str | None = None
    end_reason: str | None = None


class Interrupted(msgspec.Struct, frozen=True, gc=False, tag="interrupted"):
    """Every run of this spool that is still open ended where its last row is: its process or its tasks are gone."""

    reason: str


class Difference(msgspec.Struct, frozen=True):
    """A level that a book and a snapshot do not agree on; a size is None where the level is not there at all."""

    side: Literal["bid", "ask"]
    price: str
    ours: str | None
    theirs: str | None


class Audit(msgspec.Struct, frozen=True, gc=False, tag="audit"):
    """The comparison of a book with a fresh snapshot on every level: passed where no level differs."""

    pair: str
    chain: int
    audited_at: str
    differences: list[Difference]


Proof: TypeAlias = Coverage | Interrupted | Audit  # what is said of rows, beside the rows themselves
Record: TypeAlias = Trade | BookRow | Proof
