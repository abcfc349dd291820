"""What tests of PostgreSQL share: a stored market."""

from collections.abc import Iterator

import pytest
from conftest import new_database
from embedded import EmbeddedPostgres
from stored_market import Market


@pytest.fixture(scope="session", params=[1, 2])
def market(
    postgres_server: EmbeddedPostgres, migrated_template: str, request: pytest.FixtureRequest
) -> Iterator[Market]:
    with new_database(postgres_server, f"status_{request.param}", migrated_template) as url:
        yield Market(url, request.param)
