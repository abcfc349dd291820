"""Requests and the bookkeeping of their answers."""

import msgspec
import pytest

from collector.kraken.messages import Response
from collector.kraken.requests import RATE_LIMITED, Channel, Method, Request

PAIRS = ("ETH/EUR", "BTC/USD")


def subscribe(channel: Channel = "book", pairs: tuple[str, ...] = PAIRS) -> Request:
    return Request(7, "subscribe", channel, pairs, 100)


def answer(
    pair: str | None, error: str | None = None, channel: str | None = "book", method: str | None = "subscribe"
) -> Response:
    return Response(method, 7, error, channel, pair, "2026-08-24T22:21:58.345080Z")


@pytest.mark.parametrize(
    ("method", "channel", "parameters"),
    [
        ("subscribe", "book", {"channel": "book", "symbol": ["BTC/USD", "ETH/EUR"], "depth": 100, "snapshot": True}),
        ("subscribe", "trade", {"channel": "trade", "symbol": ["BTC/USD", "ETH/EUR"], "snapshot": True}),
        ("unsubscribe", "book", {"channel": "book", "symbol": ["BTC/USD", "ETH/EUR"], "depth": 100}),
        ("unsubscribe", "trade", {"channel": "trade", "symbol": ["BTC/USD", "ETH/EUR"]}),
    ],
)
def test_frame_has_what_the_server_keys_by(method: Method, channel: Channel, parameters: dict[str, object]) -> None:
    """Prevents an unsubscribe without its depth, trades without their snapshot, and parameters that are refused."""
    frame = Request(7, method, channel, PAIRS, 100).encode()
    assert msgspec.json.decode(frame) == {"method": method, "params": parameters, "req_id": 7}


def test_answered_when_each_pair_is() -> None:
    """Prevents a request for two pairs from passing as done at the first answer."""
    request = subscribe()
    assert request.take(answer("BTC/USD"))
    assert not request.answered.is_set()
    assert msgspec.json.decode(request.encode())["params"]["symbol"] == ["ETH/EUR"]
    assert request.take(answer("ETH/EUR"))
    assert request.answered.is_set()
    assert request.refused == {}


def test_one_pair_refused_and_one_accepted() -> None:
    """Prevents one bad pair from costing the good ones."""
    request = subscribe()
    assert request.take(answer("ETH/EUR", "Currency pair not supported ETH/EUR", channel=None))
    assert request.take(answer("BTC/USD"))
    assert request.answered.is_set()
    assert request.refused == {"ETH/EUR": "Currency pair not supported ETH/EUR"}


def test_refusal_that_names_no_pair_is_about_all_that_wait() -> None:
    """Prevents a wait for answers that never come after `Subscription depth not supported`."""
    request = subscribe()
    request.take(answer("BTC/USD"))
    assert request.take(answer(None, "Subscription depth not supported", channel=None))
    assert request.answered.is_set()
    assert request.refused == {"ETH/EUR": "Subscription depth not supported"}


@pytest.mark.parametrize("pair", ["BTC/USD", None])
def test_rate_limited_is_not_refused(pair: str | None) -> None:
    """Prevents a pair from being given up for minutes because the server was busy."""
    request = subscribe()
    assert request.take(answer(pair, RATE_LIMITED, channel=None, method=None)) == set()
    assert not request.answered.is_set()
    assert request.refused == {}
    assert request.waiting == set(PAIRS)


@pytest.mark.parametrize(
    "response",
    [
        answer("BTC/USD", channel="trade"),
        answer("BTC/USD", method="unsubscribe"),
        answer("BTC/USD", method="pong"),
        answer("XBT/USD"),
        answer(None),  # a success must say whose
    ],
)
def test_answers_that_do_not_fit_change_nothing(response: Response) -> None:
    """Prevents an answer to something else from acknowledging a subscription that the server does not hold."""
    request = subscribe()
    assert not request.take(response)
    assert request.waiting == set(PAIRS)
    assert not request.answered.is_set()


@pytest.mark.parametrize("late", [answer("BTC/USD"), answer("BTC/USD", "Already subscribed"), answer(None, "Too late")])
def test_answer_that_comes_twice_does_not_fit(late: Response) -> None:
    """Prevents a second acknowledgement from opening a book again, and a late error from undoing the first."""
    request = subscribe(pairs=("BTC/USD",))
    request.take(answer("BTC/USD"))
    assert not request.take(late)
    assert request.refused == {}


def test_answer_may_leave_out_method_and_channel() -> None:
    """Prevents a refusal from being ignored because it is terse."""
    request = subscribe(pairs=("BTC/USD",))
    assert request.take(Response(None, 7, "Subscription name invalid", None, None, None))
    assert request.refused == {"BTC/USD": "Subscription name invalid"}
