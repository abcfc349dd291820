"""Server-sent events of one pair: first all that is known, then what is new.

A client that comes back gets all again, so that nothing has to be kept for it.
"""

from collections.abc import AsyncIterator
from contextlib import ExitStack
from types import TracebackType

import msgspec
import trio
from quart.wrappers.response import ResponseBody

from collector.dashboard.follower import Follower, Followers, PairState
from collector.dashboard.views import BookView, Health, sample_rows, trade_rows

RETRY = 2000  # milliseconds after which a browser connects again
HEARTBEAT = 5.0  # seconds after which a client hears something, so that it notices a line that is dead


class Update(msgspec.Struct, frozen=True, omit_defaults=True):
    """One event; what is left out is as it was, `is_first` says that nothing was before it."""

    health: Health
    is_first: bool = False
    book: BookView | None = None
    trades: list[tuple[int | None, str, str, str, str, str]] = []
    samples: list[tuple[int, float | None, int]] = []


class PairStream(ResponseBody):
    """The events of a pair as the body of a response; the pair is followed for as long as it is being sent."""

    def __init__(self, followers: Followers, pair: str) -> None:
        self._followers = followers
        self._pair = pair
        self._stack = ExitStack()

    async def __aenter__(self) -> AsyncIterator[bytes]:
        """Begin to follow."""
        return _events(self._stack.enter_context(self._followers.watching(self._pair)))

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """The client has gone, or the server goes."""
        self._stack.close()


async def _events(follower: Follower) -> AsyncIterator[bytes]:
    yield b"retry: %d\n\n" % RETRY
    known = None
    with trio.move_on_after(HEARTBEAT):  # the first look at the database; until then the page says that it reads it
        await follower.version.wait_value(lambda number: number > 0)
    while True:
        version, state = follower.version.value, follower.state
        yield b"data: %b\n\n" % msgspec.json.encode(_update(state, known))
        known = state
        with trio.move_on_after(HEARTBEAT):
            await follower.version.wait_value(lambda number, seen=version: number > seen)


def _update(state: PairState, known: PairState | None) -> Update:
    """What of a state is new to a client that knows another, or none."""
    if known is None:
        return Update(
            state.health,
            is_first=True,
            book=state.book,
            trades=trade_rows(state.trades),
            samples=sample_rows(state.samples),
        )
    new_trades = []
    for trade in state.trades:
        if known.trades and trade == known.trades[0]:
            break
        new_trades.append(trade)
    last = known.samples[-1].second if known.samples else -1
    return Update(
        state.health,
        book=None if state.book == known.book else state.book,
        trades=trade_rows(new_trades),
        samples=sample_rows(sample for sample in state.samples if sample.second > last),
    )
