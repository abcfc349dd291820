"""One stored market for all tests of replays, which only read it."""

from collections.abc import Iterator

import pytest
from conftest import new_database
from embedded import EmbeddedPostgres
from replaying import Tape, store_tape

PAIRS = ("BTC/USD", "ETH/USD")
DEPTH = 100


@pytest.fixture(scope="session")
def tape(postgres_server: EmbeddedPostgres, migrated_template: str) -> Iterator[Tape]:
    """Two pairs at depth 100, with a hole in the middle."""
    with new_database(postgres_server, "replayed", migrated_template) as url:
        yield store_tape(url, PAIRS, DEPTH)
