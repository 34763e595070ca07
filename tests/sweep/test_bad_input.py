"""What is wrong with a command of the engine is said in one line before any work starts."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.postgres_server import PASSWORD, PostgresServer, find_binaries
from support.small_project import write, write_sweep

from focal_lab import cli
from focal_lab.command_line import without_password
from focal_lab.errors import UserError
from focal_lab.sweep.commands.worker_command import find_study
from focal_lab.sweep.engine.conflicts import present, refuse_conflicts
from focal_lab.sweep.engine.slots import find_slots
from focal_lab.sweep.engine.storage import check_url, clock_difference, open_storage
from focal_lab.sweep.plan.manifest import Manifest, manifest_path, read_manifest, write_manifest
from focal_lab.sweep.plan.plan import Plan, make_plan
from focal_lab.sweep.plan.recall import remember


def focal_lab(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "focal_lab.cli", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env=os.environ | environment
    )


def refused(*arguments: str, **environment: str) -> str:
    """The one line that a command says when it refuses to work."""
    done = focal_lab(*arguments, **environment)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert not list(Path("runs").glob("*/config.yaml"))
    return line.removeprefix("focal-lab: ")


def manifest_of(plan: Plan) -> Manifest:
    return Manifest(plan.study, plan.sweep.name, plan.suite, plan.sweep.title, plan.distinct_runs)


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("arguments", "reported"),
    [
        (["--workers", "0"], "--workers: 0 is too few; use 1 or more"),
        (["--retries", "-1"], "--retries: -1 is too few; use 0 or more"),
        (["--devices-per-run", "0"], "--devices-per-run: 0 is too few; use 1 or more"),
        (["--timeout", "10"], "--timeout: "),
        (["--grace", "soon"], "--grace: "),
        (["--budget", "40"], "--budget: "),
        (["--set", "model.class_path=[1]"], "sweeps/small.yaml: model: unhashable type: 'list'"),
        (["--keep", "all"], "--keep: 'all' is unknown (use best, last, best,last or none)"),
        (["--storage", "sqlite:///queue.db"], "--storage: SQLite hands out runs twice"),
        (["--storage", "runs.journal"], "--storage: 'runs.journal' is not the URL of a PostgreSQL"),
        (["--storage", "mysql://me:secret@there/db"], "--storage: 'mysql://me:***@there/db' is not"),
        (
            ["--storage", "postgresql://me:secret@there:port/db"],
            "--storage postgresql://me:***@there:port/db: is not the URL of a database: its port is not",
        ),
    ],
)
def test_options_are_checked(arguments: list[str], reported: str) -> None:
    assert refused("sweep", str(write_sweep()), *arguments).startswith(reported)


@pytest.mark.usefixtures("project")
def test_a_storage_that_does_not_answer_is_reported_without_its_password() -> None:
    url = "postgresql://me:s3cret@127.0.0.1:1/none"
    line = refused("sweep", str(write_sweep()), "--storage", url)
    assert line.startswith("--storage postgresql://me:***@127.0.0.1:1/none: cannot be used: ")
    assert "s3cret" not in line
    # from the environment, where `ps` does not show it
    assert "cannot be used" in refused("sweep", str(write_sweep()), FOCAL_LAB_STORAGE=url)


@pytest.mark.parametrize(
    "arguments",
    [["plan", "small", "--storage"], ["sweep", "small", "--storge"], ["worker", "--study", "s", "--storge"]],
)
def test_a_password_is_not_repeated_by_who_does_not_know_the_option(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["postgresql://me:s3cret@host/db"], []):
        if not words:
            arguments[-1] += "=postgresql://me:s3cret@host/db"
        assert cli.main([*arguments, *words]) == 2
        printed = capsys.readouterr().err
        assert "unrecognized arguments: --stor" in printed
        assert "s3cret" not in printed


@pytest.mark.parametrize("text", ["notes\n", "[1]\n", "{}\n", '{"op_code": 99}\n', None])
def test_a_journal_that_is_none_is_named(text: str | None, tmp_path: Path) -> None:
    journal = tmp_path / "queue.journal"
    if text is None:
        journal.mkdir()
    else:
        journal.write_text(text)
    with pytest.raises(UserError, match=r"queue\.journal: is (a folder|not an Optuna journal)"):
        open_storage(tmp_path, None)


@pytest.fixture(scope="module")
def server() -> object:
    try:
        find_binaries()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    with PostgresServer() as server:
        yield server


class TestOfARealDatabase:
    """Its password is wrong, its tables are of another version, its clock differs."""

    @pytest.mark.usefixtures("project")
    def test_a_wrong_password_is_said_and_not_printed(self, server: PostgresServer) -> None:
        url = server.url.replace("s3cr", "wrong-one")
        line = refused("sweep", str(write_sweep()), "--storage", url)
        assert "password authentication failed" in line
        assert "wrong-one" not in line
        assert PASSWORD not in line

    @pytest.mark.usefixtures("project")
    def test_tables_of_another_version_are_refused(self, server: PostgresServer, tmp_path: Path) -> None:
        import sqlalchemy

        storage = open_storage(tmp_path, server.url)
        with storage.engine.begin() as connection:  # type: ignore[attr-defined]
            connection.execute(sqlalchemy.text("update alembic_version set version_num = 'v0.9.0.a'"))
        try:
            line = refused("sweep", str(write_sweep()), "--storage", server.url)
            assert "its tables were created by another version of Optuna" in line
        finally:
            with storage.engine.begin() as connection:  # type: ignore[attr-defined]
                connection.execute(sqlalchemy.text("drop schema public cascade"))
                connection.execute(sqlalchemy.text("create schema public"))

    @pytest.mark.parametrize(("grace", "most"), [(180.0, 10), (20.0, 3)])
    def test_a_network_that_swallows_everything_is_noticed_long_before_the_grace_period_ends(
        self, server: PostgresServer, tmp_path: Path, grace: float, most: int
    ) -> None:
        storage = open_storage(tmp_path, server.url, grace)
        with storage.engine.connect() as connection:  # type: ignore[attr-defined]
            descriptor = connection.connection.dbapi_connection.fileno()
            with socket.socket(fileno=os.dup(descriptor)) as line:
                assert 0 < line.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= most * 1000
                assert line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                assert 0 < line.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= most

    def test_clocks_that_disagree_are_noticed(
        self, server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import time

        storage = open_storage(tmp_path, server.url)
        assert clock_difference(storage) is None
        real = time.time
        monkeypatch.setattr("focal_lab.sweep.engine.storage.time.time", lambda: real() + 300)
        difference = clock_difference(storage)
        assert difference is not None
        assert 290 < difference < 310


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:pa:ss@host/db", "postgresql://me:***@host/db"),
        ("--storage=postgresql://me:p@ss@host/db", "--storage=postgresql://me:***@host/db"),
        (
            "postgresql://host/db?user=me&password=x1&sslmode=on",
            "postgresql://host/db?user=me&password=***&sslmode=on",
        ),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://host:5432/db", "postgresql://host:5432/db"),
        ("postgresql://me@[::1]:5432/db", "postgresql://me@[::1]:5432/db"),
        ("postgresql://me:two words@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me@firm.org:pa:ss@host:5432/db", "postgresql://me@firm.org:***@host:5432/db"),
        ("postgresql:/me:pass@host/db", "postgresql:/me:***@host/db"),
        ("postgresql//me:pass@host/db", "postgresql//me:***@host/db"),
        ("postgresql://me:no-host-at-all", "postgresql://me:***"),
        ("postgresql://host/db?user=me&passwd=x 1&port=1", "postgresql://host/db?user=me&passwd=***&port=1"),
        ("host=there password=x1", "host=there password=***"),
    ],
)
def test_passwords_are_hidden(text: str, shown: str) -> None:
    assert without_password(text) == shown


def test_addresses_get_the_driver_that_we_install() -> None:
    assert check_url("postgresql://me@host/db") == "postgresql+psycopg://me@host/db"
    assert check_url("postgresql+psycopg2://me@host/db") == "postgresql+psycopg://me@host/db"


@pytest.mark.usefixtures("project")
def test_two_sweeps_of_one_name_and_different_content_are_refused(tmp_path: Path) -> None:
    out = Path("runs")
    plan = make_plan(write_sweep())
    remember(plan, out, ())
    other = write("elsewhere/small.yaml", "factors: {window_size: [7]}\n")
    with pytest.raises(UserError, match="holds the runs of another sweep of this name"):
        refuse_conflicts(make_plan(other), out)
    # the same content under another path is the same sweep: on another machine, say
    same = write("elsewhere/small.yaml", Path("sweeps/small.yaml").read_text())
    refuse_conflicts(make_plan(same), out)
    # a changed file is a sweep that goes on
    refuse_conflicts(make_plan(write_sweep(factors={"window_size": [7]})), out)


@pytest.mark.usefixtures("project")
def test_a_sweep_that_changes_while_it_is_trained_is_refused_unless_only_seeds_are_added() -> None:
    out = Path("runs")
    plan = make_plan(write_sweep())
    write_manifest(out, manifest_of(plan))
    with present(plan.study, out):
        refuse_conflicts(make_plan(write_sweep(seeds=5)), out)
        changed = make_plan(write_sweep(factors={"window_size": [7]}))
        with pytest.raises(UserError, match="another command is training this sweep in an earlier version"):
            refuse_conflicts(changed, out)
    refuse_conflicts(changed, out)


@pytest.mark.usefixtures("project")
def test_a_worker_reports_which_studies_exist() -> None:
    out = Path("runs")
    with pytest.raises(UserError, match="start it with focal-lab sweep"):
        find_study(out, "small")
    plan = make_plan(write_sweep())
    write_manifest(out, manifest_of(plan))
    assert find_study(out, "small").study == plan.study
    assert [run.id for run in find_study(out, plan.study).runs] == [run.id for run in plan.distinct_runs]
    other = make_plan(write_sweep(factors={"window_size": [7]}))
    write_manifest(out, manifest_of(other))
    with pytest.raises(UserError, match="matches several studies"):
        find_study(out, "small")
    with pytest.raises(UserError, match=f"not a study in runs .use {min(plan.study, other.study)}"):
        find_study(out, "large")


@pytest.mark.usefixtures("project")
def test_a_manifest_of_another_version_is_refused() -> None:
    plan = make_plan(write_sweep())
    write_manifest(Path("runs"), manifest_of(plan))
    path = manifest_path(Path("runs"), plan.study)
    raw = json.loads(path.read_text()) | {"identity_version": 99, "focal_lab": "9.9"}
    path.write_text(json.dumps(raw))
    with pytest.raises(UserError, match=r"written by focal-lab 9\.9"):
        read_manifest(path)
    path.write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        read_manifest(path)
    write_manifest(Path("runs"), manifest_of(plan))  # made from the plan again
    assert len(read_manifest(path).runs) == 4


@pytest.mark.usefixtures("project")
def test_more_devices_than_there_are_is_refused() -> None:
    runs = make_plan(write_sweep(), overrides=["trainer.devices=8"]).distinct_runs
    with pytest.raises(UserError, match=r"configured for 8 devices, this machine has 4 GPUs"):
        find_slots(runs, 4, None, len(runs))
    places = find_slots(runs, 16, None, len(runs))
    assert places.count == 2
    assert places.devices(1, runs[0]) == "8,9,10,11,12,13,14,15"
    # a group is never cut short, however many workers share the GPUs
    places = find_slots(runs, 20, 3, len(runs))
    assert [places.devices(slot, runs[0]) for slot in range(3)] == [
        "0,1,2,3,4,5,6,7",
        "8,9,10,11,12,13,14,15",
        "0,1,2,3,4,5,6,7",
    ]


@pytest.mark.usefixtures("project")
def test_gpus_are_pinned_one_a_run_among_those_that_the_user_left_visible(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-5a,7")
    runs = make_plan(write_sweep()).distinct_runs
    places = find_slots(runs, 3, None, len(runs))
    assert [places.devices(slot, runs[0]) for slot in range(places.count)] == ["2", "GPU-5a", "7"]
    # more workers than GPUs share them
    assert find_slots(runs, 3, 4, len(runs)).devices(3, runs[0]) == "2"
