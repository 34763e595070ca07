"""Sweeps as a user runs them: real trainings in real processes, killed, broken and started again."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.small_project import write, write_sweep

from focal_lab.sweep.plan.plan import make_plan
from focal_lab.sweep.run_folder.layout import LAST_CHECKPOINT, LOCK_FILE, PREDICTIONS_FILE
from focal_lab.sweep.run_folder.predictions import read_units
from focal_lab.utils.file_lock import is_locked
from focal_lab.utils.yaml import load_yaml

EXPERIMENT = """\
trainer: {max_epochs: 1, gradient_clip_val: 5.0}
model:
  class_path: focal_lab.tasks.Classification
  init_args:
    backbone: focal_micro
    backbone_options: {embed_dim: 8, depths: [1, 1, 1, 1]}
    num_classes: 10
    lr: 3e-3
data:
  class_path: focal_lab.data.DigitsClassification
  init_args: {batch_size: 32, num_train_images: 64, num_val_images: 32, num_test_images: 32}
"""
CLASS = "focal_lab.data.DigitsClassification"
LONG = "trainer.max_epochs=500"


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose runs train for two steps; the folder of its runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write("experiments/digits/classification.yaml", EXPERIMENT)
    return Path("runs")


@pytest.fixture
def killed() -> Iterator[list[subprocess.Popen[str]]]:
    """Commands started by a test that must not outlive it."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "focal_lab", "sweep", *arguments]


def sweep(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=300, check=False)


def start(killed: list[subprocess.Popen[str]], *arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    killed.append(process)
    return process


def wait_until(condition: object, seconds: float = 120) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def started_at(out: Path) -> dict[str, str]:
    return {path.parent.name: json.loads(path.read_text())["started"] for path in out.glob("*/result.json")}


def test_a_sweep_trains_once_and_then_reuses(tiny: Path) -> None:
    path = str(write_sweep(seeds=1))
    # the user's own module is found in the working directory, and hides none of anybody else's
    write(
        "own.py",
        "from focal_lab.data import DigitsClassification as Digits\nprint('\u2192')\n",
    )
    write("experiments/digits/classification.yaml", EXPERIMENT.replace(CLASS, "own.Digits"))
    for name in ("timm", "torch", "random", "socket", "signal"):
        write(f"{name}.py", "raise SystemExit('the wrong module')\n")
    first = subprocess.run(
        [sys.executable, "-m", "focal_lab", "sweep", path, "--workers", "2"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        umask=0o002,
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
    )
    assert first.returncode == 0, first.stderr
    private = [file for file in tiny.rglob("*") if not file.stat().st_mode & stat.S_IWGRP]
    assert private == []  # another user of the group goes on with this folder
    assert "2 runs: 2 trained, 0 reused" in first.stderr
    assert first.stdout.count("1/1") == 2, first.stdout
    results = started_at(tiny)
    assert set(results) == {run.id for run in make_plan(Path(path)).runs}
    record = json.loads((tiny / next(iter(results)) / "result.json").read_text())
    assert set(record["metrics"]) == {"top1", "top5", "loss"}
    assert record["params"] > 1000
    assert 0 < record["gmacs"] < 1
    assert record["train_seconds"] > 0
    assert record["images_per_second"] > 0
    assert record["peak_memory_mb"] > 100
    assert {"python", "torch", "lightning", "timm", "focal_lab"} <= record["versions"].keys()
    assert set(record["git"]) == {"commit", "dirty", "user_code"}
    for run in results:
        units = read_units(tiny / run, "top1")
        assert units is not None
        written = [(tiny / run / name).stat().st_mtime_ns for name in (PREDICTIONS_FILE, "result.json")]
        assert written == sorted(written)
    # a damaged result is named, set aside and trained again; the other run is left alone
    damaged, kept = sorted(results)
    (tiny / damaged / "result.json").write_text('{"schema": 1, "run"')
    second = sweep(path)
    assert second.returncode == 0, second.stderr
    assert "2 runs: 1 trained, 1 reused" in second.stderr
    assert f"{damaged}/result.json" in second.stderr
    assert len(list((tiny / damaged).glob("result.json.corrupt-*"))) == 1
    assert started_at(tiny)[kept] == results[kept]


def test_a_run_by_hand_gives_the_result_of_the_sweep(tiny: Path) -> None:
    path = str(write_sweep(factors={"window_size": [7]}, seeds=1))
    assert sweep(path).returncode == 0
    (record,) = [json.loads(file.read_text()) for file in tiny.glob("*/result.json")]
    code = (
        "import sys, torch\ntorch.set_num_threads(int(sys.argv[2]))\n"  # sums differ with their number
        "from focal_lab.training.lightning_cli import FocalCLI\n"
        "cli = FocalCLI(['fit', '--config', sys.argv[1], '--trainer.logger=false'])\n"
        "best = cli.trainer.checkpoint_callback.best_model_path\n"
        "tested = cli.trainer.test(cli.model, cli.datamodule, ckpt_path=best, verbose=False)\n"
        "print('loss', tested[0]['test/loss'])\n"
    )
    config = tiny / record["run"] / "config.yaml"
    assert load_yaml(config) == record["config"]
    by_hand = subprocess.run(
        [sys.executable, "-c", code, str(config), "1"],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    (loss,) = [line.split()[1] for line in by_hand.stdout.splitlines() if line.startswith("loss")]
    assert float(loss) == record["metrics"]["loss"]


def test_a_failing_run_is_recorded_and_the_others_go_on(tiny: Path) -> None:
    path = str(write_sweep(factors={"model.lr": [1e30, 3e-3]}, seeds=1, columns=["top1"]))
    first = sweep(path, "--workers", "1", "--set", "trainer.max_epochs=4")
    assert first.returncode == 1, first.stderr
    assert "1 trained, 0 reused, 1 failed" in first.stderr
    (failure,) = [json.loads(file.read_text()) for file in tiny.glob("*/failure.json")]
    assert "the loss is" in failure["reason"]
    assert "lower model.lr" in failure["reason"]
    assert any("DivergedError" in line for line in failure["last_lines"])
    assert failure["attempts"] == 2  # it is tried again once
    assert "failed" in first.stdout
    second = sweep(path, "--set", "trainer.max_epochs=4")
    assert "0 trained, 1 reused, 1 failed" in second.stderr
    (failure,) = [json.loads(file.read_text()) for file in tiny.glob("*/failure.json")]
    assert failure["attempts"] == 4


def test_a_sweep_killed_with_its_whole_group_goes_on_where_it_was(
    tiny: Path, killed: list[subprocess.Popen[str]]
) -> None:
    levels = {"short": {"data.num_train_images": 64}, "long": {"data.num_train_images": 3200}}
    path = str(write_sweep(factors={"length": levels}, seeds=1, columns=["top1"]))
    runs = {run.cell.labels["length"]: tiny / run.id for run in make_plan(Path(path)).runs}
    process = start(killed, path, "--workers", "1")
    wait_until(lambda: (runs["short"] / "result.json").exists() and is_locked(runs["long"] / LOCK_FILE))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not is_locked(runs["long"] / LOCK_FILE), 10)
    assert not (runs["long"] / "result.json").exists()
    again = sweep(path)
    assert again.returncode == 0, again.stderr
    assert "2 runs: 1 trained, 1 reused" in again.stderr


def test_killing_the_command_alone_ends_its_runs(tiny: Path, killed: list[subprocess.Popen[str]]) -> None:
    path = str(write_sweep(factors={"window_size": [7]}, seeds=1))
    (run,) = make_plan(Path(path), overrides=[LONG]).runs
    process = start(killed, path, "--set", LONG)
    wait_until(lambda: (tiny / run.id / LAST_CHECKPOINT).exists())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: not is_locked(tiny / run.id / LOCK_FILE), 10)


def test_ctrl_c_ends_the_runs_and_says_how_to_go_on(tiny: Path, killed: list[subprocess.Popen[str]]) -> None:
    path = str(write_sweep(factors={"window_size": [7]}, seeds=1))
    (run,) = make_plan(Path(path), overrides=[LONG]).runs
    process = start(killed, path, "--set", LONG)
    wait_until(lambda: (tiny / run.id / LAST_CHECKPOINT).exists())
    os.killpg(process.pid, signal.SIGINT)
    _, reported = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"Resume with: focal-lab sweep {path} --set {LONG}" in reported
    assert not is_locked(tiny / run.id / LOCK_FILE)
    assert not (tiny / run.id / "failure.json").exists()
    # a checkpoint that cannot be read is named and set aside
    (tiny / run.id / LAST_CHECKPOINT).write_bytes(b"PK\x03\x04 truncated")
    process = start(killed, path, "--set", LONG)
    aside = tiny / run.id / LAST_CHECKPOINT.parent
    wait_until(lambda: list(aside.glob("last.ckpt.corrupt-*")) and (tiny / run.id / LAST_CHECKPOINT).exists())
    os.killpg(process.pid, signal.SIGINT)
    _, reported = process.communicate(timeout=60)
    assert f"{run.id}/{LAST_CHECKPOINT}: is not readable" in reported


def test_a_killed_run_fails_alone(tiny: Path, killed: list[subprocess.Popen[str]]) -> None:
    levels = {"short": {"trainer.max_epochs": 1}, "long": {"trainer.max_epochs": 500}}
    path = str(write_sweep(factors={"length": levels}, seeds=1, columns=["top1"]))
    runs = {run.cell.labels["length"]: tiny / run.id for run in make_plan(Path(path)).runs}
    process = start(killed, path, "--workers", "1", "--retries", "0")
    wait_until(lambda: (runs["long"] / LAST_CHECKPOINT).exists())
    os.kill(int((runs["long"] / LOCK_FILE).read_text()), signal.SIGKILL)
    _, reported = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "1 trained, 0 reused, 1 failed" in reported
    assert "killed by SIGKILL" in json.loads((runs["long"] / "failure.json").read_text())["reason"]


def test_two_commands_on_one_folder_train_every_run_once(
    tiny: Path, killed: list[subprocess.Popen[str]]
) -> None:
    path = str(write_sweep(factors={"window_size": [7, 14]}, seeds=2))
    processes = [start(killed, path, "--workers", "1") for _ in range(2)]
    reported = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], reported
    trained = [int(text.partition("4 runs: ")[2].partition(" trained")[0]) for text in reported]
    assert sum(trained) == 4
    logs = [file.read_text() for file in tiny.glob("*/log.txt")]
    assert len(logs) == 4
    assert all(log.count("`Trainer.fit` stopped") == 1 for log in logs)


def test_a_sweep_until_decided_is_killed_and_resumed(tiny: Path, killed: list[subprocess.Popen[str]]) -> None:
    # networks that train for two steps differ by chance: some comparison needs more than three seeds
    path = str(write_sweep(factors={"window_size": [7, 14], "drop_path_rate": [0.0, 0.1]}, columns=["top1"]))
    options = (path, "--until-decided", "--max-seeds", "5", "--workers", "2")
    process = start(killed, *options)
    wait_until(lambda: len(started_at(tiny)) >= 4)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = started_at(tiny)
    resumed = sweep(*options)
    assert resumed.returncode == 0, resumed.stderr
    after = started_at(tiny)
    assert before.items() <= after.items()
    assert len(after) >= 12
    assert f"{len(after)} runs of 20 that 5 seeds of all cells need" in resumed.stderr
    assert "looks after every seed from 3 to 5" in resumed.stdout
    again = sweep(*options)
    assert again.returncode == 0, again.stderr
    assert started_at(tiny) == after
