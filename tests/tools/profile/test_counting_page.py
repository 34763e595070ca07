"""docs/counting.md: its table is what its commands print."""

import json
import re
import shlex
from typing import Any

import pytest
from support import ROOT

from focal_lab import cli

PAGE = (ROOT / "docs" / "counting.md").read_text(encoding="utf-8")
SWIN = "swin_tiny_patch4_window7_224"


def commands() -> list[list[str]]:
    """What follows `focal-lab profile` in each line of the page's one block of commands."""
    (block,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    return [shlex.split(line, comments=True)[2:] for line in block.splitlines()]


def rows() -> list[list[str]]:
    """The cells of the table of numbers, below its heading."""
    lines = PAGE[PAGE.index("| model | params (M) |") :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def difference(count: float, reference: str) -> str:
    percent = f"{100 * (count / float(reference) - 1):+.2f}"
    return f"{percent.lstrip('+-') if float(percent) == 0 else percent} %"


def test_the_table_is_what_the_commands_print(capsys: pytest.CaptureFixture[str]) -> None:
    counted: list[dict[str, Any]] = []
    for arguments in commands():
        assert cli.main(["profile", *arguments, "--no-measure", "--json"]) == 0
        models = json.loads(capsys.readouterr().out)
        if models[0]["name"] == SWIN:
            # timm's Swin and ours share a row
            keys = ("params", "gmacs", "activations")
            assert [models[0][key] for key in keys] == [models[1][key] for key in keys]
            models = models[1:]
        counted += models
    for (_, params, released, reference, off, gmacs, gmacs_reference, gmacs_off, activations), model in zip(
        rows(), counted, strict=True
    ):
        assert params == f"{model['params'] / 1e6:.2f}"
        assert released == f"{model['released_params'] / 1e6:.2f}"
        assert off == difference(model["released_params"] / 1e6, reference)
        assert gmacs == f"{model['gmacs']:.3f}"
        assert gmacs_off == difference(model["gmacs"], gmacs_reference)
        assert activations == f"{model['activations'] / 1e6:.2f}"
