from pathlib import Path

import pytest
from support.tiny_task import tiny_config, write_config

from focal_lab import cli
from focal_lab.training.help import _ALL, _PAGES
from focal_lab.training.lightning_cli import FocalCLI

FIT = ["--config", "tiny.yaml"]


@pytest.fixture(autouse=True)
def experiment() -> Path:
    """A tiny experiment in the working folder."""
    return write_config(Path("tiny.yaml"), tiny_config())


@pytest.mark.parametrize("argument", ["--help-all", "--print_config"])
def test_all_options_and_the_whole_configuration_are_printed(
    argument: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["fit", *FIT, argument])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert "trainer" in printed
    assert "ckpt_path" in printed
    assert "detect_anomaly" in printed


@pytest.mark.parametrize("subcommand", ["fit", "validate", "test"])
def test_help_is_a_short_page_with_examples(subcommand: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([subcommand, *FIT, "--help"])
    assert caught.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 40
    assert max(map(len, lines)) <= 110
    assert sum(line.startswith(f"  focal-lab {subcommand} --config ") for line in lines) == 2
    options = [line.split()[0].rstrip(",") for line in lines if line.startswith("  -")]
    assert {"--ckpt_path", "--help-all", "--print_config"} <= set(options)


def test_every_option_of_the_short_page_is_one_that_fit_accepts() -> None:
    page = _PAGES["fit"].partition("options:")[2] + _ALL
    named = {word for word in page.split() if word.startswith("--") and "backbone_options" not in word}
    ours = {"--dry-run", "--help-all", "--config"}
    made = FocalCLI([*FIT, "--model.backbone_options.window_size=7"], run=False)
    known = {f"--{name}" for name in list(made.parser.get_defaults().keys())}
    known |= {f"--model.{name}" for name in (*made.model.hparams, "help")}
    known |= {f"--data.{name}" for name in ("root", "batch_size", "help")}
    assert named - ours - {"--ckpt_path", "--help", "--print_config"} <= known


def test_the_old_spelling_of_dry_run_works_with_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fit", *FIT, "--dry_run", "--trainer.max_epochs=1"]) == 0
    printed = capsys.readouterr()
    assert "--dry_run is now called --dry-run" in printed.err
    assert "optimizer step" in printed.out
    assert not Path("lightning_logs").exists()
