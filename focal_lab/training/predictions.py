"""Collects the predictions of a test over all processes, and writes them to the run's folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray

from focal_lab.tasks.base import Task
from focal_lab.tasks.detection.average_precision import jackknife_units
from focal_lab.tasks.groups import clusters_of, groups_of
from focal_lab.tasks.recorded import Columns, find_positions, in_order
from focal_lab.tasks.tested import gather
from focal_lab.training.predictions_file import write_predictions

_TYPES = {"confidence": np.float16, "loss": np.float32, "score": np.float32}


class KeepPredictions(Callback):
    """Collects what the test found in each image, in the order of the test set.

    Attributes:
        arrays: for `write_predictions`; None if the order of the images is unknown, if the task records
            nothing, and in all processes but the first.
    """

    def __init__(self) -> None:
        self.arrays: Columns | None = None

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.arrays = None
        recorded = pl_module.recorded() if isinstance(pl_module, Task) else None
        positions = None if recorded is None else find_positions(trainer, recorded)
        parts = gather(trainer, (recorded, positions))
        if not trainer.is_global_zero or any(part is None for part, _ in parts):
            return
        if any(positions is None for _, positions in parts):
            _not_kept("the loader may give the images in any order")
            return
        found = in_order(parts)
        if found is None:
            _not_kept("the sampler repeats images that have no image_id")
            return
        data: Any = getattr(trainer, "datamodule", None)
        self.arrays = _arrays(*found, data)

    def write(self, folder: Path, metrics: Mapping[str, float]) -> None:
        """Write the predictions, if they are known, that gave these metrics.

        Raises:
            OSError: the disk is full or the folder is not writable.
        """
        if self.arrays is not None:
            units = jackknife_units(self.arrays, metrics) if "truth_count" in self.arrays else {}
            write_predictions(folder, units | self.arrays)


def columns_of(tables: Mapping[str, Columns]) -> Columns:
    """The columns of all tables in the types of the file; flags of crowds are left out if there are none."""
    return {
        f"{prefix}{name}": column.astype(_TYPES.get(name.rpartition("_")[2], column.dtype))
        for prefix, table in tables.items()
        for name, column in table.items()
        if not name.endswith("_ignored") or column.any()
    }


def _arrays(tables: Mapping[str, Columns], positions: NDArray[np.int64], data: Any) -> Columns | None:
    """The columns of all tables, `cluster`, `group_<name>`, `index`; None where the data contradicts them."""
    named = columns_of(tables)
    if "prediction" in named:  # a row an image
        del named["image"]
        wrong = _contradiction(named["label"], positions, data)
        if wrong is not None:
            _not_kept(wrong)
            return None
    else:
        named["images"] = np.array(len(positions))
    try:
        clusters, grouped = clusters_of(data, positions), groups_of(data, positions)
    except ValueError as error:
        _not_kept(str(error))
        return None
    if clusters is not None:
        named["cluster"] = clusters
    if grouped is not None:
        named[f"group_{grouped[0]}"] = grouped[1]
    if not np.array_equal(positions, np.arange(len(positions))):
        named["index"] = positions
    return named


def _contradiction(labels: NDArray[np.int64], positions: NDArray[np.int64], data: Any) -> str | None:
    """What is wrong if labels are not those that the data lists; the words for them are the data's own."""
    if not hasattr(data, "test_images"):
        return None
    listed = [label for _, label in data.test_images()]
    if len(listed) <= positions.max(initial=-1):
        return f"{type(data).__name__}.test_images() lists fewer images"
    words: dict[int, Any] = {}
    for label, position in zip(labels.tolist(), positions.tolist(), strict=True):
        if words.setdefault(label, listed[position]) != listed[position]:
            return f"{type(data).__name__}.test_images() lists other labels"
    return None


def _not_kept(why: str) -> None:
    rank_zero_warn(f"the predictions of the test are not kept: {why}")
