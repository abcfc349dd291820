"""The figures of `status`: those of the database, of the pairs that were asked for."""

import time
from datetime import timedelta
from uuid import uuid4

import pytest
from stored_market import PAIRS, SPOOL, Market

from collector.errors import UnusableDatabase
from collector.members import Member
from collector.storage.database import connect
from collector.storage.members import Presence, report
from collector.storage.status import StoredStatus, read_status


def status_of(market: Market) -> StoredStatus:
    with connect(market.url, application_name="tests") as connection:
        return read_status(connection, lambda _: PAIRS)


def test_last_trade_and_runs_are_told(market: Market) -> None:
    """Prevents a price that lost digits, a run without its reason, and a failure that nobody counts."""
    status = status_of(market)
    assert {pair: trade.price for pair, trade in status.last_trades.items()} == dict.fromkeys(PAIRS, "800.50")
    spans = {(span.pair, span.channel): span for span in status.channels}
    assert {key: span.end_reason for key, span in spans.items()} == {
        (pair, channel): None for pair in PAIRS for channel in ("book", "trade")
    }
    assert [spans[pair, "book"].checksum_failures for pair in PAIRS] == [1, 1]
    assert sorted((period.chain, period.reason) for period in status.periods["BTC/USD", "book"]) == [
        (1, "checksum"),
        (2, "closed_1012"),
        (3, None),
    ]
    assert status.counts["BTC/USD"].trades.hour > 100
    assert [(spool.spool, spool.last_segment) for spool in status.spools] == [(SPOOL, 12)]
    assert status.sizes.database > status.sizes.book_since > 0
    assert status.sizes.bytes_per_trade is not None
    assert 50 < status.sizes.bytes_per_trade < 500


def test_latest_audit_is_told(market: Market) -> None:
    """Prevents an older audit, or another pair's, from standing for the latest."""
    with connect(market.url, application_name="tests") as connection:
        for hours, passed in ((50, False), (5, False), (1, True)):
            connection.execute(
                "INSERT INTO kraken_audits VALUES ('ETH/USD', 3, %s, %s, %s)",
                [market.at - timedelta(hours=hours), passed, "[]" if passed else "[1, 2]"],
            )
    audits = status_of(market).audits
    assert audits.keys() == {"ETH/USD"}
    assert audits["ETH/USD"] == (market.at - timedelta(hours=1), True, 0, 1)


def test_pairs_that_are_not_chosen_are_named(market: Market) -> None:
    """Prevents a pair that is stored from being passed over in silence."""
    with connect(market.url, application_name="tests") as connection:
        status = read_status(connection, lambda channels: sorted({span.pair for span in channels})[:1])
    assert (status.pairs, status.former_pairs) == (["BTC/USD"], ["ETH/USD"])
    assert status.counts.keys() == {"BTC/USD"}


def test_living_collectors_are_told(migrated_url: str) -> None:
    """Prevents a collector that died without a word from being shown as one that collects."""
    with (
        connect(migrated_url, application_name="tests") as looking,
        connect(migrated_url, application_name="tests") as dying,
        connect(migrated_url, application_name="tests") as own,
    ):
        report(dying, Presence(Member(uuid4(), ("*",)), "dying:1", ["ETH/USD"], 5, 6))
        report(own, Presence(Member(uuid4(), ("*",), is_available=False), "living:2", ["BTC/USD"], 7, 8))
        told = {collector.name: collector for collector in read_status(looking, lambda _: PAIRS).collectors}
        assert told.keys() == {"dying:1", "living:2"}
        assert told["living:2"][1:5] == (False, ["BTC/USD"], 7, 8)
        dying.close()
        deadline = time.monotonic() + 10
        while "dying:1" in told:  # until PostgreSQL has noticed
            assert time.monotonic() < deadline
            told = {collector.name: collector for collector in read_status(looking, lambda _: PAIRS).collectors}
        assert told.keys() == {"living:2"}


def test_empty_database(migrated_url: str, database_url: str) -> None:
    """Prevents an error where nothing has been collected, and a fault of SQL where there is no schema."""
    with connect(migrated_url, application_name="tests") as connection:
        status = read_status(connection, lambda _: PAIRS)
    assert (status.origin, status.channels, status.last_trades, status.periods) == (None, [], {}, {})
    assert set(status.counts["BTC/USD"].trades + status.counts["BTC/USD"].book) == {0}
    with (
        connect(database_url, application_name="tests") as connection,
        pytest.raises(UnusableDatabase, match="migrate"),
    ):
        read_status(connection, lambda _: PAIRS)
