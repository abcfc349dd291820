"""Subscriptions against a server that answers as Kraken does, or refuses, or does not answer at all."""

from collections.abc import Callable
from pathlib import Path

import pytest
from collecting import Kraken, open_kraken, open_market, settings_for, wait_until
from feeding import feeding, record_requests
from structlog.testing import capture_logs

from collector.feed import Connected, Disconnected, Subscribed
from collector.kraken.server.faults import RATE_LIMIT_BARE, RATE_LIMIT_V1, RATE_LIMIT_V2
from collector.tasks import subscriptions

NOWHERE = "postgresql://nobody@127.0.0.1:1/none"  # these tests store nothing
PAIRS = ("BTC/USD", "ETH/USD", "SOL/USD")


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "ANSWER_TIMEOUT", 0.3)
    monkeypatch.setattr(subscriptions, "RESYNC_BASE", 0.01)


async def test_every_pair_on_both_channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a pair beyond the first request from being left out, and a request without end."""
    monkeypatch.setattr(subscriptions, "PAIRS_PER_REQUEST", 2)
    asked = record_requests(monkeypatch)
    async with (
        open_market(PAIRS) as market,
        open_kraken(market) as kraken,
        feeding(settings_for(kraken, NOWHERE, tmp_path, pairs=PAIRS)) as feed,
    ):
        await wait_until(lambda: all(len(feed.rows(pair)) > 2 for pair in PAIRS))
    assert [request[1:] for request in asked] == [
        ("trade", ["BTC/USD", "ETH/USD"]),
        ("trade", ["SOL/USD"]),
        ("book", ["BTC/USD", "ETH/USD"]),
        ("book", ["SOL/USD"]),
    ]
    granted = feed.of_kind(Subscribed)
    assert {(event.channel, event.pair) for event in granted} == {
        (channel, pair) for channel in ("trade", "book") for pair in PAIRS
    }
    assert all(event.time for event in granted)


async def test_refused_pair_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    """Prevents one misspelt pair from costing the others, or from being refused in silence."""
    pairs = ("BTC/USD", "ETC/USD", "SOL/USD")
    async with open_market(PAIRS) as market, open_kraken(market) as kraken:
        with capture_logs() as logs:
            async with feeding(settings_for(kraken, NOWHERE, tmp_path, pairs=pairs)) as feed:
                await wait_until(lambda: bool(feed.rows("BTC/USD") and feed.rows("SOL/USD")))
                await wait_until(lambda: sum(log["event"] == "pair_refused" for log in logs) == 2)
    refused = [log for log in logs if log["event"] == "pair_refused"]
    assert {log["channel"] for log in refused} == {"trade", "book"}
    for log in refused:
        assert log["pair"] == "ETC/USD"
        assert log["error"] == "Currency pair not supported ETC/USD"
        assert set(log["nearest"]) == set(PAIRS)
        assert log["nearest"][0] in ("ETH/USD", "BTC/USD")
    assert not feed.of_kind(Disconnected)
    assert not feed.rows("ETC/USD")


async def test_refused_pair_is_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a pair that was closed for a while from being left out until the next start."""
    monkeypatch.setattr(subscriptions, "REFUSED_RETRY", 0.2)
    async with open_market(PAIRS) as market, open_kraken(market) as kraken:
        kraken.faults.refuse("Currency pair not supported ETH/USD", channel="book", symbol="ETH/USD", times=2)
        async with feeding(settings_for(kraken, NOWHERE, tmp_path, pairs=PAIRS)) as feed:
            await wait_until(lambda: bool(feed.rows("ETH/USD")))
    assert len(feed.of_kind(Connected)) == 1


async def test_no_pair_accepted(tmp_path: Path) -> None:
    """Prevents the commonest mistake, one pair and that one misspelt, from ending without a word about the pair."""
    async with open_market(PAIRS) as market, open_kraken(market) as kraken:
        with capture_logs() as logs:
            async with feeding(settings_for(kraken, NOWHERE, tmp_path, pairs="BTC/USB")) as feed:
                await feed.wait_for(Disconnected)
                await wait_until(lambda: any(log["event"] == "disconnected" for log in logs))
    refused = [log for log in logs if log["event"] == "pair_refused"]
    assert {(log["pair"], log["channel"]) for log in refused} == {("BTC/USB", "trade"), ("BTC/USB", "book")}
    assert all(log["nearest"][0] == "BTC/USD" for log in refused)
    (disconnected,) = [log for log in logs if log["event"] == "disconnected"]
    assert disconnected["reason"] == "no_pair_accepted"
    assert disconnected["retry_in"] == subscriptions.REFUSED_RETRY


async def test_report_without_rest(tmp_path: Path) -> None:
    """Prevents a REST interface that is down from hiding which pair was refused, or from costing the connection."""
    async with open_market(PAIRS) as market, open_kraken(market) as kraken:
        kraken.faults.rest_status(502)
        with capture_logs() as logs:
            async with feeding(settings_for(kraken, NOWHERE, tmp_path, pairs="BTC/USD,ETC/USD")) as feed:
                await wait_until(lambda: sum(log["event"] == "pair_refused" for log in logs) == 2)
                await wait_until(lambda: len(feed.rows()) > 2)
    assert {"symbols_unknown", "pair_refused"} <= {log["event"] for log in logs}
    assert not feed.of_kind(Disconnected)


@pytest.mark.parametrize(
    "limit",
    [
        pytest.param(lambda kraken: kraken.faults.answer_with(RATE_LIMIT_V1), id="v1"),
        pytest.param(lambda kraken: kraken.faults.answer_with(RATE_LIMIT_BARE), id="bare"),
        pytest.param(lambda kraken: kraken.faults.refuse(RATE_LIMIT_V2, symbol="ETH/USD", times=1), id="v2"),
    ],
)
async def test_rate_limit_is_no_refusal(
    limit: Callable[[Kraken], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents an overload, in any shape in which it is told, from counting as a pair that does not exist."""
    asked = record_requests(monkeypatch)
    async with open_market(PAIRS) as market, open_kraken(market) as kraken:
        limit(kraken)
        with capture_logs() as logs:
            async with feeding(settings_for(kraken, NOWHERE, tmp_path, pairs=PAIRS)) as feed:
                await wait_until(lambda: all(feed.rows(pair) for pair in PAIRS))
    assert len(feed.of_kind(Subscribed)) == 2 * len(PAIRS)
    assert len(asked) == 3
    assert not {log["event"] for log in logs} & {"pair_refused", "disconnected"}


async def test_unanswered_request_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents one lost answer from costing the connection, or leaving a pair without its data."""
    asked = record_requests(monkeypatch)
    async with open_market(PAIRS) as market, open_kraken(market) as kraken:
        kraken.faults.ignore_requests(times=2)
        async with feeding(settings_for(kraken, NOWHERE, tmp_path)) as feed:
            await wait_until(lambda: bool(feed.rows()))
    assert asked == [("subscribe", "trade", ["BTC/USD"])] * 3 + [("subscribe", "book", ["BTC/USD"])]
    assert len(feed.of_kind(Connected)) == 1


async def test_server_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a connection on which nothing is ever answered from being held for ever."""
    monkeypatch.setattr(subscriptions, "ANSWER_TIMEOUT", 0.02)
    async with open_market(PAIRS) as market, open_kraken(market) as kraken:
        kraken.faults.ignore_requests(times=subscriptions.ANSWER_TRIES)
        async with feeding(settings_for(kraken, NOWHERE, tmp_path)) as feed:
            await wait_until(lambda: bool(feed.rows()))
    assert [event.reason for event in feed.of_kind(Disconnected)] == ["unanswered"]


async def test_late_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a slow server's first answer from being taken for the answer to the next request."""
    monkeypatch.setattr(subscriptions, "ANSWER_TIMEOUT", 0.15)
    async with open_market(PAIRS) as market, open_kraken(market) as kraken:
        kraken.faults.delay_answers(0.25)
        async with feeding(settings_for(kraken, NOWHERE, tmp_path, pairs=PAIRS)) as feed:
            await wait_until(lambda: all(len(feed.rows(pair)) > 2 for pair in PAIRS))
    assert len(feed.of_kind(Subscribed)) == 2 * len(PAIRS)
    assert not feed.of_kind(Disconnected)
    assert not feed.statistics.desyncs


async def test_answer_to_nobody(tmp_path: Path) -> None:
    """Prevents an answer that fits no request from ending anything or subscribing what was not asked for."""
    answer = b'{"method":"subscribe","req_id":77,"result":{"channel":"book","symbol":"XXX/USD"},"success":true}'
    async with open_market() as market, open_kraken(market) as kraken:
        with capture_logs() as logs:
            async with feeding(settings_for(kraken, NOWHERE, tmp_path)) as feed:
                await wait_until(lambda: bool(feed.rows()))
                kraken.faults.send(answer)
                kraken.faults.send(RATE_LIMIT_V1)
                await wait_until(lambda: sum(log["event"] == "unexpected_answer" for log in logs) == 2)
                rows = len(feed.rows())
                await wait_until(lambda: len(feed.rows()) > rows)
    assert {event.pair for event in feed.of_kind(Subscribed)} == {"BTC/USD"}
    assert not feed.of_kind(Disconnected)


async def test_checksum_failure_resyncs_its_pair_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents one book that went wrong from costing the others a message, or the connection its life."""
    asked = record_requests(monkeypatch)
    async with (
        open_market(PAIRS) as market,
        open_kraken(market) as kraken,
        feeding(settings_for(kraken, NOWHERE, tmp_path, pairs=PAIRS)) as feed,
    ):
        await wait_until(lambda: all(len(feed.rows(pair)) > 5 for pair in PAIRS))
        del asked[:]
        kraken.faults.bad_checksum("ETH/USD")
        await wait_until(lambda: len({row.chain for row in feed.rows("ETH/USD")}) == 2)
        rows = {pair: len(feed.rows(pair)) for pair in PAIRS}
        await wait_until(lambda: all(len(feed.rows(pair)) > rows[pair] + 5 for pair in PAIRS))
    assert asked == [("unsubscribe", "book", ["ETH/USD"]), ("subscribe", "book", ["ETH/USD"])]
    assert feed.statistics.desyncs == {"checksum": 1}
    assert [(run.pair, run.end_reason) for run in feed.ended()] == [("ETH/USD", "checksum")]
    for pair in PAIRS:
        chains = [row.chain for row in feed.rows(pair)]
        assert len(set(chains)) == (2 if pair == "ETH/USD" else 1)
        for chain in set(chains):
            numbers = [row.seq for row in feed.rows(pair) if row.chain == chain]
            assert numbers == list(range(len(numbers)))
    assert not feed.of_kind(Disconnected)


async def test_book_that_never_comes_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents resyncs without end, which Kraken answers with a ban, where the connection itself is at fault."""
    asked = record_requests(monkeypatch)
    async with open_market(PAIRS) as market, open_kraken(market) as kraken:
        kraken.faults.bad_checksum("BTC/USD", times=None)
        async with feeding(settings_for(kraken, NOWHERE, tmp_path)) as feed:
            await feed.wait_for(Disconnected)
            kraken.faults.lift()
            await wait_until(lambda: len(feed.rows()) > 5)
    assert feed.of_kind(Disconnected)[0].reason == "resync_failed"
    on_first_connection = asked[: asked.index(asked[0], 1)]
    assert [method for method, _, _ in on_first_connection] == (
        ["subscribe"] * 2 + ["unsubscribe", "subscribe"] * subscriptions.RESYNC_LIMIT
    )


async def test_resyncs_far_apart_are_no_storm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a connection of many days from being given up for a failure now and then."""
    monkeypatch.setattr(subscriptions, "RESYNC_CALM", 0.0)
    async with (
        open_market() as market,
        open_kraken(market) as kraken,
        feeding(settings_for(kraken, NOWHERE, tmp_path)) as feed,
    ):
        await wait_until(lambda: bool(feed.rows()))
        for count in range(1, subscriptions.RESYNC_LIMIT + 3):
            kraken.faults.bad_checksum("BTC/USD")
            await wait_until(lambda count=count: len({row.chain for row in feed.rows()}) == count + 1)
    assert not feed.of_kind(Disconnected)
