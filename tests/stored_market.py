"""Two days of a stored market whose rows are known, for tests of what counts and sums them up."""

import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg

from collector.storage.database import connect
from collector.storage.partitions import ensure_day
from collector.storage.row_counts import DAY

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
