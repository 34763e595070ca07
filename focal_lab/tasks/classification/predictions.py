"""What a test of a classifier records of each image.

Shape suffixes: B batch, K classes.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from focal_lab.tasks.recorded import Recorded


def describe_batch(logits_BK: Tensor, labels_B: Tensor, prefix: str = "") -> dict[str, Tensor]:
    """Of each image, (B,): prediction, its probability, the loss, and whether the label is among the first 5.

    Images with a label below 0 are not evaluated, and have values without a meaning.
    """
    labels_B1 = labels_B.clamp(min=0)[:, None]
    prediction_B = logits_BK.argmax(1)
    probabilities_BK = logits_BK.softmax(1)
    # as torchmetrics finds them, ties included
    first = logits_BK.topk(min(5, logits_BK.shape[1]), dim=1).indices
    return {
        f"{prefix}prediction": prediction_B,
        f"{prefix}confidence": probabilities_BK.gather(1, prediction_B[:, None])[:, 0],
        f"{prefix}top5": (first == labels_B1).any(1),
        f"{prefix}loss": F.cross_entropy(logits_BK, labels_B1[:, 0], reduction="none").float(),
    }


def recorded(batches: Sequence[dict[str, Tensor]]) -> Recorded | None:
    """The batches of a process, with `label` beside `describe_batch`; None without any."""
    if not batches:
        return None
    table = {name: torch.cat([batch[name] for batch in batches]).cpu() for name in batches[0]}
    evaluated = (table["label"] >= 0).numpy()
    columns = {
        name: column.float() if name.endswith("confidence") else column for name, column in table.items()
    }
    found = {name: column.numpy()[evaluated] for name, column in columns.items()}
    return Recorded(evaluated, {"": {"image": evaluated.nonzero()[0], **found}})
