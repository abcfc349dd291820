"""The services that the tests and development stand on."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from embedded import EmbeddedPostgres, EmbeddedRedis, open_temporary_folder, postgres


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where a test's own server keeps its data."""
    with open_temporary_folder() as folder:
        yield folder


def test_database_is_real_and_empty(database_url: str) -> None:
    """Prevents tests that pass against leftovers of another test."""
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    assert row == (0,)


def test_redis_is_real(redis_service: EmbeddedRedis) -> None:
    """Prevents tests of the publisher that never reach a server."""
    with redis.Redis.from_url(redis_service.url) as client:
        assert client.ping() is True


def test_committed_rows_survive_a_killed_server(folder: Path) -> None:
    """Prevents crash tests that pass because the embedded server cannot crash, or cannot come back after it."""
    with postgres(folder / "data") as server:
        with psycopg.connect(server.url()) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS number")
        open_connection = psycopg.connect(server.url())
        server.stop(signal.SIGKILL)
        server.start()
        open_connection.close()
        with psycopg.connect(server.url()) as connection:
            assert connection.execute("SELECT number FROM kept").fetchone() == (1,)


def test_server_that_outlived_its_parent_is_stopped_by_the_next(folder: Path) -> None:
    """Prevents a second start that fails, or shares the data, since a killed parent left a server behind."""
    orphan = EmbeddedPostgres(folder / "data")
    orphan.start()
    try:
        with postgres(folder / "data") as server, psycopg.connect(server.url()) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
            assert orphan.process is not None
            assert orphan.process.wait(timeout=10) == 0
    finally:
        orphan.stop()


def test_process_that_only_has_the_number_of_a_dead_server_is_left_alone(folder: Path) -> None:
    """Prevents a stranger from being stopped, or the start refused, when a pid is used again after a reboot."""
    with subprocess.Popen(["sleep", "60"]) as stranger:
        try:
            with postgres(folder / "data"):
                pass
            (folder / "data" / "postmaster.pid").write_text(f"{stranger.pid}\n{folder / 'data'}\n")
            with postgres(folder / "data") as server, psycopg.connect(server.url()) as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)
            assert psutil.Process(stranger.pid).status() != psutil.STATUS_ZOMBIE
        finally:
            stranger.kill()
