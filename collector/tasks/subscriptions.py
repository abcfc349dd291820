"""The subscriptions of one connection: brought to what they should be, every answer checked, books resynced.

Requests go out one after the other, each when the one before is answered: that paces them by the server's own speed,
and the answers of a connection can never be confused.
"""

import itertools
from collections.abc import Callable, Collection, Iterator
from contextlib import aclosing
from itertools import groupby
from operator import itemgetter
from typing import TypeAlias

import httpx2
import structlog
import trio
from trio_util import AsyncValue
from trio_websocket import WebSocketConnection

from collector.assignment import Share, Subscription
from collector.errors import FeedError, RestError
from collector.feed import ResyncRequests, Subscribed, Unsubscribed
from collector.kraken.messages import Response
from collector.kraken.pairs import nearest_symbols
from collector.kraken.requests import Channel, Method, Request
from collector.kraken.rest import fetch_symbols
from collector.settings import Settings

ANSWER_TIMEOUT = 5.0  # seconds, as in Kraken's own client; doubled at each try, since an overload needs time to pass
ANSWER_TRIES = 3  # likewise; after that the connection is given up
PAIRS_PER_REQUEST = 50  # Kraken documents no limit; a request stays under 1 kB, and a burst of answers small
REFUSED_RETRY = 60.0  # seconds until a refused pair is asked for again: it may be listed, or its market opened
RESYNC_CALM = 60.0  # seconds without a resync of a pair after which the next one is a first one
RESYNC_BASE, RESYNC_CAP = 1.0, 30.0  # seconds between resyncs of one pair: doubled each time; the first is at once
RESYNC_LIMIT = 5  # resyncs of a pair in a row after which the connection itself is suspect (Kraken's client: 5)
ORDER: tuple[Channel, ...] = ("trade", "book")  # trades first: what is traded while the books come is not missed

Refusals: TypeAlias = dict[Subscription, str]  # the server's words

log = structlog.get_logger()


class Subscriptions:
    """What is subscribed on one connection."""

    def __init__(
        self,
        websocket: WebSocketConnection,
        connection: int,
        settings: Settings,
        share: Share,
        choose: Callable[[float, float], float],
    ) -> None:
        self._websocket = websocket
        self._connection = connection
        self._depth = settings.selection.depth
        self._rest_url = settings.kraken_rest_url
        self._share = share
        self._choose = choose
        self._numbers = itertools.count(1)
        self._turn = trio.Lock()  # one request at a time
        self._changing = trio.Lock()  # one change of what is held at a time, of several requests perhaps
        self._asked: Request | None = None
        self._held: set[Subscription] = set()
        self._refused: Refusals = {}  # they are asked for again after a while
        self._resyncs: dict[str, tuple[int, float]] = {}  # pair: how many in a row, when the last one was

    def take(self, response: Response) -> list[Subscribed | Unsubscribed]:
        """Note an answer; return what it changed, for the book task."""
        asked = self._asked
        answered = None if asked is None or response.request != asked.number else asked.take(response)
        if asked is None or answered is None:
            log.warning("unexpected_answer", error=response.error, pair=response.pair, request=response.request)
            return []
        if asked.method == "unsubscribe":  # refused where nothing is subscribed: then that is so
            return [Unsubscribed(asked.channel, pair, self._share.why_not((asked.channel, pair))) for pair in answered]
        if response.error is not None:
            return []
        return [Subscribed(self._connection, asked.channel, pair, response.time) for pair in answered]

    async def run(self, resyncs: ResyncRequests) -> None:
        """Keep the subscriptions what the assignment says, and serve resyncs, until cancelled.

        Raises:
            FeedError: requests stay unanswered, nothing is left to be subscribed, or a book cannot be brought in step.

        """
        with self._share.subscriptions() as wanted:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._follow, wanted, nursery)
                while True:
                    nursery.start_soon(self._resync, await resyncs.next_pair(self._connection), nursery)

    async def _follow(self, wanted: AsyncValue[frozenset[Subscription]], nursery: trio.Nursery) -> None:
        async with aclosing(wanted.eventual_values()) as targets:
            async for target in targets:
                async with self._changing:
                    await self._drop(self._held - target)
                    refused = await self._add(target - self._held - self._refused.keys(), nursery)
                if self._held:
                    nursery.start_soon(self._report, refused)
                    continue
                # The server closes a connection without subscriptions after a minute; we need none then.
                if not target:
                    raise FeedError("nothing_to_collect")
                await self._report(refused)
                raise FeedError("no_pair_accepted", "Kraken refused every pair", pause=REFUSED_RETRY)

    async def _add(self, subscriptions: Collection[Subscription], nursery: trio.Nursery) -> Refusals:
        """Subscribe; return what was refused, which is asked for again later."""
        refused: Refusals = {}
        for channel, depth, pairs in self._requests(subscriptions):
            answers = await self._ask("subscribe", channel, depth, pairs)
            refused |= {(channel, pair): answer for pair, answer in answers.items()}
            self._held |= {(channel, pair) for pair in pairs if pair not in answers}
        if refused:
            self._refused |= refused
            nursery.start_soon(self._try_again, refused.keys(), nursery)
        return refused

    async def _drop(self, subscriptions: Collection[Subscription]) -> None:
        for channel, depth, pairs in self._requests(subscriptions):
            await self._ask("unsubscribe", channel, depth, pairs)
            self._held -= {(channel, pair) for pair in pairs}

    async def _try_again(self, subscriptions: Collection[Subscription], nursery: trio.Nursery) -> None:
        await trio.sleep(REFUSED_RETRY)
        for subscription in subscriptions:
            self._refused.pop(subscription, None)
        with self._share.subscriptions() as wanted:
            async with self._changing:
                refused = await self._add(wanted.value & set(subscriptions) - self._held, nursery)
        await self._report(refused)

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
        book: Subscription = ("book", pair)
        with self._share.subscriptions() as wanted:
            async with self._changing:
                refused: Refusals = {}
                if book in self._held and book in wanted.value:
                    await self._drop([book])
                    refused = await self._add([book], nursery)
        await self._report(refused)

    async def _ask(self, method: Method, channel: Channel, depth: int, pairs: Collection[str]) -> dict[str, str]:
        """Send a request and wait for all of its answers; return those that refuse, by pair."""
        async with self._turn:
            request = Request(next(self._numbers), method, channel, pairs, depth)
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
        async with httpx2.AsyncClient(base_url=self._rest_url) as client:
            try:
                known = await fetch_symbols(client)
            except RestError as error:
                log.warning("symbols_unknown", error=str(error))
        for (channel, pair), answer in refused.items():
            nearest = nearest_symbols(pair, known)
            log.error("pair_refused", pair=pair, channel=channel, error=answer, nearest=nearest, retry_in=REFUSED_RETRY)

    def _requests(self, subscriptions: Collection[Subscription]) -> Iterator[tuple[Channel, int, list[str]]]:
        """The requests that subscriptions take: by channel and depth, a limited number of pairs each."""
        for channel in ORDER:
            depth_of = self._depth if channel == "book" else lambda _pair: 0  # trades have none
            pairs = sorted((depth_of(pair), pair) for of, pair in subscriptions if of == channel)
            for depth, of_depth in groupby(pairs, key=itemgetter(0)):
                names = [pair for _, pair in of_depth]
                for start in range(0, len(names), PAIRS_PER_REQUEST):
                    yield channel, depth, names[start : start + PAIRS_PER_REQUEST]
