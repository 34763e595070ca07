"""What the README tells people to type is understood."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
from support import ROOT

from focal_lab.cli import SUBCOMMANDS
from focal_lab.errors import UserError
from focal_lab.sweep.plan.plan import make_plan, probe_plan
from focal_lab.utils.yaml import parse_yaml

README = ROOT / "README.md"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
SHELL = "\n".join(text for language, text in BLOCKS if language == "bash").replace("\\\n", " ")
COMMANDS = [
    shlex.split(line, comments=True)[1:] for line in SHELL.splitlines() if line.startswith("focal-lab ")
]


@pytest.fixture(autouse=True)
def at_the_top(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands are meant for the project's own folder."""
    monkeypatch.chdir(README.parent)


def test_the_readme_shows_every_kind_of_command() -> None:
    assert {command[0] for command in COMMANDS} == {
        "plan",
        "sweep",
        "worker",
        "runs",
        "report",
        "inspect",
        "diff",
        "dashboard",
        "fit",
        "profile",
        "convert",
        "find-lr",
        "predict",
        "export",
        "freeze",
    }


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_of_the_readme_is_understood(
    command: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subcommand, *arguments = command
    if subcommand in ("fit", "find-lr"):
        # parses every option against the classes, prints the configuration and stops
        with pytest.raises(SystemExit) as stop:
            SUBCOMMANDS["fit"][0]([*arguments, "--print_config"])
        assert stop.value.code == 0
        assert "class_path" in capsys.readouterr().out
    elif subcommand == "profile":
        assert SUBCOMMANDS["profile"][0](arguments) == 0
        assert "swin_tiny" in capsys.readouterr().out
    elif subcommand == "convert":
        # understood, but for the file, which is the reader's
        with pytest.raises(UserError, match=r"^focal-tiny\.pth"):
            SUBCOMMANDS["convert"][0](arguments)
    elif subcommand in ("inspect", "diff", "predict", "export"):
        # understood, but for the runs, which are the reader's: here are none, whatever make sweep has trained
        for folder in ("experiments", "sweeps"):
            (tmp_path / folder).symlink_to(README.parent / folder)
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UserError, match=r"\bruns\b|there is no such"):
            SUBCOMMANDS[subcommand][0](arguments)
    elif "--suite" not in arguments and arguments[0].startswith("sweeps/"):
        overrides = [value for name, value in pairwise(arguments) if name == "--set"]
        assert probe_plan(make_plan(Path(arguments[0]), overrides=overrides)).runs


def test_targets_of_the_readme_exist() -> None:
    targets = re.findall(r"^make (\w+)", SHELL, re.MULTILINE)
    assert targets == ["sweep", "test"]
    assert all(re.search(rf"^{target}:", Path("Makefile").read_text(), re.MULTILINE) for target in targets)


def test_the_sweep_of_the_readme_can_be_planned(tmp_path: Path) -> None:
    (text,) = [text for language, text in BLOCKS if language == "yaml"]
    assert parse_yaml(text, Path("README.md"))["seeds"] == 3
    sweep = tmp_path / "mine.yaml"
    sweep.write_text(text, encoding="utf-8")
    assert len(make_plan(sweep).distinct_runs) == 18


def test_every_sweep_is_listed_in_the_readme() -> None:
    readme = README.read_text(encoding="utf-8")
    assert all(f"`sweeps/{path.name}`" in readme for path in Path("sweeps").glob("*.yaml"))
