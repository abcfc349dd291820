"""Kraken's REST interface, asked for trades at one pace for all pairs, and left in peace for a while when it refuses.

Kraken limits requests by address and pair, and one a second is always within the limit; who goes on against a limit
is locked out for longer. One pace for all pairs is far below it, and leaves room for the other tasks' requests.
"""

import random
import time
from collections.abc import Awaitable, Callable
from typing import Concatenate, ParamSpec, TypeVar

import httpx2
import structlog
import trio

from collector.backoff import Backoff
from collector.errors import RestError, UnknownPair
from collector.kraken.rest import Precision, TradesPage, fetch_precision, fetch_trades

REQUEST_SPACING = 1.0  # seconds between two requests
# Seconds to stay away after the first failure and at most; Kraken's limits are over after 5 to 15.
BACKOFF_BASE, BACKOFF_CAP = 10.0, 120.0
STABLE_AFTER = 60.0  # seconds without a failure after which the next one is a first one
LONGEST_THROTTLE = 600.0  # seconds to stay away at most, whatever time Kraken says: our clock may be wrong
REFUSED_RETRY = 3600.0  # seconds until a pair that REST does not know is asked for again
LIMITS_IN_A_ROW = 3  # rate limits to wait out, where a person waits: about a minute, if Kraken names no longer time

_RATE_LIMITS = ("EGeneral:Too many requests", "EAPI:Rate limit exceeded", "HTTP status 429")

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

log = structlog.get_logger()


class PacedRest:
    """What outlives the repair's looks: the pace, the pairs that are not known, the decimals of those that are.

    With `gives_up` a person waits for the end: rate limits are waited out in here, at most `LIMITS_IN_A_ROW`, and any
    other failure is the last word. Without it whoever asks comes again, and a failure only puts off the next request.
    """

    def __init__(self, client: httpx2.AsyncClient, *, gives_up: bool = False) -> None:
        self.gives_up = gives_up
        self._client = client
        self._free_at = self._resumed_at = trio.current_time()
        self._backoff = Backoff(BACKOFF_BASE, BACKOFF_CAP, STABLE_AFTER, _upper_half)
        self._is_failing = False
        self._refused: dict[str, float] = {}
        self._precisions: dict[str, Precision] = {}

    def refuses(self, pair: str) -> bool:
        """Whether asking for a pair is of no use now."""
        return trio.current_time() < self._refused.get(pair, 0.0)

    async def trades(self, pair: str, since: int) -> TradesPage:
        """A page of trades from `since` on, in nanoseconds since 1970.

        Raises:
            UnknownPair: REST does not have the pair.
            RestError: it could not be had now; the next request will come later, or none should with `gives_up`.

        """
        return await self._ask(pair, fetch_trades, pair, since)

    async def precision(self, pair: str) -> Precision:
        """How many decimals the numbers of a pair have. Raises likewise."""
        if pair not in self._precisions:
            self._precisions[pair] = await self._ask(pair, fetch_precision, pair)
        return self._precisions[pair]

    async def _ask(
        self,
        pair: str,
        fetch: Callable[Concatenate[httpx2.AsyncClient, Arguments], Awaitable[Result]],
        *arguments: Arguments.args,
        **keywords: Arguments.kwargs,
    ) -> Result:
        limits_left = LIMITS_IN_A_ROW if self.gives_up else 0
        while True:
            await trio.sleep_until(self._free_at)
            self._free_at = trio.current_time() + REQUEST_SPACING
            try:
                answer = await fetch(self._client, *arguments, **keywords)
            except UnknownPair as error:
                self._refuse(pair, error)
                raise
            except RestError as error:
                is_waited_out = limits_left > 0 and _is_rate_limit(error)
                if is_waited_out or not self.gives_up:
                    self._step_back(error)
                if not is_waited_out:
                    raise
                limits_left -= 1
                continue
            if self._is_failing:
                log.info("rest_available")
                self._is_failing = False
            return answer

    def _refuse(self, pair: str, error: UnknownPair) -> None:
        """Leave a pair alone for long; a person is told once."""
        if pair not in self._refused:
            log.error("pair_unknown_to_rest", pair=pair, error=str(error), effect="its trades cannot be repaired")
        self._refused[pair] = trio.current_time() + REFUSED_RETRY

    def _step_back(self, error: RestError) -> None:
        now = trio.current_time()
        delay = self._backoff.delay(now - self._resumed_at)
        if error.not_before:
            delay = max(delay, min(error.not_before - time.time(), LONGEST_THROTTLE))
        self._free_at = self._resumed_at = now + delay
        if not self._is_failing:
            log.warning("rest_unavailable", error=str(error), retry_in=round(delay, 2))
        self._is_failing = True


def _is_rate_limit(error: RestError) -> bool:
    """Whether Kraken answered that it is asked too often, which passes by itself."""
    return bool(error.not_before) or any(limit in str(error) for limit in _RATE_LIMITS)


def _upper_half(_: float, high: float) -> float:
    """Never at once: a limit must have the time to pass."""
    return random.uniform(high / 2, high)  # noqa: S311 - it spreads out requests, and keeps no secret
