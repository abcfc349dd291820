"""A database with a simulated market in it, stored as the collector stores it, for tests of what reads it back."""

from collections import deque
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from collector.kraken.messages import BookMessage, Decoder, TradeMessage
from collector.kraken.simulator.simulation import Simulation, simulated_frames
from collector.records import Record
from collector.rows import BookRows, ChainNumbers, TradeRows
from collector.storage.database import connect
from collector.storage.partitions import ensure_day
from collector.storage.segments import Header, encode_header, encode_records, read_segment
from collector.storage.shipping import prepare, ship

SPOOL = UUID(int=1)
PAIRS = ("BTC/USD", "ETH/USD")
CHECKPOINT_INTERVAL = 10.0  # seconds: a tape of some hundred frames has several


def now() -> datetime:
    return datetime(2030, 1, 1, tzinfo=UTC)  # no recording is from later


def records_of(
    frames: Iterable[bytes], pairs: Sequence[str] = PAIRS, depth: int = 10, *, chain: int = 0, end: str | None = "test"
) -> list[Record]:
    """What the collector makes of frames; with `end` None its runs are still open."""
    decoder, numbers = Decoder(now), ChainNumbers(lambda: datetime.fromtimestamp(0, UTC), chain)
    books = {pair: BookRows(pair, depth, CHECKPOINT_INTERVAL, numbers) for pair in pairs}
    trades = {pair: TradeRows(pair, numbers) for pair in pairs}
    records: list[Record] = []
    for pair in pairs:
        books[pair].subscribed()
    for frame in frames:
        for message in decoder.decode(frame.decode()):
            if isinstance(message, BookMessage):
                records += books[message.pair].take(message, 0.0)
            elif isinstance(message, TradeMessage):
                for trade in message.trades:
                    rows = trades[trade.pair]
                    if rows.run is None:
                        rows.subscribed(trade.event_time, 0.0)
                    rows.take(trade, 0.0)
                    records.append(trade)
    runs = [rows.run for rows in (*books.values(), *trades.values()) if rows.run is not None]
    return [*records, *(run.coverage(0.0, end) for run in runs)]


def store(url: str, records: Sequence[Record], segment: int = 1) -> None:
    """Ship records as a segment."""
    data = encode_header(Header(SPOOL, segment, None, 0)) + encode_records(records)
    read = read_segment(data)
    assert read is not None
    with connect(url, application_name="tests") as connection:
        prepare(connection)
        for day in {line[:10].decode() for block in read.book for line in block.splitlines()}:
            ensure_day(connection, date.fromisoformat(day))
        assert ship(connection, read)


def simulate(
    pairs: Sequence[str] = PAIRS, *, depth: int = 10, seed: int = 1, count: int = 2000, **more: object
) -> list[Record]:
    """The records of a simulated market."""
    return records_of(simulated_frames(pairs, depth, seed, count), pairs, depth, **more)


MIDNIGHT = datetime(2023, 11, 15, tzinfo=UTC)


def over_midnight(depth: int = 10) -> list[list[Record]]:
    """Two connections: from 2 minutes before midnight to 1 minute after it, and another minute from 30 seconds on."""
    start = MIDNIGHT - timedelta(minutes=2)
    simulation = Simulation(PAIRS, seed=5, start=nanoseconds(start), depths=[depth])
    tapes: list[list[Record]] = []
    for begin, end in ((0, 180), (210, 270)):
        deque(simulation.advance(nanoseconds(start + timedelta(seconds=begin))), maxlen=0)
        frames = [market.snapshot(depth) for market in simulation.markets.values()]
        for _, step in simulation.advance(nanoseconds(start + timedelta(seconds=end))):
            frames += [frame for frame in (step.trades, step.books.get(depth)) if frame is not None]
        tapes.append(records_of(frames, PAIRS, depth, chain=100 * len(tapes), end="closed_1012"))
    return tapes


def nanoseconds(moment: datetime) -> int:
    """A time as the simulation counts it."""
    return int(moment.timestamp()) * 10**9
