"""A trained task behind what the user named: a checkpoint's file, a run's folder or a run's id.

For any backbone and all three tasks. Nothing in a checkpoint is executed.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from torch import Tensor

from focal_lab.backbones.options import Size
from focal_lab.data.option_names import current_options
from focal_lab.errors import UserError
from focal_lab.sweep.housekeeping.inventory import find_runs
from focal_lab.sweep.run_folder.layout import BEST_CHECKPOINT, CHECKPOINTS, CONFIG_FILE, LAST_CHECKPOINT
from focal_lab.tasks.base import EVALUATED_AT, Task
from focal_lab.tasks.class_names import Classes
from focal_lab.tasks.classification.task import Classification
from focal_lab.tasks.detection.task import Detection
from focal_lab.tasks.evaluation_size import evaluation_size
from focal_lab.tasks.segmentation.task import Segmentation
from focal_lab.tools.trained.preprocessing import Preprocessing, own_size, preprocessing_of
from focal_lab.training.checkpoints.read import AVERAGE, read_weights
from focal_lab.utils.yaml import load_yaml

RAW, EMA = "raw", "ema"
WEIGHTS = (RAW, EMA)
_TASKS: tuple[type[Task], ...] = (Classification, Detection, Segmentation)
_LIGHTNING = "pytorch-lightning_version"
_OURS = "focal_lab."
_CLASSES = "focal_lab_classes"
_AVERAGED, _NETWORK = "ema.", "model."
# Pictures that are read together: a few are wanted, and a batch of training can be hundreds.
_AT_ONCE = 8


@dataclass(frozen=True)
class Trained:
    """A task with the weights of a checkpoint.

    Attributes:
        module: the task, in evaluation mode; its classes are those of the training.
        options: its hyperparameters.
        state: all that the checkpoint holds, tensors mapped from the file.
        file: the checkpoint.
        run: folder of the run that it belongs to; None where it is no run's.
        data: what it was judged by, not yet set up.
        trouble: why there is no data, where there is none.
        weights: whether the module has the trained weights, "raw", or their moving average, "ema".
    """

    module: Task
    options: dict[str, Any]
    state: Mapping[str, Any]
    file: Path
    run: Path | None
    data: LightningDataModule | None
    trouble: str | None
    weights: str = RAW

    @property
    def task(self) -> str:
        """classification, detection or segmentation."""
        return type(self.module).__name__.lower()

    @property
    def name(self) -> str:
        """What to call it in one short word: the run's id, or the file's name."""
        return self.file.stem if self.run is None else self.run.name

    @property
    def channels(self) -> int:
        """Of the pictures that the network takes."""
        return int((self.options.get("backbone_options") or {}).get("in_chans", 3))

    @property
    def size(self) -> Size:
        """Height and width in px that its evaluation feeds to the network, as the checkpoint notes."""
        noted = self.state.get(EVALUATED_AT)
        if noted is not None:
            height, width = noted
            return height, width
        return evaluation_size(self.module, self.data).size

    def preprocessing(self) -> Preprocessing:
        """What its evaluation does to pictures; detection and segmentation are shown them as they are.

        Raises:
            UserError: the data does not say.
        """
        if not isinstance(self.module, Classification):
            return own_size(self.data)
        cfg = getattr(self.module.model, "pretrained_cfg", None) or {}
        try:
            return preprocessing_of(self.data, self.size, cfg.get("crop_pct") or 0.875)
        except UserError as error:
            raise UserError(str(error), file=self.file) from error


def open_trained(name: str, out: Path, weights: str = RAW) -> Trained:
    """The task behind what the user named.

    Args:
        name: a file, a run's folder or id.
        out: folder of the runs.
        weights: "raw", or "ema" for the moving average that the training kept.

    Raises:
        UserError: there is no such thing, it is damaged or holds weights alone, its weights are of another
            network than its options say, or it has no moving average.
    """
    file, run = find_checkpoint(name, out)
    state = lightning_state(file)
    if state is None:
        raise UserError(
            "holds weights alone and does not say of which task (name a checkpoint that focal-lab fit wrote, "
            "such as checkpoints/best.ckpt of a run)",
            file=file,
        )
    kind = task_of(state)
    if kind is None:
        raise UserError("is no checkpoint of our tasks (name one that focal-lab fit wrote)", file=file)
    return build_trained(kind, state, file, run, weights)


def find_checkpoint(name: str, out: Path) -> tuple[Path, Path | None]:
    """The file that a path, or a run's folder or id, means, and the run's folder; None where it is no run's.

    Raises:
        UserError: there is no such thing.
    """
    path = Path(name)
    if path.is_file():
        run = path.parent.parent if path.parent.name == CHECKPOINTS else None
        return path, run if run is not None and (run / CONFIG_FILE).is_file() else None
    if not path.is_dir():
        if path.exists() or os.sep in name or path.suffix or not out.is_dir():
            raise UserError(
                "is not a file" if path.exists() else "there is no such file or folder", file=path
            )
        (path,) = find_runs(out, [name])
    for checkpoint in (BEST_CHECKPOINT, LAST_CHECKPOINT):
        if (path / checkpoint).is_file():
            return path / checkpoint, path
    raise UserError(
        f"has no {CHECKPOINTS}/best.ckpt or last.ckpt (name a run that has been trained, or the file)",
        file=path,
    )


def lightning_state(file: Path) -> dict[str, Any] | None:
    """What Lightning wrote there; None for a file of weights.

    Raises:
        UserError: the file is damaged.
    """
    if file.suffix == ".safetensors":
        return None
    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception:
        # older files of weights cannot be mapped; whoever reads them tells what is wrong with this one
        read_weights(file)
        return None
    return state if isinstance(state, dict) and {_LIGHTNING, "state_dict"} <= state.keys() else None


def task_of(state: Mapping[str, Any]) -> type[Task] | None:
    """Which of our tasks a checkpoint is of."""
    known: Mapping[str, Any] = state.get("hyper_parameters", {})
    path = known.get("_class_path")
    for kind in _TASKS:
        if path == f"{kind.__module__}.{kind.__qualname__}":
            return kind
    if path is not None or "backbone" not in known:
        return None
    # trained by a Trainer of the user's own: told by the options that only one task has
    if "method" in known:
        return Detection
    return Segmentation if "decoder" in known else Classification


def build_trained(
    kind: type[Task], state: Mapping[str, Any], file: Path, run: Path | None, weights: str = RAW
) -> Trained:
    """Make the task and give it the checkpoint's weights.

    Raises:
        UserError: the weights are of another network than the options say, or there is no moving average.
    """
    options = {key: value for key, value in state["hyper_parameters"].items() if not key.startswith("_")}
    made = options | ({"backbone_checkpoint": None} if "backbone_checkpoint" in options else {})
    try:
        module = kind(**made)
    except (TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"does not fit this version of focal-lab: {reason}", file=file) from error
    except UserError as error:
        raise UserError(f"its options make no network: {error}", file=file) from error
    values = _chosen(state["state_dict"], weights, file)
    _check_fits(values, module, file)
    # the average is the same network a second time, and is not needed beside the weights that were chosen
    module.load_state_dict(values, strict=False)
    module.classes = Classes(**state.get(_CLASSES, {}))
    data, trouble = data_of(state, run)
    return Trained(module.eval(), options, state, file, run, data, trouble, weights)


def data_of(state: Mapping[str, Any], run: Path | None) -> tuple[LightningDataModule | None, str | None]:
    """The run's data module, not yet set up, and why there is none.

    Nothing in a checkpoint is run: classes that are not ours are only taken from the run's own configuration,
    as `focal-lab test --config` would take them.
    """
    noted = dict(state.get("datamodule_hyper_parameters", {}))
    path = str(noted.pop("_class_path", ""))
    options = {key: value for key, value in noted.items() if not key.startswith("_")}
    if not path.startswith(_OURS) and run is not None:
        configured = load_yaml(run / CONFIG_FILE).get("data") or {}
        path, options = str(configured.get("class_path", "")), dict(configured.get("init_args") or {})
    elif not path.startswith(_OURS):
        return None, "does not say which of our data it was judged by"
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(import_module(module), name)
        options = current_options(options, path)
        # pictures are looked at one by one, in this process
        options |= {key: 0 for key in ("num_workers",) if key in options}
        options |= {key: False for key in ("check_masks",) if key in options}
        options |= {key: min(options[key], _AT_ONCE) for key in ("batch_size",) if key in options}
        data = kind(**options)
    except UserError as error:
        return None, str(error)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        return None, f"its data {path or '(none)'} cannot be made: {' '.join(str(error).split())[:200]}"
    return data, None


def _chosen(values: Mapping[str, Tensor], weights: str, file: Path) -> dict[str, Tensor]:
    """The task's state without its moving average, or with that in place of the network."""
    plain = {key: value for key, value in values.items() if not key.startswith(_AVERAGED)}
    if weights == RAW:
        return plain
    average = {
        _NETWORK + key.removeprefix(AVERAGE): value
        for key, value in values.items()
        if key.startswith(AVERAGE)
    }
    if not average:
        raise UserError(
            f"{file} has no moving average of its weights (it was trained without model.ema_decay); "
            f"use {RAW}",
            key="--weights",
        )
    return plain | average


def _check_fits(values: Mapping[str, Tensor], module: Task, file: Path) -> None:
    """A focal backbone would resize what does not fit; here that means that something was changed."""
    expected = {
        key: tuple(value.shape) for key, value in module.state_dict().items() if not key.startswith(_AVERAGED)
    }
    found = {key: tuple(value.shape) for key, value in values.items()}
    if found == expected:
        return
    told = [
        f"{key} is {_shape(found.get(key))} in the file and {_shape(expected.get(key))} by its options"
        for key in {**expected, **found}
        if found.get(key) != expected.get(key)
    ]
    more = f", and {len(told) - 1} more" if len(told) > 1 else ""
    raise UserError(
        f"its weights are of another network than its own options say: {told[0]}{more} (take a checkpoint "
        "as the training wrote it)",
        file=file,
    )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else " x ".join(map(str, shape)) or "one number"
