"""The dashboard on a free port, with the requests of a browser."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import ROOT
from support.events_of_runs import PNG, note, swept, train
from support.finished_runs import finish, make_plan

from focal_lab.cli import main
from focal_lab.sweep.plan.plan import Plan
from focal_lab.sweep.plan.plan import make_plan as plan_of
from focal_lab.sweep.run_folder.result import write_record

PATIENCE = 120.0


@contextmanager
def served(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A dashboard process and its URL."""
    command = [sys.executable, "-m", "focal_lab.cli", "dashboard", "--port", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"(\d+ runs? of .*): (http://\S+:\d+/) \(press Ctrl-C to stop\)", line)
            assert found, line or process.communicate()
            yield process, found[2].rstrip("/")
        finally:
            process.kill()


def ask(address: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{address}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.loads(answer.read())


def until(known: Callable[[], Any]) -> Any:
    """The first true result: TensorBoard reads in the background."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = known()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError("TensorBoard has not found it in time")


def rows(address: str) -> dict[str, dict[str, float]]:
    """Row of HParams -> metrics."""
    columns = ask(address, "/data/plugin/hparams/experiment", {"experimentName": "", "includeMetrics": True})
    request = {
        "experimentName": "",
        "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"],
        "colParams": [{"metric": info["name"]} for info in columns.get("metricInfos", [])],
        "startIndex": 0,
        "sliceSize": 1000,
    }
    groups = ask(address, "/data/plugin/hparams/session_groups", request).get("sessionGroups", [])
    return {
        group["name"]: {value["name"]["tag"]: value["value"] for value in group.get("metricValues", [])}
        for group in groups
    }


def children(process: int) -> list[int]:
    """The living child processes of a process."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[1]) == process and words[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def alive(process: int) -> bool:
    try:
        return (Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_tensorboard_serves_runs_hparams_images_and_layout(out: Path) -> None:
    plan = swept(out)
    with served() as (_, address):
        names = until(lambda: ask(address, "/data/runs"))
        assert {"window_size/7 seed 0", "window_size/14 seed 1", "window_size/7 mean of 2 seeds"} <= set(
            names
        )
        known = until(lambda: all(found := rows(address).values()) and found and rows(address))
        assert len(known) == len(plan.runs) == 4
        assert known["14 seed 1, window_size"]["test/top1"] == pytest.approx(83.0)
        assert known["14 seed 1, window_size"]["usage/gmacs"] == pytest.approx(4.4936)
        images = ask(address, "/data/plugin/images/tags")["window_size/7 seed 0"]
        assert set(images) == {"val/picture_0"}
        wanted = urllib.parse.urlencode({"tag": "val/picture_0", "run": "window_size/7 seed 0", "sample": 0})
        (image,) = ask(address, f"/data/plugin/images/images?{wanted}")
        url = f"{address}/data/plugin/images/individualImage?{image['query']}"
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            assert answer.read() == PNG
        layout = ask(address, "/data/plugin/custom_scalars/layout")
        assert [category["title"] for category in layout["category"]] == ["Cells: means over seeds", "Runs"]
        wanted = urllib.parse.urlencode({"tag": "^val/top1$", "run": "window_size/7 seed 0"})
        drawn = ask(address, f"/data/plugin/custom_scalars/scalars?{wanted}")
        assert [value for _, _, value in drawn["tag_to_events"]["val/top1"]] == [40.0, 80.0]


def test_a_run_that_ends_while_the_server_runs_appears(out: Path) -> None:
    swept(out, seeds=1)
    with served() as (_, address):
        until(lambda: len(rows(address)) == 2)
        plan = make_plan({"window_size": ["7", "14"]}, seeds=range(2))
        note(out, plan)
        train(out, plan.runs[1].id, 95.0, seed=1)
        found = until(lambda: rows(address).get("7 seed 1, window_size"))
        found = until(lambda: rows(address)["7 seed 1, window_size"].get("test/top1"))
        assert found == pytest.approx(95.0)


@pytest.fixture(scope="module")
def real_plan() -> Plan:
    with chdir(ROOT):
        return plan_of(Path("sweeps/window_size.yaml"))


@pytest.fixture
def real_sweep(real_plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Finished runs of a sweep of the project, whose folder is the working directory."""
    monkeypatch.chdir(ROOT)
    out = tmp_path / "runs"
    for place, run in enumerate(real_plan.runs):
        train(out, run.id, finished=False)
        result = finish(tmp_path, "elsewhere0", metrics={"top1": 80.0 + place}, seed=run.seed)
        write_record(out / run.id, replace(result, run=run.id))
    return out


def test_a_sweep_has_its_table_and_then_its_plots(real_sweep: Path) -> None:
    with served("window_size", "--out", str(real_sweep)) as (_, address):
        assert until(lambda: ask(address, "/data/plugin/text/tags").get("window_size")) == ["table"]
        wanted = urllib.parse.urlencode({"tag": "table", "run": "window_size"})
        (table,) = ask(address, f"/data/plugin/text/text?{wanted}")
        assert "<td>Focal-Tiny" in table["text"]
        plots = until(lambda: ask(address, "/data/plugin/images/tags").get("window_size"))
        assert all(name.startswith("plots/") for name in plots)


@pytest.mark.parametrize("seconds", [0.0, 0.7])
def test_sigterm_ends_it_cleanly_while_it_draws(real_sweep: Path, seconds: float) -> None:
    with served("window_size", "--out", str(real_sweep)) as (process, _):
        time.sleep(seconds)
        process.send_signal(signal.SIGTERM)
        _, complaints = process.communicate(timeout=PATIENCE)
        assert (process.returncode, complaints) == (0, "")


@pytest.mark.parametrize("word", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_child_process_outlives_it(out: Path, word: signal.Signals) -> None:
    swept(out)
    with served() as (process, _):
        started = children(process.pid)
        process.send_signal(word)
        process.wait(timeout=PATIENCE)
        assert process.returncode == (-word if word is signal.SIGKILL else 0)
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
        until(lambda: not any(map(alive, started)))


def test_a_port_that_is_taken_is_refused_in_one_line(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    swept(out)
    with socket.create_server(("localhost", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["dashboard", "--port", port]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert f"could not bind to port {port}" in captured.err
    assert not (out / "tensorboard").exists()
