"""A result is written once, whoever else tries: processes that race for it, with hard links and without."""

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.finished_runs import finish

from focal_lab.sweep.run_folder.result import read_result, write_result_once

_ROUNDS = 20
_WRITERS = 3

# Each writer has its own value for the metric; a round begins for all of them with a line on stdin.
_WRITER = """
import os, sys, time
from dataclasses import replace
from pathlib import Path
from focal_lab.sweep.run_folder.result import read_result, write_result_once
first = read_result(Path("runs/model0"))
if sys.argv[2] == "no links":
    def link(*_):
        raise PermissionError(1, "Operation not permitted")  # as vfat says
    exists = Path.exists
    def slow(path, **kwargs):
        there = exists(path, **kwargs)
        time.sleep(0.002)
        return there
    os.link, Path.exists = link, slow
print(flush=True)
for line in sys.stdin:
    run = line.strip()
    mine = replace(first, run=run, metrics={"top1": float(sys.argv[1])})
    print(int(write_result_once(Path("runs") / run, mine)), flush=True)
"""


@pytest.mark.parametrize("links", ["links", "no links"])
def test_of_writers_that_race_one_is_first_and_its_result_stays(out: Path, links: str) -> None:
    finish(out, "model0")
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(number), links],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(_WRITERS)
    ]
    assert all(_hears(writer) == "" for writer in writers)
    for number in range(_ROUNDS):
        run = f"raced{number}"
        (out / run).mkdir()
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write(f"{run}\n")
            writer.stdin.flush()
        first = [number for number, writer in enumerate(writers) if _hears(writer) == "1"]
        assert len(first) == 1
        result = read_result(out / run)
        assert result is not None
        assert result.metrics == {"top1": first[0]}
        left = [name for name in os.listdir(out / run) if not name.endswith(".lock")]
        assert left == ["result.json"]
    for writer in writers:
        writer.communicate(timeout=20)
        assert writer.returncode == 0


def test_a_link_that_was_made_though_the_server_did_not_say_so_counts(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS repeats a request whose answer was lost, and then hears that the name exists."""
    result = finish(out, "model0")
    make = os.link

    def repeated(source: Path, target: Path) -> None:
        make(source, target)
        make(source, target)

    monkeypatch.setattr(os, "link", repeated)
    assert write_result_once(out / "run0", replace(result, run="run0"))
    assert os.listdir(out / "run0") == ["result.json"]


def test_a_full_disk_writes_no_result_and_leaves_nothing(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = finish(out, "model0")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_result_once(out / "run0", replace(result, run="run0"))
    assert os.listdir(out / "run0") == []


def _hears(writer: "subprocess.Popen[str]") -> str:
    assert writer.stdout is not None
    return writer.stdout.readline().strip()
