"""The services that the tests themselves stand on."""

import psycopg
import redis
from embedded import EmbeddedRedis


def test_database_is_real_and_empty(database_url: str) -> None:
    """Prevents tests that pass against leftovers of another test."""
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    assert row == (0,)


def test_redis_is_real(redis_service: EmbeddedRedis) -> None:
    """Prevents tests of the publisher that never reach a server."""
    with redis.Redis.from_url(redis_service.url) as client:
        assert client.ping() is True
