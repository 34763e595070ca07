"""The command line from outside: what it prints, how it ends, and what it does not import."""

import argparse
import io
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import ROOT

from focal_lab import __version__, cli
from focal_lab.command_line import CommandParser
from focal_lab.errors import UserError, one_of

TRAINER = ("fit", "validate", "test")
HEAVY = ("torch", "numpy", "pandas", "lightning", "timm", "optuna", "jsonargparse", "rich", "yaml")


def focal_lab(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "focal_lab.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, timeout=300)


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], []])
def test_help_lists_every_subcommand(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    for name, (_, description) in cli.SUBCOMMANDS.items():
        assert f"  {name} " in printed
        assert description in printed


def test_the_help_of_fit_describes_the_option_that_is_not_lightnings() -> None:
    printed = focal_lab("fit", "--help").stdout
    assert "--dry-run" in printed.partition("--trainer")[0]
    assert "--trainer.max_epochs" in printed


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"focal-lab {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["repot"], "'repot' is not a subcommand (did you mean report?)"),
        (["xyz"], f"'xyz' is not a subcommand (use {one_of(cli.SUBCOMMANDS)})"),
        (["", "fit"], f"'' is not a subcommand (use {one_of(cli.SUBCOMMANDS)})"),
        (["--versoin"], "unrecognized arguments: --versoin (did you mean --version?)"),
        (["plan", "x", "--seed", "2"], "unrecognized arguments: --seed (did you mean --seeds?)"),
        (["sweep", "x", "--seed=2"], "unrecognized arguments: --seed=2 (did you mean --seeds?)"),
        (["report", "x", "-out", "there"], "unrecognized arguments: -out (did you mean --out or --output?)"),
        (["report", "--formt", "csv"], "unrecognized arguments: --formt (did you mean --format?)"),
        (["runs", "gc", "--dry_run"], "unrecognized arguments: --dry_run (did you mean --dry-run?)"),
        (["plan", "x", "--tasks", "a", "--tasks", "b"], "--tasks: is given twice; give it once"),
        (["plan", "x", "--seeds", "two"], "--seeds: invalid int value: 'two'"),
        (["plan", "x", "--out", ""], "--out: is empty"),
        (["report", "x", "--suite="], "--suite: is empty"),
        (["plan", " "], "SWEEP: is empty"),
        (["find-lr", "--min-rl=1"], "unrecognized arguments: --min-rl=1 (did you mean --min-lr?)"),
        (["fit", "--dry-rnu"], "unrecognized arguments: --dry-rnu (did you mean --dry-run?)"),
        (["test", "--ckpt=x"], "unrecognized arguments: --ckpt=x (did you mean --ckpt_path?)"),
        (["fit", "--trainer.max_ep", "3"], "unrecognized arguments: --trainer.max_ep 3 (did you mean --tr"),
    ],
)
def test_what_is_not_on_the_command_line_of_a_subcommand_is_refused_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith(f"focal-lab: {message}")


def test_no_parser_takes_abbreviations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each subcommand's, those of `runs`, and Lightning's with those of its subcommands."""
    made: dict[str, argparse.ArgumentParser] = {}
    begin = argparse.ArgumentParser.__init__

    def noted(self: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        made[self.prog] = self

    monkeypatch.setattr(argparse.ArgumentParser, "__init__", noted)
    for words in [
        [],
        *([name] for name in cli.SUBCOMMANDS),
        *(["runs", act] for act in ("rm", "retry", "gc")),
    ]:
        with pytest.raises(SystemExit):
            cli.main([*words, "--help"])
    assert {f"focal-lab {name}" for name in cli.SUBCOMMANDS} - set(made) == {
        f"focal-lab {name}" for name in TRAINER
    }
    assert [name for name, parser in made.items() if parser.allow_abbrev] == []


@pytest.mark.parametrize("name", list(cli.SUBCOMMANDS))
def test_a_subcommand_gets_what_follows_its_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    monkeypatch.setitem(cli.SUBCOMMANDS, name, (lambda argv: given.append(argv) or 7, ""))
    assert cli.main([name, "--help", "sweep"]) == 7
    assert given == [["--help", "sweep"]]


@pytest.mark.parametrize(
    ("error", "status", "printed"),
    [
        (UserError("is\n  wrong", file="a.yaml", key="b.c"), 2, "focal-lab: a.yaml: b.c: is wrong\n"),
        (KeyboardInterrupt(), 130, ""),
        (
            PermissionError(13, "Permission denied", "runs/lock"),
            2,
            "focal-lab: runs/lock: Permission denied\n",
        ),
        (
            OSError(28, "No space left on device", "runs/x"),
            1,
            "focal-lab: runs/x: No space left on device; free disk space and run the command again\n",
        ),
    ],
)
def test_the_exit_status_says_how_a_subcommand_ended(
    error: BaseException,
    status: int,
    printed: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(argv: list[str]) -> int:
        raise error

    monkeypatch.setitem(cli.SUBCOMMANDS, "report", (fail, ""))
    assert cli.main(["report"]) == status
    assert capsys.readouterr().err == printed


def test_an_unexpected_error_is_one_line_and_a_log_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(argv: list[str]) -> int:
        raise ZeroDivisionError("a\n  b")

    monkeypatch.setitem(cli.SUBCOMMANDS, "report", (fail, ""))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert cli.main(["report"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    (log,) = tmp_path.iterdir()
    assert line.startswith(f"focal-lab: ZeroDivisionError: a b ({__file__}, line ")
    assert line.endswith(f"; the traceback is in {log} (FOCAL_LAB_DEBUG=1 prints it)")
    assert log.read_text().startswith("Traceback (most recent call last):")
    monkeypatch.setenv(cli.DEBUG_VARIABLE, "1")
    assert cli.main(["report"]) == 1
    assert capsys.readouterr().err.startswith("Traceback (most recent call last):")


def test_characters_that_an_output_lacks_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setitem(cli.SUBCOMMANDS, "report", (lambda argv: print("é ± \u2013 → 中"), ""))
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="latin-1"))
    cli.main(["report"])
    assert raw.getvalue().decode("latin-1") == "é ± - -> \\u4e2d\n"


@pytest.mark.parametrize(
    ("redirected", "status", "message"),
    [
        (">&- <&-", 0, ""),
        (
            ">/dev/full",
            1,
            "focal-lab: No space left on device; free disk space and run the command again\n",
        ),
    ],
)
def test_an_output_that_is_closed_or_full_is_no_traceback(redirected: str, status: int, message: str) -> None:
    code = (
        "import sys; from focal_lab import cli; cli.SUBCOMMANDS['report'] = "
        "(lambda argv: print('x', sys.stdout.isatty()) or 0, ''); sys.exit(cli.main(['report']))"
    )
    command = f'{sys.executable} -c "{code}" {redirected}'
    done = subprocess.run(command, shell=True, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (status, message)


def test_a_module_in_the_working_directory_hides_none_of_pythons(tmp_path: Path) -> None:
    for name in ("random", "types", "collections", "argparse", "codecs"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')\n")
    done = subprocess.run(
        [sys.executable, "-m", "focal_lab", "--version"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"focal-lab {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("plan", "nope"), "focal-lab: nope: there is no such sweep file"),
        (("report",), "focal-lab: runs: does not exist (train some: "),
        (("fit", "--config", "nope.yaml"), "focal-lab: config: File does not exist: "),
    ],
)
def test_a_users_mistake_is_one_line_on_stderr_and_status_2(
    arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    done = focal_lab(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(message)


def test_a_reader_that_leaves_early_is_no_error() -> None:
    code = (
        "import sys\nfrom focal_lab import cli\n"
        "def talk(argv):\n    while True: print('x' * 1000, flush=True)\n"
        "cli.SUBCOMMANDS['report'] = (talk, '')\nsys.exit(cli.main(['report']))"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout
    assert child.stderr
    child.stdout.readline()
    child.stdout.close()
    assert (child.wait(timeout=60), child.stderr.read()) == (0, b"")
    child.stderr.close()


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(argument: str) -> None:
    code = (
        "import sys\nimport focal_lab.cli\n"
        f"try:\n    focal_lab.cli.main(['{argument}'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        f"print('heavy:', [name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"


@pytest.mark.parametrize("name", list(cli.SUBCOMMANDS))
def test_the_help_of_a_command_shows_two_examples_that_it_accepts(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.SUBCOMMANDS[name][0](["--help"])
    printed = capsys.readouterr().out
    # some have a description after two spaces, or redirect the output
    examples = re.findall(rf"^  (focal-lab {name}\b.*?)(?:  .*| > .*)?$", printed, re.MULTILINE)
    assert len(examples) >= 2
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    of_a_run = tmp_path / "runs/3f2a91c04d7e/config.yaml"
    of_a_run.parent.mkdir(parents=True)
    shutil.copy(ROOT / "experiments/digits/classification.yaml", of_a_run)
    monkeypatch.chdir(tmp_path)
    parsed = _stop_after_parsing(monkeypatch)
    for example in examples:
        with pytest.raises(ParsedError):
            cli.SUBCOMMANDS[name][0](shlex.split(example)[2:])
    assert len(parsed) == len(examples)


class ParsedError(Exception):
    """A command line was accepted."""


def _stop_after_parsing(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Make parsers raise once they have accepted a command line; returns what they accepted."""
    from lightning.pytorch.cli import LightningCLI

    parsed: list[object] = []
    running: list[object] = []  # parsers call each other, and only the outermost call counts

    def stopping(parse: Any) -> Any:
        def parse_and_stop(self: Any, *args: Any, **kwargs: Any) -> Any:
            running.append(self)
            try:
                result = parse(self, *args, **kwargs)
            finally:
                running.pop()
            if running:
                return result
            parsed.append(self)
            raise ParsedError

        return parse_and_stop

    for name in ("parse_args", "parse_known_args", "parse_intermixed_args"):
        monkeypatch.setattr(CommandParser, name, stopping(getattr(CommandParser, name)))
    monkeypatch.setattr(LightningCLI, "parse_arguments", stopping(LightningCLI.parse_arguments))
    return parsed


def test_old_spellings_are_accepted_with_a_note(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parsed = _stop_after_parsing(monkeypatch)
    with pytest.raises(ParsedError):
        cli.SUBCOMMANDS["find-lr"][0](["--min_lr=1e-3", "--num_training", "50"])
    assert capsys.readouterr().err.splitlines() == [
        "focal-lab: --min_lr is now called --min-lr",
        "focal-lab: --num_training is now called --num-training",
    ]
    monkeypatch.chdir(ROOT)
    with pytest.raises(ParsedError):
        cli.fit(["--config", "experiments/digits/classification.yaml", "--dry_run"])
    assert "focal-lab: --dry_run is now called --dry-run\n" in capsys.readouterr().err
    assert len(parsed) == 2
    assert "RehearsalCLI" in [base.__name__ for base in type(parsed[1]).__mro__]


def test_public_names_are_imported_when_they_are_used() -> None:
    code = (
        "import sys, focal_lab\nassert not {'torch', 'numpy', 'typing_extensions'} & set(sys.modules)\n"
        "for name in focal_lab.__all__: getattr(focal_lab, name)\n"
        "from focal_lab import Classification, DigitsClassification\nprint(Classification.__module__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "focal_lab.tasks.classification.task\n"


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        (["profile", "focal_tny"], "focal_tiny"),
        (["profile", "swin_tny_patch4_window7_224"], "swin_tiny_patch4_window7_224"),
        (["profile", "focal_tiny", "--set", "windw_size=7"], "window_size"),
        (
            ["convert", "a.pth", "b.safetensors", "--model", "focal_tiny_patch4_window7_244"],
            "focal_tiny_patch4_wi",
        ),
        (["plan", "windw_size"], "window_size"),
        (["plan", "window_size", "--suite", "digts"], "digits"),
        (["plan", "window_size", "--set", "focal_pol=mean"], "focal_pool"),
        (["plan", "near.yaml"], "Focal-Tiny"),
    ],
)
def test_a_misspelt_name_gets_a_suggestion(
    arguments: list[str],
    suggestion: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("experiments", "sweeps"):
        (tmp_path / name).symlink_to(ROOT / name)
    sweep = (tmp_path / "sweeps/window_size.yaml").read_text(encoding="utf-8")
    (tmp_path / "near.yaml").write_text(sweep.replace("Focal-Tiny/7 >=", "Focal-Tny/7 >="), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    assert f"(did you mean {suggestion}" in capsys.readouterr().err
