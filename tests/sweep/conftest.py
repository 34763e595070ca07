"""The working folder of the planning tests, and the storages that a queue may lie in."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.postgres_server import PostgresServer, find_binaries
from support.small_project import write_project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder that holds the small project."""
    monkeypatch.chdir(tmp_path)
    write_project()


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
