import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.finished_runs import config, corrupt, fail, finish, start

from focal_lab.cli import main
from focal_lab.report.diff.compare import compare
from focal_lab.report.table.long_table import flat_settings
from focal_lab.sweep.run_folder.layout import CONFIG_FILE, LOCK_FILE
from focal_lab.training.history_file import Point, write_history
from focal_lab.utils.file_lock import FileLock

ONE, OTHER = "cla000000000", "cla000100000"


def curve(out: Path, run: str, top1s: list[float], first_epoch: int = 1) -> None:
    points = [
        Point(float(epoch), 10 * epoch, {"train/loss": 2.0 / epoch, "val/top1": top1, "lr": 0.001})
        for epoch, top1 in enumerate(top1s, first_epoch)
    ]
    write_history(out / run, points)


@pytest.fixture
def pair(out: Path) -> Path:
    """Two finished runs that differ in two settings, a version and their curves."""
    stage = {"stage": 1, "window": [7, 7], "levels": [{}]}
    window = {"version": 1, "network": {"pool": "fc", "stages": [stage] * 2}}
    finish(out, ONE, identity=window)
    stage = stage | {"window": [14, 7], "levels": [{}] * 2}
    other = {"version": 1, "network": {"pool": "fc", "stages": [stage] * 2}}
    finish(
        out,
        OTHER,
        metrics={"top1": 90.0, "top5": 99.0, "loss": 0.5},
        config=config({"window_size": 14, "depths": [1, 1, 2, 1]}, lr=0.01),
        versions={"torch": "2.15.0"},
        git={"commit": "0123abc", "dirty": True},
        identity=other,
    )
    curve(out, ONE, [50.0, 70.0, 80.0])
    curve(out, OTHER, [60.0, 65.0, 90.0, 91.0])
    return out


def diff(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["diff", *arguments]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["diff", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def line_of(text: str, start: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(start)]
    return line.split()


def test_only_settings_that_differ_are_listed_and_the_others_are_counted(
    pair: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = diff(capsys, ONE, OTHER)
    assert "Configuration: 2 differ, 5 are the same" in text
    assert line_of(text, "model.backbone_options.window_size")[1:] == ["7", "14"]
    assert line_of(text, "model.lr")[1:] == ["0.003", "0.01"]
    assert "depths" not in text
    assert "Network: 2 differ, 1 is the same" in text
    assert line_of(text, "levels by stage")[-4:] == [
        "2",
        "2",
        "3",
        "3",
    ]  # as in the plan, the fine one counts
    assert line_of(text, "window by stage")[-4:] == ["7", "7", "14x7", "14x7"]
    assert "Environment: 2 differ, 2 are the same" in text
    assert line_of(text, "torch")[1:] == ["2.14.1", "2.15.0"]
    assert line_of(text, "uncommitted changes")[2:] == ["false", "true"]


def test_metrics_have_their_difference_and_costs_have_no_verdict(
    pair: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = diff(capsys, ONE, OTHER)
    assert line_of(text, "Top-1 (%)")[2:] == ["87.5", "90.0", "+2.5", "better"]
    assert line_of(text, "Loss")[1:] == ["0.410", "0.500", "+0.090", "worse"]
    assert line_of(text, "Top-5")[2:] == ["99.0", "99.0", "+0.0"]
    assert line_of(text, "Train (s)")[2:] == ["62", "62", "+0"]


def test_curves_are_compared_at_the_epochs_that_both_have(
    pair: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = diff(capsys, ONE, OTHER)
    assert "3 common epochs" in text
    assert line_of(text, "    2 ")[:4] == ["2", "70", "65", "-5"]
    assert "91" not in text.partition("Curves")[2]


def test_of_a_long_curve_some_epochs_and_both_ends_are_shown(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in (ONE, OTHER):
        finish(out, run)
        curve(out, run, [float(epoch) for epoch in range(300)])
    text = diff(capsys, ONE, OTHER).partition("Curves")[2]
    epochs = [int(words[0]) for line in text.splitlines() if (words := line.split()) and words[0].isdecimal()]
    assert (epochs[0], epochs[-1], len(epochs)) == (1, 300, 10)


def test_missing_curves_and_common_epochs_are_reported(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finish(out, ONE)
    finish(out, OTHER)
    curve(out, ONE, [50.0])
    assert f"Curves: missing for {OTHER}" in diff(capsys, ONE, OTHER)
    curve(out, OTHER, [50.0], first_epoch=7)
    assert "Curves: no epoch in common" in diff(capsys, ONE, OTHER)


def test_an_unfinished_run_has_its_reason_and_is_compared_as_far_as_possible(
    pair: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fail(pair, "cla000200000")
    text = diff(capsys, ONE, "cla000200000")
    assert line_of(text, "state")[1:] == ["finished", "failed"]
    assert "NaN loss at step 12" in text
    assert "loss=nan" in text
    assert line_of(text, "Top-1 (%)")[2:] == ["87.5", "-"]
    assert "Configuration: unknown for cla000200000" in text
    start(pair, "cla000300000")
    (pair / "cla000300000/config.yaml").write_text("seed_everything: 0\nmodel: {init_args: {lr: 0.5}}\n")
    with FileLock(pair / "cla000300000" / LOCK_FILE):
        text = diff(capsys, ONE, "cla000300000")
    assert line_of(text, "state")[1:] == ["finished", "running"]
    assert line_of(text, "model.lr")[1:] == ["0.003", "0.5"]
    corrupt(pair, "cla000400000")
    assert line_of(diff(capsys, ONE, "cla000400000"), "state")[1:] == ["finished", "corrupt"]
    assert "Metrics: neither run has a result" in diff(capsys, "cla000300000", "cla000400000")


def test_runs_are_found_by_prefix_and_by_folder(
    pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = diff(capsys, ONE, OTHER)
    assert diff(capsys, "cla0000", "cla0001") == whole
    assert diff(capsys, f"runs/{ONE}", str(tmp_path / "runs" / OTHER)) == whole
    finish(tmp_path / "elsewhere", ONE)
    text = diff(capsys, ONE, f"elsewhere/{ONE}")
    assert f"{ONE} (1)" in text
    assert f"{ONE} (2)" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((ONE, "nothing"), "there is no run nothing in runs (focal-lab runs --out runs lists them)"),
        (("cla", OTHER), f"cla matches 2 runs (use {ONE} or {OTHER})"),
        ((ONE, ONE), f"{ONE} and {ONE} are the same run, {ONE}"),
        ((ONE, f"runs/{ONE}/"), f"{ONE} and runs/{ONE}/ are the same run, {ONE}"),
        ((ONE, "runs/nothing"), "runs/nothing: is not a run's folder"),
        ((ONE, ""), "RUN: is empty"),
        ((ONE, OTHER, "--out", "missing"), f"there is no run {ONE} in missing"),
    ],
)
def test_a_name_of_no_run_or_of_several_is_refused_in_one_line(
    pair: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert message in refused(capsys, *arguments)


def test_json_has_pairs_and_nulls(pair: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found: dict[str, Any] = json.loads(diff(capsys, ONE, OTHER, "--json"))
    assert [run["run"] for run in found["runs"]] == [ONE, OTHER]
    assert found["configuration"]["different"]["model.lr"] == [0.003, 0.01]
    assert found["configuration"]["same"] == 5
    assert found["metrics"]["top1"] == {"first": 87.5, "second": 90.0, "difference": 2.5}
    assert found["curves"]["val/top1"][1] == {"epoch": 2.0, "first": 70.0, "second": 65.0, "difference": -5.0}
    fail(pair, "cla000200000")
    found = json.loads(diff(capsys, ONE, "cla000200000", "--json"))
    assert found["metrics"]["top1"] == {"first": 87.5, "second": None, "difference": None}
    assert found["runs"][1]["last_line"] == "loss=nan"


def test_json_writes_infinite_settings_as_text(pair: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = "cla000300000"
    start(pair, run)
    (pair / run / CONFIG_FILE).write_text("model: {init_args: {lr: .inf}}\n")
    text = diff(capsys, ONE, run, "--json")
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert found["configuration"]["different"]["model.lr"] == [0.003, "inf"]


def on_a_terminal(**environment: str) -> str:
    """What the command prints to a terminal of 200 columns."""
    master, slave = pty.openpty()
    known = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    command = [sys.executable, "-m", "focal_lab.cli", "diff", ONE, OTHER]
    with subprocess.Popen(
        command, stdout=slave, env=known | {"COLUMNS": "200"} | environment, stdin=subprocess.DEVNULL
    ):
        os.close(slave)
        text = b""
        while True:
            try:
                part = os.read(master, 1 << 16)
            except OSError:  # the other side is closed
                break
            if not part:
                break
            text += part
    os.close(master)
    return text.decode()


def test_colour_is_used_on_terminals_unless_no_color_is_set(
    pair: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "\033[32mbetter\033[0m" in on_a_terminal()
    assert "\033[" not in on_a_terminal(NO_COLOR="1")
    assert "\033[" not in diff(capsys, ONE, OTHER)


def test_an_output_without_unicode_gets_ascii(pair: Path) -> None:
    command = [sys.executable, "-m", "focal_lab.cli", "diff", ONE, OTHER]
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    printed = subprocess.run(command, env=ascii_only, capture_output=True, check=True).stdout
    assert printed.isascii()
    assert b"?" not in printed


def test_settings_are_named_as_in_sweep_files() -> None:
    raw = {
        "model": {"class_path": "A", "init_args": {"lr": 1, "o": {"d": [1, 2]}, "none": None, "empty": {}}}
    }
    assert flat_settings(raw) == {
        "model.class_path": "A",
        "model.lr": 1,
        "model.o.d": "1-2",
        "model.none": None,
    }


def test_a_setting_that_one_run_lacks_differs_even_from_none() -> None:
    different, same = compare({"a": None, "b": 1, "c": 1, "d": 2}, {"b": 1.0, "c": True, "d": 2})
    assert different == {"a": (None, None), "c": (1, True)}
    assert same == 2
