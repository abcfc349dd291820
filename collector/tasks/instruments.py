"""Follows the list of the exchange's pairs, on a connection of its own, where PAIRS asks for patterns.

Without that connection the list that was heard last goes on to count: no pair is given up because nobody knows.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from itertools import chain

import structlog
import trio
from trio_util import AsyncValue
from trio_websocket import WebSocketConnection

from collector.books import Books
from collector.errors import FeedError
from collector.feed import Doubts
from collector.kraken.connection import open_connection, receive_messages
from collector.kraken.messages import Decoder, InstrumentMessage, Malformed, Response
from collector.kraken.pairs import Instrument
from collector.kraken.requests import RATE_LIMITED, subscribe_instruments
from collector.settings import Settings
from collector.tasks.socket import Attempts

SILENCE = 10.0  # seconds without a frame, where a heartbeat comes each second, after which a connection is dead
# Of what is listed, these have no market: it is over, or has not begun. All others may fall silent for a while.
WITHOUT_MARKET = frozenset({"delisted", "work_in_progress"})

log = structlog.get_logger()


async def follow_instruments(
    settings: Settings,
    wanted: AsyncValue[frozenset[str]],
    current_books: Callable[[], Books | None],
    doubts: Doubts,
    attempts: Attempts,
) -> None:
    """Keep `wanted` to the pairs that the settings ask for and the exchange lists, for ever."""
    listing, decoder = Listing(), Decoder(lambda: datetime.now(UTC))
    backoff = attempts.new_backoff()
    while True:
        started = await attempts.take_turn()
        try:
            async with open_connection(settings.kraken_ws_url) as websocket:
                await websocket.send_message(subscribe_instruments())
                while True:
                    for message in await _next_messages(websocket, decoder):
                        changed = listing.take(message)
                        _doubt(changed, current_books(), doubts)
                        _announce(wanted, settings.selection.wanted(listing.pairs))
        except FeedError as error:
            delay = error.pause + backoff.delay(trio.current_time() - started)
            log.warning("instruments_out_of_reach", reason=error.reason, detail=error.detail, retry_in=round(delay, 2))
            await trio.sleep(delay)


class Listing:
    """What the exchange lists, by what it said last."""

    def __init__(self) -> None:
        self._instruments: dict[str, Instrument] = {}

    @property
    def pairs(self) -> Iterable[str]:
        """The pairs that have a market."""
        return [pair for pair, known in self._instruments.items() if known.status not in WITHOUT_MARKET]

    def take(self, message: InstrumentMessage) -> list[str]:
        """Note a message; return the pairs whose prices or quantities have other decimals than before."""
        before = self._instruments
        now = {instrument.symbol: instrument for instrument in message.instruments}
        self._instruments = now if message.type == "snapshot" else before | now
        return [pair for pair in now.keys() & before.keys() if _decimals(now[pair]) != _decimals(before[pair])]


def _decimals(instrument: Instrument) -> tuple[int, int]:
    return instrument.price_precision, instrument.qty_precision


async def _next_messages(websocket: WebSocketConnection, decoder: Decoder) -> list[InstrumentMessage]:
    """The instruments of the next frames.

    Raises:
        FeedError: nothing comes, or the subscription was refused.

    """
    messages: list[InstrumentMessage] = []
    try:
        with trio.fail_after(SILENCE):
            frames = await receive_messages(websocket)
    except trio.TooSlowError:
        raise FeedError("silent", f"no frame for {SILENCE:g} s") from None
    for message in chain.from_iterable(map(decoder.decode, frames)):
        match message:
            case InstrumentMessage():
                messages.append(message)
            case Malformed(reason=reason, pair=pair, sample=sample):
                log.warning("malformed_instrument", pair=pair, reason=reason, sample=sample)
            case Response(error=str(error)):
                raise FeedError("busy" if error == RATE_LIMITED else "refused", error)
    return messages


def _doubt(pairs: Iterable[str], books: Books | None, doubts: Doubts) -> None:
    """Have the books of pairs begin anew: which of their messages have the new decimals is not told."""
    for rows in [] if books is None else books.held():
        if rows.pair in pairs and rows.run is not None:
            doubts.add(rows.pair, rows.run.chain, "precision_changed")


def _announce(wanted: AsyncValue[frozenset[str]], pairs: frozenset[str]) -> None:
    if pairs == wanted.value:
        return
    new, gone = sorted(pairs - wanted.value), sorted(wanted.value - pairs)
    log.info("pairs_listed", pairs=len(pairs), new=new, gone=gone)
    wanted.value = pairs
