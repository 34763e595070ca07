"""Runs that were finished under the ids of an earlier version are found, under the names they have."""

import os
from pathlib import Path
from typing import Any

import lightning.pytorch.cli  # noqa: F401  (with it, configurations are converted in this process)
import pytest
from support.finished_runs import finish
from support.small_project import write, write_sweep

from focal_lab.errors import UserError
from focal_lab.sweep.housekeeping.inventory import read_needs
from focal_lab.sweep.plan.manifest import Manifest, read_manifest, write_manifest
from focal_lab.sweep.plan.plan import Plan, make_plan
from focal_lab.sweep.plan.runs import Run

pytestmark = pytest.mark.usefixtures("project")

OUT = Path("runs")
TASKS = ["classification", "detection"]


def plan(**keys: Any) -> Plan:
    return make_plan(write_sweep(**{"factors": {"window_size": [7]}, "seeds": 1} | keys), out=OUT)


def finish_earlier(name: str, run: Run, needs: str | None = None, **changes: Any) -> None:
    """A result as version 1 of identities left it."""
    identity = {"version": 1, "network": run.identity["network"]} | ({"needs": needs} if needs else {})
    values = {"task": run.task, "seed": run.seed, "config": run.config, "identity": identity}
    finish(OUT, name, **(values | changes))


def test_a_finished_run_is_reused_under_its_earlier_name() -> None:
    (run,) = plan().runs
    options = run.config["model"]["init_args"] | {"lr": "3e-3", "mixup": 0}
    finish_earlier(
        "0123456789ab", run, config=run.config | {"model": run.config["model"] | {"init_args": options}}
    )
    (found,) = plan().runs
    assert (found.id, found.identity) == ("0123456789ab", run.identity)
    assert plan(set={"model.lr": 0.1}).runs[0].id not in ("0123456789ab", run.id)
    finish(OUT, run.id, seed=0, identity=run.identity)
    assert plan().runs[0].id == run.id


def test_of_several_the_one_that_finished_first_is_reused() -> None:
    (run,) = plan().runs
    for name, day in (("aa", 3), ("bb", 2), ("cc", 4)):
        finish_earlier(name, run, finished=f"2026-01-0{day}T10:00:00")
    assert plan().runs[0].id == "bb"


def test_a_chain_is_recognised_by_what_it_starts_from() -> None:
    first, second = plan(tasks=TASKS).runs
    finish_earlier("parent", first)
    finish_earlier("child", second, needs="parent")
    finish_earlier("orphan", second, needs="removed", finished="2025-01-01T10:00:00")
    found = plan(tasks=TASKS).runs
    assert [(run.id, run.needs) for run in found] == [("parent", None), ("child", "parent")]
    assert found[1].identity["needs"] == first.id
    # what is missing is trained under an id of its own, from the checkpoint where it is
    missing = plan(tasks=TASKS, set={"detection.model.lr": 0.1}).runs[1]
    assert missing.needs == "parent"
    assert missing.identity["needs"] == first.id
    manifest = Manifest("small-digits-1", "small", "digits", "", found)
    write_manifest(OUT, manifest)
    assert [run.config_hash for run in read_manifest(OUT / "plans/small-digits-1.json").runs] == [
        run.config_hash for run in found
    ]


def test_a_run_of_own_code_that_was_edited_since_is_not_reused() -> None:
    write("mine.py", "from focal_lab.data.digits.classification import DigitsClassification as Data\n")
    keys = {"set": {"data.class_path": "mine.Data"}}
    (run,) = plan(**keys).runs
    assert list(run.identity["code"]) == ["mine"]
    finish_earlier("0123456789ab", run, started="2026-01-02T10:00:00+00:00")
    assert plan(**keys).runs[0].id == run.id
    os.utime("mine.py", (0, 0))
    assert plan(**keys).runs[0].id == "0123456789ab"


def test_plans_of_earlier_versions_say_who_needs_what_and_are_not_trained() -> None:
    found = plan()
    write_manifest(OUT, Manifest("small-digits-1", "small", "digits", "", found.runs))
    path = OUT / "plans/small-digits-1.json"
    path.write_text(path.read_text().replace('"identity_version":2', '"identity_version":1'))
    write("runs/sweeps/small.json", '{"study": "small-digits-1"}')
    needs = read_needs(OUT)
    assert needs.sweeps == {found.runs[0].id: ["small"]}
    assert needs.doubts == []
    with pytest.raises(
        UserError, match=r"was written by focal-lab .*, which this version .* cannot continue"
    ):
        read_manifest(path)
