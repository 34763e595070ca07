import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import ROOT
from support.finished_runs import FakePlan, finish

from focal_lab.command_line import replace_unknown_characters
from focal_lab.errors import UserError
from focal_lab.report.command import FORMATS, main, print_table

IMPORTS = """
import json, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from focal_lab.report.published.layouts import known_papers
known_papers()
cheap = sorted(name for name in ("pandas", "rich") if name in sys.modules)
from focal_lab.report.command import main
from support.finished_runs import make_plan
from focal_lab.report.formats.render import table_text
from focal_lab.report.table.build import build_table
factors = {{"backbone": ["Swin-Tiny"], "window_size": ["7"]}}
table_text(build_table(make_plan(factors, paper="table8_window_size"), Path("runs")))
main(["--out", "runs"])
print(json.dumps([cheap, sorted(sys.modules)]))
"""


@pytest.fixture
def asked(mixed: FakePlan, out: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the command asks the ablation package for; the answer is the plan `mixed`."""
    calls: list[tuple[Any, ...]] = []

    def recall_plan(path: Path, out: Path, **asked: Any) -> FakePlan:
        calls.append((path, out, *(asked[name] for name in ("suite", "seeds", "overrides", "tasks"))))
        return mixed

    plan = SimpleNamespace(with_proposals=lambda plan, out: plan)
    monkeypatch.setitem(sys.modules, "focal_lab.sweep.plan.plan", plan)
    recall = SimpleNamespace(recall_plan=recall_plan)
    monkeypatch.setitem(sys.modules, "focal_lab.sweep.plan.recall", recall)
    Path("sweeps").mkdir()
    Path("sweeps/window_size.yaml").write_text("title: Window size\n")
    return calls


def test_a_bare_name_is_a_file_under_sweeps_and_options_reach_the_plan(
    asked: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["window_size", "--suite", "imagenet", "--seeds", "2", "--set", "a=1", "--set", "b=2"])
    assert status == 0
    assert asked == [(Path("sweeps/window_size.yaml"), Path("runs"), "imagenet", 2, ["a=1", "b=2"], None)]
    assert "85.5 ± 6.4 (n=2)" in capsys.readouterr().out


def test_without_options_the_plan_is_the_one_of_the_last_sweep(asked: list[tuple[Any, ...]]) -> None:
    main(["sweeps/window_size.yaml"])
    assert asked == [(Path("sweeps/window_size.yaml"), Path("runs"), None, None, [], None)]


@pytest.mark.parametrize("arguments", [[], ["window_size"], ["window_size", "--long"]])
@pytest.mark.parametrize("format", [name for name in FORMATS if name not in ("parquet", "html")])
def test_every_format_prints_plain_text_into_a_pipe(
    format: str,
    arguments: list[str],
    asked: list[tuple[Any, ...]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main([*arguments, "--format", format]) == 0
    text = capsys.readouterr().out
    assert "84.2" in text
    assert "\x1b" not in text
    assert text.endswith("\n")
    if format == "json":
        assert json.loads(text)


def test_a_reader_that_leaves_early_does_not_change_the_status(
    asked: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["window_size", "--strict"]) == 1
        assert main(["window_size", "--format", "csv"]) == 0


def test_long_has_a_row_per_planned_run_with_its_labels(
    asked: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["window_size", "--long", "--format", "csv"])
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.startswith("backbone,window_size,run,task,seed,state,")
    assert len(lines) == 18


def test_a_terminal_gets_colours_and_its_width(
    out: Path, mixed: FakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal, pipe = Terminal(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", terminal)
    print_table(mixed, out)
    assert "\x1b[" in terminal.getvalue()
    monkeypatch.setattr(sys, "stdout", pipe)
    print_table(mixed, out)
    assert max(map(len, pipe.getvalue().splitlines())) > 100


def test_an_ascii_only_output_gets_ascii(out: Path, mixed: FakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    replace_unknown_characters()
    print_table(mixed, out)
    stream.flush()
    assert b"85.5 +- 6.4 (n=2)" in raw.getvalue()


def test_a_closed_pipe_is_no_error(out: Path) -> None:
    for number in range(300):
        (out / f"r{number}").mkdir()
        (out / f"r{number}" / "config.yaml").touch()
    code = "from focal_lab.cli import main; raise SystemExit(main(['report', '--format', 'json']))"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.close()
    _, errors = child.communicate(timeout=60)
    assert (child.returncode, errors) == (0, b"")


def test_an_empty_or_missing_folder_says_how_to_fill_it(out: Path) -> None:
    command = r"\(train some: focal-lab sweep sweeps/window_size.yaml --out"
    with pytest.raises(UserError, match=rf"^runs: holds no runs yet {command} runs\)"):
        main([])
    with pytest.raises(UserError, match=rf"^nowhere: does not exist {command} nowhere\)"):
        main(["--out", "nowhere"])


def test_the_command_that_fills_a_folder_repeats_every_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    sweep, missing = "sweeps/depth.yaml", str(tmp_path / "no where")
    asked = [
        "--suite",
        "imagenet",
        "--tasks",
        "classification",
        "detection",
        "--seeds",
        "2",
        "--set",
        "model.lr=0.5",
    ]
    with pytest.raises(UserError) as refused:
        main([sweep, *asked, "--out", missing])
    state, _, train = str(refused.value).removesuffix(")").partition("(train some: focal-lab ")
    assert state == f"{missing}: does not exist "
    words = shlex.split(train)
    assert words[:2] == ["sweep", sweep]
    assert words[-2:] == ["--out", missing]
    assert sorted(words[2:-2]) == sorted(asked)


def test_an_out_that_is_a_file_is_refused(out: Path) -> None:
    Path("runs.txt").touch()
    with pytest.raises(UserError, match=r"^runs.txt: is not a folder"):
        main(["--out", "runs.txt"])


def test_an_unknown_sweep_is_refused_with_those_that_exist(asked: list[tuple[Any, ...]]) -> None:
    with pytest.raises(UserError, match=r"^window_sise: there is no such .* \(did you mean window_size\?\)"):
        main(["window_sise"])
    assert asked == []


@pytest.mark.parametrize(
    "option", [["--suite", "digits"], ["--seeds", "0"], ["--set", "a=1"], ["--plots", "x"]]
)
def test_an_option_that_would_do_nothing_is_refused(out: Path, option: list[str]) -> None:
    finish(out, "a0")
    with pytest.raises(UserError, match=f"^{option[0]} needs a SWEEP"):
        main(option)


def test_plots_are_written_beside_the_table(
    asked: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["window_size", "--plots", "plots"]) == 0
    written = {path.name for path in Path("plots").iterdir()}
    assert {"window_size-bars-top1.png", "window_size-bars-top1.svg", "window_size-bars-top1.pdf"} <= written
    captured = capsys.readouterr()
    assert "85.5" in captured.out
    assert captured.err == f"{len(written)} files with plots in plots\n"


def test_a_report_imports_nothing_heavy(out: Path) -> None:
    finish(out, "a0")
    code = IMPORTS.format(tests=str(ROOT / "tests"))
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    cheap, modules = json.loads(child.stdout.splitlines()[-1])
    assert cheap == []
    assert "focal_lab.report.table.build" in modules
    heavy = {"torch", "lightning", "timm", "optuna", "scipy", "matplotlib"}
    assert heavy.isdisjoint(modules)


def test_strict_says_what_keeps_a_table_from_being_published_and_exits_1(
    asked: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["window_size", "--strict"]) == 1
    captured = capsys.readouterr()
    assert "Impact of the window size" in captured.out
    assert "focal-lab: --strict: Focal-Tiny / 14: 3 failed" in captured.err


@pytest.mark.parametrize("arguments", [[], ["window_size"], ["window_size", "--long"]])
def test_parquet_holds_the_rows_with_their_types(asked: list[tuple[Any, ...]], arguments: list[str]) -> None:
    import pandas as pd

    assert main([*arguments, "--format", "parquet", "--output", "new/table.parquet"]) == 0
    frame = pd.read_parquet("new/table.parquet")
    if arguments == ["window_size"]:
        assert frame["top1_mean"].iloc[0] == 84.25
        assert frame["top1_n"].tolist() == [3, 2, 1, 0, 0, 0]
    else:
        finished = frame[frame["state"] == "finished"]
        assert finished["top1"].tolist()[:3] == [84.25, 85.5, 83.0]
        assert str(frame["params"].dtype) == "Int64"


def test_a_file_gets_what_would_be_printed(
    asked: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["window_size", "--format", "markdown"])
    printed = capsys.readouterr().out
    main(["window_size", "--format", "markdown", "-o", "docs/table.md"])
    assert capsys.readouterr().out == ""
    assert Path("docs/table.md").read_text(encoding="utf-8") == printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["window_size", "--format", "parquet"], "--format: parquet is not text; name a file"),
        (["--format", "html"], "the page shows one sweep"),
        (["--strict"], "--strict needs a SWEEP"),
        (["window_size", "--open", "--format", "csv"], "--open and --watch show the page"),
        (["window_size", "--long", "--format", "html"], "--long: prints a table of runs"),
        (["window_size", "-o", "runs/cla000000000/result.json/x.md"], "--output: cannot write"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    asked: list[tuple[Any, ...]], arguments: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        main(arguments)
