"""Which options are part of a run's identity, and how their values are normalised.

The table in docs/identity.md lists them: everything that can change a result is identity; how a run is
watched, where it runs, and what prepares the same batches faster is not. A change of the code that changes
what a configuration computes must raise `IDENTITY_VERSION`; renamed classes and options are entered below,
so that finished runs keep their IDs.
"""

import os
from collections.abc import Mapping
from typing import Any

# Renamed classes of ours: new -> old name. Their modules do not count.
RENAMED_CLASSES: dict[str, str] = {}
# Renamed options: (old name of the class, option) -> old option.
RENAMED_OPTIONS: dict[tuple[str, str], str] = {
    (f"Digits{task}", f"num_{split}_images"): f"{split}_pictures"
    for task in ("Classification", "Detection", "Segmentation")
    for split in ("train", "val", "test")
}
# Options that a class of ours and those derived from it gained: (class, option) -> the value that means what
# the class did before.
ADDED_OPTIONS: dict[tuple[str, str], Any] = {
    ("Task", "init_seed"): None,
    ("EmbeddedData", "data_seed"): None,
    ("EmbeddedData", "order_seed"): None,
    ("ClassificationDataModule", "order_seed"): None,
    ("LabelledFoldersDataModule", "order_seed"): None,
}
# Moved classes of ours, for configurations of older results: old -> new dotted path.
MOVED_CLASSES: dict[str, str] = {}

# Dotted paths of our classes as the names of studies have them: new -> old.
OLD_PATHS: dict[str, str] = {
    f"focal_lab.{new}": f"focal_lab.{old}"
    for new, old in {
        "tasks.Classification": "tasks.classification.Classification",
        "tasks.Detection": "tasks.detection.Detection",
        "tasks.Segmentation": "tasks.segmentation.Segmentation",
        "training.PeriodicCheckpoint": "tasks.checkpoint_io.PeriodicCheckpoint",
        "data.Ade20kDataModule": "data.segmentation_folder.Ade20kDataModule",
        "data.CifarDataModule": "data.cifar.CifarDataModule",
        "data.CocoDataModule": "data.coco.CocoDataModule",
        "data.DigitsClassification": "data.digits.DigitsClassification",
        "data.DigitsDetection": "data.digits_detection.DigitsDetection",
        "data.DigitsSegmentation": "data.digits_segmentation.DigitsSegmentation",
        "data.FashionMnistDataModule": "data.fashion_mnist.FashionMnistDataModule",
        "data.ImageFolderDataModule": "data.image_folder.ImageFolderDataModule",
        "data.SegmentationFolder": "data.segmentation_folder.SegmentationFolder",
    }.items()
}
_OLD_OPTIONS = {new: old for (_, new), old in RENAMED_OPTIONS.items()}

# Options of each section that are not identity; docs/identity.md says why.
LEFT_OUT = {
    "data": frozenset({"num_workers", "persistent_workers", "pin_memory", "prefetch_factor"}),
    "trainer": frozenset(
        {
            "accelerator",
            "default_root_dir",
            "detect_anomaly",
            "enable_autolog_hparams",
            "enable_model_summary",
            "enable_progress_bar",
            "limit_predict_batches",
            "log_every_n_steps",
            "logger",
            "model_registry",
            "num_sanity_val_steps",
            "profiler",
        }
    ),
}
_CALLBACKS = "lightning.pytorch.callbacks"
ONLY_WATCH = frozenset(
    {
        f"{_CALLBACKS}.lr_monitor.LearningRateMonitor",
        f"{_CALLBACKS}.device_stats_monitor.DeviceStatsMonitor",
        f"{_CALLBACKS}.throughput_monitor.ThroughputMonitor",
        f"{_CALLBACKS}.on_exception_checkpoint.OnExceptionCheckpoint",
        f"{_CALLBACKS}.model_summary.ModelSummary",
        f"{_CALLBACKS}.rich_model_summary.RichModelSummary",
        f"{_CALLBACKS}.progress.progress_bar.ProgressBar",
        f"{_CALLBACKS}.progress.tqdm_progress.TQDMProgressBar",
        f"{_CALLBACKS}.progress.rich_progress.RichProgressBar",
        "PeriodicCheckpoint",
    }
)
_PRECISIONS = {"16": "16-mixed", "bf16": "bf16-mixed", "32": None, "32-true": None, "64": "64-true"}
# values that mean the same as Lightning's default
_MEANS_DEFAULT: dict[str, Any] = {
    "limit_train_batches": 1.0,
    "limit_val_batches": 1.0,
    "limit_test_batches": 1.0,
    "val_check_interval": 1.0,
    "gradient_clip_val": 0,
    "gradient_clip_algorithm": "norm",
    "enable_checkpointing": True,
    "deterministic": False,
    "benchmark": False,
    "callbacks": [],
    "plugins": [],
    "overfit_batches": 0,
}


# options of a focal backbone, with defaults, besides those of FocalOptions
RATES: dict[str, Any] = {"global_pool": "avg", "drop_rate": 0, "proj_drop_rate": 0, "attn_drop_rate": 0}


def is_ours(thing: Any) -> bool:
    """Whether a class or function is focal_lab's."""
    return str(thing.__module__).partition(".")[0] == "focal_lab"


def stable_name(thing: Any) -> str:
    """Name of a class or function in identities: without its module if it is ours."""
    if is_ours(thing):
        name = str(thing.__qualname__)
        return RENAMED_CLASSES.get(name, name)
    return f"{thing.__module__}.{thing.__qualname__}"


def normal_options(info: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Converted options of a class as identities have them.

    A class of ours has all of its options, so that a changed default is another run. Other classes have those
    that differ from the defaults, because other versions have other options.

    Args:
        info: description of the class, see `worker.convert_values`.
        given: its converted options.
    """
    defaults = info["defaults"]

    old = {option: name for (base, option), name in RENAMED_OPTIONS.items() if base in info["bases"]}
    if not info["ours"]:
        return {
            old.get(key, key): value
            for key, value in given.items()
            if key not in defaults or not same(value, defaults[key])
        }
    added = {option: value for (base, option), value in ADDED_OPTIONS.items() if base in info["bases"]}
    return {
        old.get(key, key): value
        for key, value in {**defaults, **given}.items()
        if not (key in added and same(value, added[key]))
    }


def normal_path(option: str, value: Any) -> Any:
    """The value of an option, normalised if it names a folder or file."""
    named = option == "root" or option.endswith(("_images", "_annotations", "_masks", "_folder", "_dir"))
    return os.path.normpath(value) if named and isinstance(value, str) and value else value


def text_keys(value: Any) -> Any:
    """A value with strings for keys, as JSON needs them: the keys 1 and "1" stay different."""
    if isinstance(value, Mapping):
        return {
            key if isinstance(key, str) else f"{type(key).__name__} {key!r}": text_keys(part)
            for key, part in value.items()
        }
    return [text_keys(part) for part in value] if isinstance(value, list | tuple) else value


def old_names(value: Any) -> Any:
    """Plain values with the names that classes and options had before they were renamed."""
    if isinstance(value, Mapping):
        return {_old_key(key): old_names(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [old_names(part) for part in value]
    return OLD_PATHS.get(value, value) if isinstance(value, str) else value


def _old_key(key: Any) -> Any:
    if not isinstance(key, str):
        return key
    section, dot, option = key.rpartition(".")
    return f"{section}{dot}{_OLD_OPTIONS.get(option, option)}"


def same(one: Any, other: Any) -> bool:
    """Whether values are equal and of the same type: 1, 1.0 and true differ."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    return type(one) is type(other) and bool(one == other)


def normal_trainer(options: Mapping[str, Any]) -> dict[str, Any]:
    """Converted options of the trainer, with one value for those that mean the same."""
    normal = {key: _normal(key, value) for key, value in options.items() if key not in LEFT_OUT["trainer"]}
    return {
        key: value
        for key, value in normal.items()
        if value is not None and not (key in _MEANS_DEFAULT and _equal(key, value, _MEANS_DEFAULT[key]))
    }


def _equal(key: str, value: Any, default: Any) -> bool:
    if key in ("gradient_clip_val", "overfit_batches"):
        return not isinstance(value, bool) and bool(value == default)
    return same(value, default)


def _normal(key: str, value: Any) -> Any:
    if key == "precision":
        return _PRECISIONS.get(str(value), value)
    if key == "strategy":
        return None if isinstance(value, str) and (value == "auto" or value.startswith("ddp")) else value
    if key == "devices":
        return _devices(value)
    if key == "gradient_clip_val" and type(value) is int:
        return float(value)
    if key == "callbacks":
        callbacks = value if isinstance(value, list) else [value]
        return [
            one
            for one in callbacks
            if one is not None and not (isinstance(one, Mapping) and one.get("class_path") in ONLY_WATCH)
        ]
    return value


def _devices(value: Any) -> Any:
    """The number of devices; None for one, which is the default and `auto` in a sweep."""
    if isinstance(value, str) and "," in value:
        value = [part for part in value.split(",") if part.strip()]
    if isinstance(value, list):
        value = len(value)
    elif isinstance(value, str) and value.strip().isdigit():
        value = int(value)
    return None if value in ("auto", 1) and value is not True else value
