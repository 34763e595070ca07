"""`predictions.npz`: what a run's test found in each image, written at the end of a training."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focal_lab.utils.atomic_files import write_atomic

if TYPE_CHECKING:
    from numpy.typing import NDArray

PREDICTIONS_FILE = "predictions.npz"


def write_predictions(folder: Path, arrays: "Mapping[str, NDArray[Any]]") -> None:
    """Replace the file atomically, without compression: reports read thousands.

    Integers are written in the smallest type that holds them.

    Raises:
        OSError: the disk is full or the folder is not writable.
    """
    import numpy as np  # not for the file's name alone

    content = io.BytesIO()
    small = {name: _smallest(values) for name, values in arrays.items()}
    np.savez(content, **small)  # type: ignore[arg-type]
    write_atomic(folder / PREDICTIONS_FILE, content.getvalue())


def _smallest(values: "NDArray[Any]") -> "NDArray[Any]":
    """Integers in the smallest type that holds them, unsigned if none is negative; others as they are."""
    import numpy as np

    if values.dtype.kind not in "iu" or values.size == 0:
        return values
    kind = np.result_type(np.min_scalar_type(values.min()), np.min_scalar_type(values.max()))
    return values.astype(kind)
