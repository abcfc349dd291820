"""The subscriptions of one connection: asking for them, checking every answer, resyncing books, trying again.

Requests go out one after the other, each when the one before is answered: that paces them by the server's own speed,
and the answers of a connection can never be confused.
"""

import itertools
from collections.abc import Callable
from typing import TypeAlias

import httpx2
import structlog
import trio
from trio_websocket import WebSocketConnection

from collector.errors import FeedError, RestError
from collector.feed import ResyncRequests, Subscribed
from collector.kraken.messages import Response
from collector.kraken.pairs import nearest_symbols
from collector.kraken.requests import Channel, Method, Request
from collector.kraken.rest import fetch_symbols
from collector.settings import Settings

ANSWER_TIMEOUT = 5.0  # seconds, as in Kraken's own client; doubled at each try, since an overload needs time to pass
ANSWER_TRIES = 3  # likewise; after that the connection is given up
PAIRS_PER_REQUEST = 50  # Kraken documents no limit; a request stays under 1 kB, and a burst of answers small
REFUSED_RETRY = 300.0  # seconds until a refused pair is asked for again: it may be listed, or its market opened
RESYNC_CALM = 60.0  # seconds without a resync of a pair after which the next one is a first one
RESYNC_BASE, RESYNC_CAP = 1.0, 30.0  # seconds between resyncs of one pair: doubled each time; the first is at once
RESYNC_LIMIT = 5  # resyncs of a pair in a row after which the connection itself is suspect (Kraken's client: 5)

Refusals: TypeAlias = dict[tuple[Channel, str], str]  # the server's words, by channel and pair

log = structlog.get_logger()


class Subscriptions:
    """What is subscribed on one connection."""

    def __init__(
        self, websocket: WebSocketConnection, settings: Settings, choose: Callable[[float, float], float]
    ) -> None:
        self._websocket = websocket
        self._settings = settings
        self._choose = choose
        self._numbers = itertools.count(1)
        self._turn = trio.Lock()
        self._asked: Request | None = None
        self._resyncs: dict[str, tuple[int, float]] = {}  # pair: how many in a row, when the last one was

    def take(self, response: Response) -> Subscribed | None:
        """Note an answer; return the subscription that it acknowledged, None where it acknowledged none."""
        asked = self._asked
        if asked is None or response.request != asked.number or not asked.take(response):
            log.warning("unexpected_answer", error=response.error, pair=response.pair, request=response.request)
            return None
        if response.error is not None or response.pair is None or asked.method != "subscribe":
            return None
        return Subscribed(asked.channel, response.pair, response.time)

    async def run(self, connection: int, resyncs: ResyncRequests, nursery: trio.Nursery) -> None:
        """Subscribe every pair to both channels, then serve resyncs until cancelled.

        Raises:
            FeedError: requests stay unanswered, no pair is accepted, or a book cannot be brought in step.

        """
        refused: Refusals = {}
        channels: tuple[Channel, ...] = ("trade", "book")
        for channel in channels:
            for start in range(0, len(self._settings.pairs), PAIRS_PER_REQUEST):
                pairs = self._settings.pairs[start : start + PAIRS_PER_REQUEST]
                refused |= await self._subscribe(channel, pairs, nursery)
        if len(refused) == len(channels) * len(self._settings.pairs):
            await self._report(refused)
            # A connection without subscriptions is closed by the server after a minute anyway.
            raise FeedError("no_pair_accepted", "Kraken refused every pair", pause=REFUSED_RETRY)
        nursery.start_soon(self._report, refused)
        while True:
            nursery.start_soon(self._resync, await resyncs.next_pair(connection), nursery)

    async def _subscribe(self, channel: Channel, pairs: tuple[str, ...], nursery: trio.Nursery) -> Refusals:
        """Subscribe pairs; return which were refused, which are asked for again later."""
        refused = await self._ask("subscribe", channel, pairs)
        if refused:
            nursery.start_soon(self._subscribe_later, channel, tuple(refused), nursery)
        return {(channel, pair): error for pair, error in refused.items()}

    async def _subscribe_later(self, channel: Channel, pairs: tuple[str, ...], nursery: trio.Nursery) -> None:
        await trio.sleep(REFUSED_RETRY)
        await self._report(await self._subscribe(channel, pairs, nursery))

    async def _resync(self, pair: str, nursery: trio.Nursery) -> None:
        """One unsubscribe and one subscribe of a pair's book, later each time they follow each other closely."""
        now = trio.current_time()
        count, last = self._resyncs.get(pair, (0, now))
        count = count + 1 if now - last < RESYNC_CALM else 1
        self._resyncs[pair] = (count, now)
        if count > RESYNC_LIMIT:
            raise FeedError("resync_failed", f"{pair} went wrong {count} times in a row")
        if count > 1:
            await trio.sleep(self._choose(RESYNC_BASE, min(RESYNC_CAP, RESYNC_BASE * 2.0 ** (count - 1))))
        await self._ask("unsubscribe", "book", (pair,))  # refused where nothing is subscribed: then that is so
        await self._report(await self._subscribe("book", (pair,), nursery))

    async def _ask(self, method: Method, channel: Channel, pairs: tuple[str, ...]) -> dict[str, str]:
        """Send a request and wait for all of its answers; return those that refuse, by pair."""
        async with self._turn:
            request = Request(next(self._numbers), method, channel, pairs, self._settings.book_depth)
            self._asked = request
            for number in range(ANSWER_TRIES):
                await self._websocket.send_message(request.encode())
                with trio.move_on_after(ANSWER_TIMEOUT * 2.0**number):
                    await request.answered.wait()
                if request.answered.is_set():
                    return request.refused
            raise FeedError("unanswered", f"{method} {channel} of {', '.join(sorted(request.waiting))}")

    async def _report(self, refused: Refusals) -> None:
        """Say which pairs were refused, and what valid names are like theirs."""
        if not refused:
            return
        known: list[str] = []
        async with httpx2.AsyncClient(base_url=self._settings.kraken_rest_url) as client:
            try:
                known = await fetch_symbols(client)
            except RestError as error:
                log.warning("symbols_unknown", error=str(error))
        for (channel, pair), answer in refused.items():
            log.error(
                "pair_refused",
                pair=pair,
                channel=channel,
                error=answer,
                nearest=nearest_symbols(pair, known),
                retry_in=REFUSED_RETRY,
            )
