"""Run IDs are frozen: finished runs are found by them.

When this fails, something in a configuration, a default or the identity itself has changed. If that
was not on purpose, mend it. Else:
- a class or option of ours is renamed, moved or added: enter it in `identity_table` (RENAMED_CLASSES,
  RENAMED_OPTIONS, MOVED_CLASSES, ADDED_OPTIONS), and the ids stay;
- a bundled experiment, sweep or default trains something else now: write the new id here;
- the code computes something else for the same configuration: raise `identity.IDENTITY_VERSION`, write all
  ids anew, and say in the changelog that everything is trained again.
"""

from pathlib import Path

import lightning.pytorch.callbacks  # noqa: F401  (with it, configurations are converted in this process)
import pytest
from support import ROOT

from focal_lab.sweep.plan.plan import make_plan, probe_plan

STOP = "trainer.callbacks=[{class_path: EarlyStopping, init_args: {monitor: val/top1, patience: 5}}]"
RUNS = {
    ("border",): "fed0c17f188b",
    ("classification",): "70dbbebe1f64",
    ("coarse_bias",): "fed0c17f188b",
    ("depth",): "70dbbebe1f64",
    ("detection",): "70dbbebe1f64 fec34fc06f10",
    ("downsample",): "70dbbebe1f64",
    ("focal_levels",): "005c0507ac04",
    ("interactions",): "d3747ba77cd7",
    ("learning_rate",): "ed4e50c01875",
    ("pooled_tokens",): "fed0c17f188b",
    ("segmentation",): "70dbbebe1f64 826cb619d6bf",
    ("variance",): "31bfed337c81",
    ("window_shift",): "89258d13cbab",
    ("window_size",): "70dbbebe1f64",
    ("window_size", "model.lr=0.1", "data.batch_size=32"): "0d0f2be7d328",
    ("window_size", "drop_path_rate=0.1", "attention=reference"): "4c0f8748b067",
    ("window_size", "trainer.limit_train_batches=1"): "f797b5ed615c",
    ("window_size", "trainer.limit_train_batches=0.5", "trainer.precision=bf16"): "3725ebac46b2",
    ("window_size", "trainer.devices=2", "trainer.strategy=ddp"): "3e10a15f52cb",
    ("window_size", STOP): "189a1c5eb76e",
    ("depth", "model.backbone_options.drop_rate=0.1", "model.ema_decay=0.99"): "549384a62144",
}


def test_every_bundled_sweep_is_in_the_table() -> None:
    assert {sweep for sweep, *_ in RUNS} == {path.stem for path in ROOT.glob("sweeps/*.yaml")}


@pytest.mark.parametrize("asked", RUNS, ids=" ".join)
def test_the_id_of_each_tasks_first_run_stays(
    asked: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    sweep, *overrides = asked
    plan = probe_plan(make_plan(Path(f"sweeps/{sweep}.yaml"), overrides=overrides))
    first = {run.task: run.id for run in reversed(plan.runs)}
    assert " ".join(first[task] for task in plan.sweep.tasks) == RUNS[asked]
