"""What gives a run another id, and what does not."""

from typing import Any

import lightning.pytorch.callbacks  # noqa: F401  (with it, configurations are converted in this process)
import pytest
from support import ROOT
from support.small_project import DIGITS, write, write_sweep

from focal_lab.sweep.identity import identity_table
from focal_lab.sweep.identity.identity_table import LEFT_OUT, ONLY_WATCH
from focal_lab.sweep.plan.plan import make_plan
from focal_lab.utils.yaml import parse_yaml

pytestmark = pytest.mark.usefixtures("project")

STOP = "trainer.callbacks=[{class_path: EarlyStopping, init_args: {monitor: val/top1}}]"
CALLBACKS = "lightning.pytorch.callbacks"


def run_id(*overrides: str, **keys: Any) -> str:
    path = write_sweep(**{"factors": {"net": {"Focal": {"backbone": "focal_tiny"}}}, "seeds": 1} | keys)
    (run,) = make_plan(path, overrides=overrides).runs
    return run.id


@pytest.mark.parametrize(
    "setting",
    [
        'model.lr="0.003"',
        'model.lr="3e-3"',
        "model.lr=0.0030",
        'model.num_classes="10"',
        "model.mixup=0",
        "model.mixup=0.0",
        "model.weight_decay=0.05",
        "model.betas=[0.9, 0.999]",
        "model.ema_decay=null",
        "model.backbone_checkpoint=null",
        "model.backbone_options=null",
        "model.backbone_options={}",
        "model.backbone_options.window_size=7",
        "model.backbone_options.drop_rate=0.0",
        "model.backbone_options.mlp_ratio=4",
        "data.image_size=28",
        "data.seed=null",
        "data_seed=null",
        "order_seed=null",
        "init_seed=null",
        'trainer.max_epochs="2"',
        "trainer.max_steps=-1",
        "trainer.limit_val_batches=1.0",
        "trainer.callbacks=[]",
        "trainer.precision=32",
        "trainer.precision=32-true",
        "trainer.devices=1",
        'trainer.devices="1"',
        "trainer.devices=[0]",
        "trainer.strategy=ddp",
        "trainer.deterministic=false",
        "trainer.enable_checkpointing=true",
        "trainer.gradient_clip_val=0",
    ],
)
def test_a_value_written_otherwise_or_a_default_written_out_is_the_same_run(setting: str) -> None:
    assert run_id(setting) == run_id()


@pytest.mark.parametrize(
    "setting",
    [
        f"trainer.callbacks={{class_path: {CALLBACKS}.EarlyStopping, init_args: {{monitor: val/top1}}}}",
        f"trainer.callbacks=[{{class_path: {CALLBACKS}.early_stopping.EarlyStopping, "
        "init_args: {monitor: val/top1, patience: '3', min_delta: 0}}, {class_path: RichProgressBar}]",
    ],
)
def test_a_class_is_the_same_by_each_of_its_names(setting: str) -> None:
    assert run_id(setting) == run_id(STOP) != run_id()


PAGE = (ROOT / "docs/identity.md").read_text(encoding="utf-8")
# (key, whether it is identity, why)
_, *TABLE = [
    (key, identity == "yes", why)
    for key, identity, why in (line[2:-2].split(" | ") for line in PAGE.splitlines() if line.startswith("| "))
]
# key of a row -> settings that change it; each is another run, or none is
EXAMPLES = {
    "model.*, data.*": ["model.mixup=1", "model.frozen=1", "data.image_size=32", "model.lr=0.0031"],
    "backbone, backbone_options": ["focal_pool=mean", "window_size=14", "drop_path_rate=0.1"],
    "backbone_options.attention": ["attention=reference"],
    "data.root and other paths": ["data.root=elsewhere"],
    "trainer.*": ["trainer.gradient_clip_val=1", "trainer.accumulate_grad_batches=2", "trainer.max_steps=9"],
    "trainer.callbacks": [STOP, "trainer.callbacks=[{class_path: StochasticWeightAveraging, "
                          "init_args: {swa_lrs: 0.1}}]"],
    "trainer.callbacks: those that only watch": [
        "trainer.callbacks=[{class_path: LearningRateMonitor}, {class_path: DeviceStatsMonitor}]"
    ],
    "trainer.devices, trainer.num_nodes": ["trainer.devices=2", "trainer.num_nodes=2"],
    "trainer.accelerator": ["trainer.accelerator=cpu"],
    "trainer.strategy": ["trainer.strategy=fsdp"],
    "trainer.precision": ["trainer.precision=bf16-mixed"],
    "trainer.deterministic, trainer.benchmark": ["trainer.deterministic=true", "trainer.benchmark=true"],
    "trainer.limit_train_batches, ...": ["trainer.limit_train_batches=1", "trainer.limit_test_batches=0.5"],
    "trainer.logger": ["trainer.logger=false", "trainer.logger={class_path: CSVLogger}"],
    "trainer.profiler": ["trainer.profiler=simple"],
    "trainer.default_root_dir": ["trainer.default_root_dir=elsewhere"],
    "trainer.model_registry": ["trainer.model_registry=elsewhere"],
}  # fmt: skip
# those of which other tests change something
ELSEWHERE = {
    "seed_everything",  # test_runs
    "model.class_path, data.class_path",  # test_runs
    "model.backbone_checkpoint",  # below
    "the user's own code",  # test_user_code
    "the run whose backbone this one starts from",  # test_plan
    "focal_lab's code, versions, hardware",  # nothing of them is in an identity
}


@pytest.mark.parametrize(("key", "counts"), [row[:2] for row in TABLE if row[0] not in ELSEWHERE])
def test_each_row_of_the_table_in_the_docs_is_true(key: str, counts: bool) -> None:
    name = key.partition(".")[2]
    settings = EXAMPLES.get(key) or [
        f"{key}={value}"
        for value in ((1, 3) if name in ("num_workers", "prefetch_factor") else ("false", "true"))
    ]
    for setting in settings:
        assert (run_id(setting) != run_id()) == counts, setting


def test_the_table_in_the_docs_lists_all_that_is_left_out() -> None:
    left_out = {f"{section}.{name}" for section, names in LEFT_OUT.items() for name in names}
    assert {key for key, counts, _ in TABLE if not counts} == left_out | {
        "trainer.callbacks: those that only watch",
        "focal_lab's code, versions, hardware",
    }
    assert all(name.rpartition(".")[2] in PAGE for name in ONLY_WATCH)


def test_a_folder_is_the_same_however_its_path_is_written() -> None:
    there = run_id("data.root=some/where")
    for path in ("./some/where", "some/where/", "some//where", "some/./where"):
        assert run_id(f"data.root={path}") == there
    assert run_id("data.root=/some/where") != there


def test_a_checkpoint_counts_by_its_content() -> None:
    def starting_from(name: str, content: str) -> str:
        write(name, content)
        return run_id(f"model.backbone_checkpoint={name}")

    first = starting_from("a.ckpt", "weights")
    assert starting_from("b.ckpt", "weights") == first != run_id()
    assert starting_from("a.ckpt", "others") != first


def test_an_option_that_is_added_or_renamed_keeps_the_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    before, other = run_id(), run_id("model.mixup=0.5")
    monkeypatch.setitem(identity_table.ADDED_OPTIONS, ("Classification", "mixup"), 0.0)
    with_it_added = run_id()
    assert with_it_added not in (before, run_id("model.mixup=0.5"))
    assert run_id("model.mixup=0.5") == other
    monkeypatch.delitem(identity_table.ADDED_OPTIONS, ("Classification", "mixup"))
    monkeypatch.setitem(identity_table.RENAMED_OPTIONS, ("Classification", "mixup"), "cutmix")
    monkeypatch.setitem(identity_table.RENAMED_OPTIONS, ("Classification", "cutmix"), "mixup")
    assert run_id("model.cutmix=0.5") == other


def test_the_experiment_may_write_numbers_as_text() -> None:
    before = run_id()
    write("experiments/digits/classification.yaml", DIGITS.replace("lr: 3e-3", "lr: '0.003'"))
    assert parse_yaml("a: '0.003'", "")["a"] == "0.003"
    assert run_id() == before


def test_the_key_1_is_not_the_key_of_that_name() -> None:
    def named(keys: str) -> str:
        return run_id(f"data.weights={keys}")

    assert len({named(keys) for keys in ("{1: 2}", "{'1': 2}", "{1.0: 2}", "{true: 2}", "{1: 2, a: 3}")}) == 5
