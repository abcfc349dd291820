"""Fixtures that every test may use: a real PostgreSQL with an empty database a test, and a real Redis."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from embedded import EmbeddedPostgres, EmbeddedRedis, open_temporary_folder, postgres, redis_server
from faults.table import PROPERTY, Line, render
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from psycopg import sql
from pytest_trio.enable_trio_mode import *  # noqa: F403 - the switch is made to be imported so
from simulated_store import over_midnight, store

from collector.settings import Settings
from collector.storage.database import connect
from collector.storage.migrations import migrate

RECORDINGS = Path(__file__).parent.parent.parent / "shared" / "recordings"


# Whatever else the machine does, no example fails by its time: several processes of tests share it.
hypothesis_settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("unhurried")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of faults; here, since the process that prints loads no other conftest than this one."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    lines = [Line(*values) for report in reports for name, values in report.user_properties if name == PROPERTY]
    if lines:
        terminalreporter.section("faults")
        for line in render(lines):
            terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of the developer's shell and no `.env` reaches a test."""
    for name in os.environ:
        if name.lower() in Settings.model_fields:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[EmbeddedPostgres]:
    """One PostgreSQL for a process of tests; durability is off: a test that needs a crash makes its own server."""
    with open_temporary_folder() as folder, postgres(folder / "data", fsync="off", max_connections="50") as server:
        yield server


@contextmanager
def new_database(server: EmbeddedPostgres, name: str, template: str = "template0") -> Iterator[str]:
    """The address of a new database, a copy of `template`, that exists as long as the block."""
    drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(drop)
        connection.execute(create)
    yield server.url(name)
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(drop)


@pytest.fixture
def database_url(postgres_server: EmbeddedPostgres, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a new, empty database."""
    with new_database(postgres_server, f"test_{abs(hash(request.node.nodeid)):x}") as url:
        yield url


@pytest.fixture(scope="session")
def migrated_template(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """The name of a database with the collector's schema, made once and copied for each test."""
    with new_database(postgres_server, "migrated") as url:
        with connect(url, application_name="tests") as connection:
            migrate(connection)
        yield "migrated"


@pytest.fixture
def migrated_url(
    postgres_server: EmbeddedPostgres, migrated_template: str, request: pytest.FixtureRequest
) -> Iterator[str]:
    """The address of a new database with the collector's schema and no rows, that no feed has claimed."""
    with new_database(postgres_server, f"migrated_{abs(hash(request.node.nodeid)):x}", migrated_template) as url:
        yield url


@pytest.fixture(scope="session")
def market_url(postgres_server: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    """The address of a database that tests only read: `over_midnight`, as the collector stores it."""
    with new_database(postgres_server, "market", migrated_template) as url:
        for segment, records in enumerate(over_midnight(), 1):
            store(url, records, segment)
        yield url


@pytest.fixture(scope="session")
def redis_service() -> Iterator[EmbeddedRedis]:
    """One Redis for a process of tests."""
    with redis_server() as server:
        yield server


@pytest.fixture
def recordings() -> Path:
    """The folder of real Kraken recordings, which lies beside the project and never in it."""
    if not RECORDINGS.is_dir():
        pytest.skip(f"no recordings of real Kraken traffic at {RECORDINGS}")
    return RECORDINGS
