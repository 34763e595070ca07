"""The storages that a queue may lie in: every contract test runs on each."""

import shutil
from collections.abc import Iterator

import pytest
from postgres_server import PostgresServer, find_binaries


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A running server."""
    try:
        find_binaries()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    if not shutil.which("pg_isready"):
        pytest.skip("PostgreSQL's client programs are not installed")
    with PostgresServer() as server:
        yield server


@pytest.fixture(params=["journal", "postgres"])
def storage(request: pytest.FixtureRequest) -> str | None:
    """Address of the storage; None for the journal."""
    if request.param == "journal":
        return None
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.url
