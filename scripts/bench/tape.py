"""A simulated market as a file: the bytes that a server of frames sends, and when each frame is due.

The same arguments make the same bytes, so that every run and every contestant gets the same feed. The file holds whole
WebSocket frames one behind the other, which a server can hand to the kernel as they are.
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from collector.kraken.server.wire import Opcode, frame_header
from collector.kraken.simulator.simulation import DEFAULT_RATE, Simulation

SEED = 1


@dataclass(frozen=True, slots=True)
class Tape:
    """A feed of one connection, and what of it must be stored.

    Attributes:
        path: the file of frames. Beside it, as `schedule` says, lies when each one is due.
        pairs: the pairs; the tape begins with a snapshot of the book of each.
        depth: of the books.
        messages: all frames.
        book_updates: those that update a book.
        trades: within the others.
        lengths: of each message in bytes, without its WebSocket header.

    """

    path: Path
    pairs: tuple[str, ...]
    depth: int
    messages: int
    book_updates: int
    trades: int
    lengths: "array[int]"

    @property
    def timed_messages(self) -> int:
        """The messages behind the snapshots: what runs are timed by."""
        return self.messages - len(self.pairs)

    def frames(self) -> Iterator[str]:
        """The messages, as a client gets them."""
        with self.path.open("rb") as file:
            for length in self.lengths:
                file.seek(len(frame_header(Opcode.TEXT, length)), 1)
                yield file.read(length).decode()


def schedule_of(path: Path) -> Path:
    """The file that says of each frame of a tape when it is due and where it ends.

    It holds 64-bit numbers: for each frame nanoseconds since the first one, then for each frame the offset in the tape.
    """
    return path.with_suffix(".schedule")


def read_schedule(path: Path) -> "tuple[array[int], array[int]]":
    """When each frame is due, and where in the tape each one ends."""
    numbers = array("q", schedule_of(path).read_bytes())
    half = len(numbers) // 2
    return numbers[:half], numbers[half:]


def make_tape(path: Path, pairs: Sequence[str], depth: int, messages: int, rate: float = DEFAULT_RATE) -> Tape:
    """Write a tape; `rate` is the steps a second of the first pair's market, and the n-th pair has an n-th of it."""
    lengths, due, ends = array("q"), array("q"), array("q")
    book_updates = trades = end = 0
    with path.open("wb") as file:
        for time, frame in _market(pairs, depth, messages, rate):
            traded = frame.count(b'"trade_id":')  # none in a book's message
            book_updates += traded == 0
            trades += traded
            end += file.write(frame_header(Opcode.TEXT, len(frame)) + frame)
            lengths.append(len(frame))
            due.append(time)
            ends.append(end)
    schedule_of(path).write_bytes(due.tobytes() + ends.tobytes())
    return Tape(path, tuple(pairs), depth, len(lengths), book_updates - len(pairs), trades, lengths)


def _market(pairs: Sequence[str], depth: int, messages: int, rate: float) -> Iterator[tuple[int, bytes]]:
    """When each message is due, in nanoseconds since the start, and the message; the snapshots come first."""
    simulation = Simulation(pairs, seed=SEED, rate=rate, depths=[depth])
    start = min(market.time for market in simulation.markets.values())
    for market in simulation.markets.values():
        yield 0, market.snapshot(depth)
    made = len(pairs)
    while made < messages:
        _, step = simulation.next_step()
        for frame in (step.trades, step.books.get(depth)):
            if frame is not None and made < messages:
                yield step.time - start, frame
                made += 1
