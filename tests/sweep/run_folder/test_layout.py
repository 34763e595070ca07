"""Which checkpoints of a finished run stay."""

from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from focal_lab.sweep.run_folder.layout import checkpoints_to_prune, kept_kinds, prune_checkpoints


@pytest.mark.parametrize(
    ("text", "kinds"), [("best", {"best"}), ("last,best", {"best", "last"}), ("none", set())]
)
def test_what_to_keep_is_a_list_of_kinds(text: str, kinds: set[str]) -> None:
    assert kept_kinds(text) == kinds


@pytest.mark.parametrize("text", ["", "all", "best,", "best last", "none,best"])
def test_other_kinds_are_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is unknown"):
        kept_kinds(text)


def test_checkpoints_beyond_what_is_kept_go(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for kind in ("best", "last", "stopped"):
        (folder / f"{kind}.ckpt").write_bytes(bytes(10))
    assert prune_checkpoints(tmp_path, {"best", "last"}) == 10
    assert prune_checkpoints(tmp_path, {"best"}) == 10
    assert [path.name for path in folder.iterdir()] == ["best.ckpt"]


def test_what_an_interrupted_attempt_left_goes_even_where_all_is_kept(tmp_path: Path) -> None:
    stopped = tmp_path / "checkpoints" / "stopped.ckpt"
    stopped.parent.mkdir()
    stopped.write_bytes(bytes(10))
    assert checkpoints_to_prune(tmp_path, {"best", "last"}) == [stopped]


def test_a_run_without_checkpoints_has_none_to_prune(tmp_path: Path) -> None:
    assert prune_checkpoints(tmp_path, frozenset()) == 0
