"""`migrate` as a process of its own: what it applies, that it may be repeated, and what it refuses."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from collecting import clean_environment, count

from collector.storage import schema
from collector.storage.database import connect
from collector.storage.identity import claim_database
from collector.storage.partitions import day_partitions


def migrate(**variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "collector", "migrate"],
        env=clean_environment() | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_applies_what_is_missing_and_nothing_twice(database_url: str) -> None:
    """Prevents a release phase from failing on a new database, or from doing anything to one that is up to date."""
    first, second = migrate(DATABASE_URL=database_url), migrate(DATABASE_URL=database_url)
    assert (first.returncode, second.returncode) == (0, 0)
    assert first.stdout.count("applied ") == len(schema.migrations())
    assert second.stdout == "The schema is up to date.\n"
    assert (first.stderr, second.stderr) == ("", "")
    assert count(database_url, "SELECT count(*) FROM collector_database WHERE origin = 'ws.kraken.com'") == 1
    today = datetime.now(UTC).date()
    with connect(database_url, application_name="tests") as connection:
        days = {partition.day for partition in day_partitions(connection)}
    assert {today, today + timedelta(days=1)} <= days


def test_database_of_another_feed_is_refused(migrated_url: str) -> None:
    """Prevents a release with the wrong DATABASE_URL from starting."""
    with connect(migrated_url, application_name="tests") as connection:
        claim_database(connection, "localhost")
    ended = migrate(DATABASE_URL=migrated_url)
    assert ended.returncode == 2
    assert ended.stderr.startswith("the database holds the feed of localhost")
    assert ended.stdout == ""


def test_database_that_is_away() -> None:
    """Prevents a release phase from passing without a database, and from a traceback instead of the reason."""
    ended = migrate(DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert ended.returncode == 1
    assert ended.stderr.startswith("The database cannot be reached: ")
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("variables", [{}, {"DATABASE_URL": "mysql://h/d", "BOOK_DEPTH": "11"}])
def test_bad_settings(variables: dict[str, str]) -> None:
    """Prevents a mistake in the settings from being told one variable at a time."""
    ended = migrate(**variables)
    assert ended.returncode == 2
    names = [line.partition(":")[0] for line in ended.stderr.splitlines()]
    assert names == (list(variables) or ["DATABASE_URL"])
