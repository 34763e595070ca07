"""Opens a trained task from a checkpoint, a run's folder or a run ID; no code in it is executed."""

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
from focal_lab.tasks.classes import Classes
from focal_lab.tasks.classification.task import Classification
from focal_lab.tasks.detection.task import Detection
from focal_lab.tasks.ema import AVERAGE
from focal_lab.tasks.evaluation_size import evaluation_size
from focal_lab.tasks.segmentation.task import Segmentation
from focal_lab.tasks.weights_file import read_weights
from focal_lab.tools.trained.preprocessing import Preprocessing, own_size, preprocessing_of
from focal_lab.utils.yaml import load_yaml

RAW = "raw"
_TASKS: tuple[type[Task], ...] = (Classification, Detection, Segmentation)
_LIGHTNING = "pytorch-lightning_version"
_OURS = "focal_lab."
_CLASSES = "focal_lab_classes"
_AVERAGED, _NETWORK = "ema.", "model."
# The tools look at a few images, one by one and in this process.
_MOST_AT_ONCE = 8


@dataclass(frozen=True)
class TrainedTask:
    """A task with the weights of a checkpoint.

    Attributes:
        module: the task in evaluation mode, with the classes of the training.
        options: its hyperparameters.
        state: the whole checkpoint; its tensors are memory-mapped.
        file: the checkpoint.
        run: folder of the run that it belongs to, if any.
        data: the data module that it was evaluated on, not yet set up.
        trouble: why there is no data module, if so.
        weights: "raw", or "ema" for their moving average.
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
        """The run ID, or the file's name."""
        return self.file.stem if self.run is None else self.run.name

    @property
    def channels(self) -> int:
        """Of the images that the network takes."""
        return int((self.options.get("backbone_options") or {}).get("in_chans", 3))

    @property
    def class_names(self) -> list[str]:
        """By label; numbers if the names are unknown."""
        return [self.module.classes.name(label) for label in range(int(self.options["num_classes"]))]

    @property
    def size(self) -> Size:
        """Height and width that evaluation fed to the network, px, as the checkpoint notes."""
        noted = self.state.get(EVALUATED_AT)
        if noted is not None:
            height, width = noted
            return height, width
        return evaluation_size(self.module, self.data).size

    def preprocessing(self) -> Preprocessing:
        """Of its evaluation; UserError if the data does not define it.

        Detection and segmentation get images of their own size.
        """
        if not isinstance(self.module, Classification):
            return own_size(self.data)
        cfg = getattr(self.module.model, "pretrained_cfg", None) or {}
        try:
            return preprocessing_of(self.data, self.size, cfg.get("crop_pct") or 0.875)
        except UserError as error:
            raise UserError(str(error), file=self.file) from error


def open_trained(name: str, out: Path, weights: str = RAW) -> TrainedTask:
    """Open a trained task.

    Raises:
        UserError: it does not exist, is damaged or holds weights alone, its weights do not match its options,
            or it has no moving average.
    """
    file, run = find_checkpoint(name, out)
    state = lightning_state(file)
    if state is None:
        raise UserError(
            "contains only weights and does not say for which task (use a checkpoint written by focal-lab "
            "fit, such as checkpoints/best.ckpt of a run)",
            file=file,
        )
    kind = task_of(state)
    if kind is None:
        raise UserError("is not a checkpoint of our tasks (use one written by focal-lab fit)", file=file)
    return build_trained(kind, state, file, run, weights)


def find_checkpoint(name: str, out: Path) -> tuple[Path, Path | None]:
    """The file that a path, or a run's folder or ID, stands for, and the run's folder, if any.

    Raises:
        UserError: it does not exist.
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
        f"has no {CHECKPOINTS}/best.ckpt or last.ckpt (use a run that has been trained, or name the file)",
        file=path,
    )


def lightning_state(file: Path) -> dict[str, Any] | None:
    """Lightning's checkpoint; None if the file holds weights alone. Raises UserError if it is damaged."""
    if file.suffix == ".safetensors":
        return None
    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception:
        read_weights(file)  # older files of weights cannot be mapped; damaged ones raise here
        return None
    return state if isinstance(state, dict) and {_LIGHTNING, "state_dict"} <= state.keys() else None


def task_of(state: Mapping[str, Any]) -> type[Task] | None:
    """The task class of a checkpoint; None if it is not one of ours."""
    known: Mapping[str, Any] = state.get("hyper_parameters", {})
    path = known.get("_class_path")
    if path is not None:
        names = {kind.__name__: kind for kind in _TASKS}
        return names.get(path.rpartition(".")[2]) if path.startswith(_OURS) else None
    if "backbone" not in known:
        return None
    # trained without LightningCLI: only one task has these options
    if "method" in known:
        return Detection
    return Segmentation if "decoder" in known else Classification


def build_trained(
    kind: type[Task], state: Mapping[str, Any], file: Path, run: Path | None, weights: str = RAW
) -> TrainedTask:
    """Build the task and load the checkpoint's weights.

    Raises:
        UserError: the weights do not match the options, or there is no moving average.
    """
    options = {key: value for key, value in state["hyper_parameters"].items() if not key.startswith("_")}
    arguments = options | ({"backbone_checkpoint": None} if "backbone_checkpoint" in options else {})
    try:
        module = kind(**arguments)
    except (TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"does not fit this version of focal-lab: {reason}", file=file) from error
    except UserError as error:
        raise UserError(f"its options are invalid: {error}", file=file) from error
    values = _chosen(state["state_dict"], weights, file)
    _check_shapes(values, module, file)
    module.load_state_dict(values, strict=False)  # the moving average is left out
    module.classes = Classes(**state.get(_CLASSES, {}))
    data, trouble = data_of(state, run)
    return TrainedTask(module.eval(), options, state, file, run, data, trouble, weights)


def data_of(state: Mapping[str, Any], run: Path | None) -> tuple[LightningDataModule | None, str | None]:
    """The run's data module, not yet set up, or why there is none.

    Classes that are not ours are only imported if the run's own configuration names them, as
    `focal-lab test --config` would.
    """
    noted = dict(state.get("datamodule_hyper_parameters", {}))
    path = str(noted.pop("_class_path", ""))
    options = {key: value for key, value in noted.items() if not key.startswith("_")}
    if not path.startswith(_OURS):
        if run is None:
            return None, "does not say on which of our data it was evaluated"
        configured = load_yaml(run / CONFIG_FILE).get("data") or {}
        path, options = str(configured.get("class_path", "")), dict(configured.get("init_args") or {})
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(import_module(module), name)
        options = current_options(options, path)
        few = {"num_workers": 0, "check_masks": False}
        few["batch_size"] = min(options.get("batch_size") or 1, _MOST_AT_ONCE)
        return kind(**options | {key: value for key, value in few.items() if key in options}), None
    except UserError as error:
        return None, str(error)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        return None, f"its data {path or '(none)'} cannot be built: {' '.join(str(error).split())[:200]}"


def _chosen(values: Mapping[str, Tensor], weights: str, file: Path) -> dict[str, Tensor]:
    """The task's state without its moving average, or with it in place of the network."""
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


def _check_shapes(values: Mapping[str, Tensor], module: Task, file: Path) -> None:
    """Refuse weights of another network, which a focal backbone would resize."""

    def shape(value: Tensor | None) -> str:
        return "missing" if value is None else " x ".join(map(str, value.shape)) or "one number"

    expected = {key: value for key, value in module.state_dict().items() if not key.startswith(_AVERAGED)}
    wrong = [
        f"{key} is {shape(values.get(key))} in the file and {shape(expected.get(key))} by its options"
        for key in {**expected, **values}
        if shape(values.get(key)) != shape(expected.get(key))
    ]
    if wrong:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise UserError(
            f"its weights do not match its own options: {wrong[0]}{more} (use the original checkpoint)",
            file=file,
        )
