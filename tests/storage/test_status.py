"""The figures of `status`: counted in ways that do not grow with the table, and equal to what plain counting says."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest
from conftest import new_database
from embedded import EmbeddedPostgres

from collector.errors import UnusableDatabase
from collector.storage.database import connect
from collector.storage.partitions import ensure_day
from collector.storage.status import DAY, HOUR, MINUTE, StoredStatus, read_status

PAIRS = ("BTC/USD", "ETH/USD")
SPOOL = UUID(int=7)
CHECKPOINT_EVERY = 50  # rows of a run


def now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


class Market:
    """Two days of a market whose rows are known."""

    def __init__(self, url: str, seed: int) -> None:
        self.url = url
        self.at = now()
        chance = random.Random(seed)
        with connect(url, application_name="tests") as connection:
            for days in range(-2, 2):
                ensure_day(connection, (self.at + timedelta(days=days)).date())
            for pair in PAIRS:
                for chain in range(1, 4):
                    self._put_run(connection, chance, pair, chain)
                self._put_trades(connection, chance, pair)
            connection.execute("INSERT INTO collector_spools VALUES (%s, 12, %s)", [SPOOL, self.at])
            connection.execute("ANALYZE")

    def _put_run(self, connection: psycopg.Connection, chance: random.Random, pair: str, chain: int) -> None:
        """A run of 40, 20 or 1 hours before now up to 21, 2 or 0; the last one goes on."""
        since, until = {1: (40, 21), 2: (20, 2), 3: (1.5, 0)}[chain]
        start, end = self.at - timedelta(hours=since), self.at - timedelta(hours=until)
        moments = sorted(start + (end - start) * chance.random() for _ in range(1500))
        rows = [
            (moment, pair, "snapshot" if number % CHECKPOINT_EVERY == 0 else "update", chain, number)
            for number, moment in enumerate([start, *moments])
        ]
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO kraken_orderbook VALUES (%s, %s, '[]', '[]', %s, 0, %s, %s)",
                rows,
            )
            reason = {1: "checksum", 2: "closed_1012", 3: None}[chain]
            for channel in ("book", "trade"):
                cursor.execute(
                    "INSERT INTO kraken_coverage VALUES (%s, %s, %s, %s, %s, 0, %s, %s, %s, %s)",
                    [pair, channel, chain, start, end, len(rows), reason and end, reason, SPOOL],
                )

    def _put_trades(self, connection: psycopg.Connection, chance: random.Random, pair: str) -> None:
        moments = sorted(self.at - 2 * DAY * chance.random() ** 3 for _ in range(800))
        missing = {number for number in range(100, 700) if chance.random() < 0.05}
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO kraken_trades VALUES (%s, %s, %s, 1, 'buy', 'limit', %s)",
                [
                    (moment, pair, f"{number}.50", number)
                    for number, moment in enumerate(moments, 1)
                    if number not in missing
                ],
            )
            absent = sorted(missing)[-3:]
            cursor.executemany(
                "INSERT INTO kraken_absent_trades VALUES (%s, %s, %s)", [(pair, number, number) for number in absent]
            )
            # An earlier collector's row has no number, REST's oldest ones have 0.
            cursor.execute("INSERT INTO kraken_trades VALUES ('2020-01-01', %s, 1, 1, 'buy', 'limit', NULL)", [pair])
            cursor.execute("INSERT INTO kraken_trades VALUES ('2020-01-02', %s, 1, 1, 'buy', 'limit', 0)", [pair])

    def count(self, query: str, *arguments: object) -> int:
        with psycopg.connect(self.url) as connection:
            row = connection.execute(query, arguments).fetchone()
        assert row is not None
        return row[0]

    def status(self) -> StoredStatus:
        with connect(self.url, application_name="tests") as connection:
            return read_status(connection, lambda _: PAIRS)


@pytest.fixture(scope="module", params=[1, 2])
def market(
    postgres_server: EmbeddedPostgres, migrated_template: str, request: pytest.FixtureRequest
) -> Iterator[Market]:
    with new_database(postgres_server, f"status_{request.param}", migrated_template) as url:
        yield Market(url, request.param)


def test_trades_are_counted_exactly(market: Market) -> None:
    """Prevents a count by ids that holes, rows without a number, or the number 0 lead astray."""
    status = market.status()
    for pair in PAIRS:
        for length, counted in zip((MINUTE, HOUR, DAY), status.counts[pair].trades, strict=True):
            query = "SELECT count(*) FROM kraken_trades WHERE pair = %s AND event_time >= %s"
            assert counted == market.count(query, pair, status.now - length)
        assert status.counts[pair].trades.hour > 100


def test_missing_trades_of_the_last_day_are_counted(market: Market) -> None:
    """Prevents holes that Kraken has too from being told as missing, and real ones from not being told."""
    status = market.status()
    holes = """
        SELECT count(*) FROM generate_series(
            (SELECT max(trade_id) + 1 FROM kraken_trades WHERE pair = %(pair)s AND event_time < %(since)s),
            (SELECT max(trade_id) FROM kraken_trades WHERE pair = %(pair)s)
        ) AS id
        WHERE NOT EXISTS (SELECT FROM kraken_trades WHERE pair = %(pair)s AND trade_id = id)
          AND NOT EXISTS (SELECT FROM kraken_absent_trades WHERE pair = %(pair)s AND id BETWEEN first_id AND last_id)
    """
    with psycopg.connect(market.url) as connection:
        for pair in PAIRS:
            given = {"pair": pair, "since": status.now - DAY}
            assert connection.execute(holes, given).fetchone() == (status.counts[pair].missing_trades,)
            assert status.counts[pair].missing_trades > 0


def test_book_rows_are_estimated_within_a_checkpoint(market: Market) -> None:
    """Prevents an estimate that is further off than the rows between two checkpoints, or a minute that is one."""
    status = market.status()
    for pair in PAIRS:
        counted = status.counts[pair].book
        query = "SELECT count(*) FROM kraken_orderbook WHERE pair = %s AND event_time > %s"
        assert counted.minute == market.count(query, pair, status.now - MINUTE)
        for length, estimate in ((HOUR, counted.hour), (DAY, counted.day)):
            assert abs(estimate - market.count(query, pair, status.now - length)) < CHECKPOINT_EVERY
        assert counted.day > counted.hour > 500


def read_in_sequence(connection: psycopg.Connection) -> int:
    """Rows of the book that were read without an index, by any statement before this one."""
    connection.execute("SELECT pg_stat_force_next_flush()")
    row = connection.execute(
        "SELECT sum(seq_tup_read)::int FROM pg_stat_user_tables WHERE relname ~ '^kraken_orderbook_'"
    ).fetchone()
    assert row is not None
    return row[0]


def test_no_statement_reads_the_whole_book(market: Market) -> None:
    """Prevents `status` from scanning the days of a table that has gigabytes a day."""
    with connect(market.url, application_name="tests") as connection:
        connection.execute("SET enable_seqscan = off")  # tables of a few blocks are read whole by any planner
        before = read_in_sequence(connection)
        read_status(connection, lambda _: PAIRS)
        assert read_in_sequence(connection) == before
        assert connection.execute("SELECT FROM kraken_orderbook WHERE asks = '[1]'").fetchone() is None
        assert read_in_sequence(connection) > before


def test_last_trade_and_runs_are_told(market: Market) -> None:
    """Prevents a price that lost digits, a run without its reason, and a failure that nobody counts."""
    status = market.status()
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
    audits = market.status().audits
    assert audits.keys() == {"ETH/USD"}
    assert audits["ETH/USD"] == (market.at - timedelta(hours=1), True, 0, 1)


def test_pairs_that_are_not_chosen_are_named(market: Market) -> None:
    """Prevents a pair that is stored from being passed over in silence."""
    with connect(market.url, application_name="tests") as connection:
        status = read_status(connection, lambda channels: sorted({span.pair for span in channels})[:1])
    assert (status.pairs, status.former_pairs) == (["BTC/USD"], ["ETH/USD"])
    assert status.counts.keys() == {"BTC/USD"}


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
