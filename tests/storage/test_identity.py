"""A database holds one feed for good."""

import threading

import pytest

from collector.errors import UnusableDatabase
from collector.storage.database import connect
from collector.storage.identity import claim_database


def test_claim_is_kept(migrated_url: str) -> None:
    """Prevents a spool from taking its own database for another after a restart."""
    with connect(migrated_url, application_name="tests") as connection:
        identifier = claim_database(connection, "ws.kraken.com")
    with connect(migrated_url, application_name="tests") as connection:
        assert claim_database(connection, "ws.kraken.com") == identifier
        assert connection.execute("SELECT id, origin FROM collector_database").fetchall() == [
            (identifier, "ws.kraken.com")
        ]


def test_another_feed_is_refused(migrated_url: str) -> None:
    """Prevents rows of a simulator from mixing with real ones."""
    with connect(migrated_url, application_name="tests") as connection:
        identifier = claim_database(connection, "ws.kraken.com")
        with pytest.raises(
            UnusableDatabase, match=r"holds the feed of ws\.kraken\.com.*collect 127\.0\.0\.1.*another database"
        ):
            claim_database(connection, "127.0.0.1")
        assert claim_database(connection, "ws.kraken.com") == identifier


def test_racing_claims_agree(migrated_url: str) -> None:
    """Prevents two workers that start at once from giving the database two ids, or two feeds."""
    origins = ["ws.kraken.com", "127.0.0.1"] * 4
    start = threading.Barrier(len(origins))
    outcomes: list[object] = []

    def claim(origin: str) -> None:
        with connect(migrated_url, application_name="tests") as connection:
            start.wait(10)
            try:
                outcomes.append(claim_database(connection, origin))
            except UnusableDatabase:
                outcomes.append("refused")

    threads = [threading.Thread(target=claim, args=[origin]) for origin in origins]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(map(str, outcomes)).count("refused") == len(origins) / 2
    assert len(set(outcomes)) == 2
    with connect(migrated_url, application_name="tests") as connection:
        assert connection.execute("SELECT count(*) FROM collector_database").fetchone() == (1,)


def test_second_row_is_impossible(migrated_url: str) -> None:
    """Prevents a restored dump from giving a database two identities."""
    with connect(migrated_url, application_name="tests") as connection:
        claim_database(connection, "ws.kraken.com")
        assert (
            connection.execute("INSERT INTO collector_database (origin) VALUES ('b') ON CONFLICT DO NOTHING").rowcount
            == 0
        )
