"""1 is one batch and 1.0 is all of them, in whatever order a process met `int | float` first."""

import subprocess
import sys
from typing import Any, Union

import pytest

from focal_lab.sweep.worker.convert_values import convert_all

# typing keeps what is made first: these are the types that jsonargparse saw in the failing process
FLOAT_FIRST: Any = type(Union[float, int])(Union, (float, int, type(None)))  # noqa: UP007


class Limits:
    """A class with options that are a count or a share."""

    def __init__(self, batches: FLOAT_FIRST = None, several: list[FLOAT_FIRST] | None = None) -> None: ...


@pytest.mark.parametrize("value", [1, 1.0, "1", "1.0", 0.5, "1e0"])
def test_a_count_stays_a_count_and_a_share_a_share(value: Any) -> None:
    owner = f"{__name__}.Limits"
    _, answers = convert_all([owner], [(owner, "batches", value), (owner, "several", [value])])
    expected = float(value) if "." in str(value) or "e" in str(value) else int(value)
    for answer in answers:
        found = answer[0] if answer else None
        found = found[0] if isinstance(found, list) else found
        assert (type(found), found) == (type(expected), expected)


@pytest.mark.parametrize(
    "module", ["focal_lab.training.lightning_cli", "focal_lab.sweep.worker.convert_values"]
)
def test_whoever_trains_and_whoever_names_runs_read_it_alike(module: str) -> None:
    program = (
        "from typing import Union\n"
        "kind = type(Union[int, str])(Union, (float, int))\n"
        f"import {module}, jsonargparse\n"
        "parser = jsonargparse.ArgumentParser()\n"
        "parser.add_argument('--limit', type=kind)\n"
        "print(parser.parse_args(['--limit=1']).limit)\n"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).split()[-1] == "1"
