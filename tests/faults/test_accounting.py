"""The accounting itself: what it would let pass, no fault's line would show."""

import json
import zlib
from collections.abc import Iterator

import psycopg
import pytest
from faults.accounting import Account, Exemptions, account
from faults.sent import UNREAD, SentLog, parse_book

PAIR = "BTC/USD"
UPDATES = 5
INSERT_ROW = """INSERT INTO kraken_orderbook (event_time, pair, bids, asks, type, checksum, chain, seq)
VALUES (%s, %s, %s, %s, %s, %s, 1, %s)"""
INSERT_RUN = """INSERT INTO kraken_coverage
    (pair, channel, chain, started_at, last_at, ended_at, end_reason, updates, rows, spool)
VALUES (%s, %s, 1, %s, %s, %s, 'shutdown', %s, %s, gen_random_uuid())"""
INSERT_TRADE = "INSERT INTO kraken_trades VALUES (%s, %s, 100.5, 1.0, 'buy', 'limit', %s)"


def moment(second: int) -> str:
    return f"2026-01-01T00:00:{second:02}.000000Z"


def book_frame(number: int) -> bytes:
    """The snapshot (0) or an update of a book of two levels, of which the bid's quantity changes."""
    bid, ask = f"{number + 1}.5", "2.5"
    data = {
        "symbol": PAIR,
        "bids": [{"price": 100.5, "qty": float(bid)}],
        "asks": [] if number else [{"price": 101.5, "qty": float(ask)}],
        "checksum": zlib.crc32(("1015" + "25" + "1005" + bid.replace(".", "")).encode()),
        "timestamp": moment(number),
    }
    return json.dumps({"channel": "book", "type": "update" if number else "snapshot", "data": [data]}).encode()


def trade_frame(trade_id: int) -> bytes:
    data = {"symbol": PAIR, "price": 100.5, "qty": 1.0, "side": "buy", "ord_type": "limit", "trade_id": trade_id}
    return json.dumps({"channel": "trade", "type": "update", "data": [data | {"timestamp": moment(1)}]}).encode()


@pytest.fixture
def log() -> SentLog:
    """A snapshot, updates and two trades, sent on a connection that delivered them all."""
    log = SentLog()
    for number in range(UPDATES + 1):
        log.note(1, book_frame(number))
    log.note(1, trade_frame(1))
    log.note(1, trade_frame(2))
    log.happened = lambda _pair, _trade_id: None  # REST is not asked here
    return log


@pytest.fixture
def stored(migrated_url: str) -> Iterator[psycopg.Connection]:
    """All of it, stored as it must be."""
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE day PARTITION OF kraken_orderbook FOR VALUES FROM ('2026-01-01') TO ('2026-01-02')"
        )
        for number in range(UPDATES + 1):
            message = parse_book(book_frame(number))
            assert message is not None
            connection.execute(INSERT_ROW, [*message.entry, number])
        end, count = moment(UPDATES), UPDATES
        connection.execute(INSERT_RUN, [PAIR, "book", moment(0), end, end, count, count + 1])
        connection.execute(INSERT_RUN, [PAIR, "trade", moment(0), end, end, 2, 2])
        for trade_id in (1, 2):
            connection.execute(INSERT_TRADE, [moment(1), PAIR, trade_id])
        yield connection


def test_what_is_whole_has_no_problems(log: SentLog, stored: psycopg.Connection, migrated_url: str) -> None:
    """An accounting that always complains would show as little as one that never does."""
    result = account(migrated_url, log, Exemptions())
    assert result == Account(expected=8, stored=8, reasons=result.reasons)


@pytest.mark.parametrize(
    ("tampering", "lost", "duplicates"),
    [
        (f"DELETE FROM kraken_orderbook WHERE seq = {UPDATES}", 1, 0),
        ("DELETE FROM kraken_orderbook WHERE seq = 2", 6, 0),
        ("DELETE FROM kraken_orderbook", 6, 0),
        ("DELETE FROM kraken_trades WHERE trade_id = 2", 1, 0),
        ("INSERT INTO kraken_orderbook SELECT * FROM kraken_orderbook WHERE seq = 5", 6, 1),
        ("UPDATE kraken_orderbook SET bids = '[[100.50, 3.5]]' WHERE seq = 2", 6, 0),
        ("UPDATE kraken_trades SET volume = 1.00 WHERE trade_id = 2", 0, 0),
        (
            "INSERT INTO kraken_trades SELECT event_time, pair, 1, 1, side, order_type, 3 FROM kraken_trades LIMIT 1",
            0,
            0,
        ),
        ("UPDATE kraken_coverage SET rows = rows + 1 WHERE channel = 'book'", 0, 0),
        ("UPDATE kraken_coverage SET ended_at = ended_at + interval '2 seconds' WHERE channel = 'book'", 0, 0),
        ("UPDATE kraken_coverage SET ended_at = NULL, end_reason = NULL", 0, 0),
        ("DELETE FROM kraken_coverage WHERE channel = 'book'", 0, 0),
    ],
)
def test_what_is_wrong_is_told(
    log: SentLog, stored: psycopg.Connection, migrated_url: str, tampering: str, lost: int, duplicates: int
) -> None:
    """A row lost, changed or stored twice, or coverage that claims too much, would pass as sound."""
    stored.execute(tampering)
    result = account(migrated_url, log, Exemptions())
    assert result.problems
    assert (result.lost, result.duplicates) == (lost, duplicates)


def test_what_was_on_its_way_is_not_due(log: SentLog, stored: psycopg.Connection, migrated_url: str) -> None:
    """What a broken connection took with it would count as lost; what came well before would not."""
    stored.execute(f"DELETE FROM kraken_orderbook WHERE seq = {UPDATES}")
    stored.execute(f"UPDATE kraken_coverage SET rows = rows - 1, updates = updates - 1, ended_at = '{moment(4)}'")
    log.broke([1])
    result = account(migrated_url, log, Exemptions())
    assert (result.lost, result.unread, result.problems) == (0, 1, [])
    log.broken[1] += UNREAD
    assert account(migrated_url, log, Exemptions()).lost == 1
