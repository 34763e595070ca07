"""Mean IoU, mean accuracy and pixel accuracy from one confusion matrix over the whole set.

Shape suffixes: K classes, H W image, N pixels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

METRICS = ("miou", "macc", "pixel_acc")


class Confusion(Metric):
    """Counts the pixels of every true class that were predicted as every class.

    The counts of each image are kept apart until the end, as the few pairs of classes that occur in it, so
    that an image that several processes were given counts once. (Lightning repeats some to give each process
    as many.)

    Args:
        num_classes: K.
        ignore_index: true label of pixels that do not count.
    """

    full_state_update = False
    numbers: list[Tensor]
    lengths: list[Tensor]
    pairs: list[Tensor]
    counts: list[Tensor]

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        super().__init__()
        self.num_classes, self.ignore_index = num_classes, ignore_index
        for name in ("numbers", "lengths", "pairs", "counts"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, found_HW: Tensor, true_HW: Tensor, number: int) -> None:
        """Add the image of that number: its predicted and its true classes, integers."""
        true_N = true_HW.flatten().long()
        valid_N = true_N != self.ignore_index
        pair_N = true_N[valid_N] * self.num_classes + found_HW.flatten()[valid_N].long()
        counted = torch.bincount(pair_N, minlength=self.num_classes**2)
        pairs = counted.nonzero()[:, 0]
        self.pairs.append(pairs)
        self.counts.append(counted[pairs])
        self.lengths.append(torch.tensor([len(pairs)], device=pairs.device))
        self.numbers.append(torch.tensor([number], device=pairs.device))

    def matrix(self) -> Tensor:
        """Pixels by true class (rows) and predicted class (columns), int64 (K, K)."""
        total = torch.zeros(self.num_classes**2, dtype=torch.int64, device=self.device)
        if len(self.numbers) == 0:
            return total.view(self.num_classes, -1)
        lengths: list[int] = dim_zero_cat(self.lengths).tolist()
        seen: set[int] = set()
        for number, pairs, counts in zip(
            dim_zero_cat(self.numbers).tolist(),
            dim_zero_cat(self.pairs).split(lengths),
            dim_zero_cat(self.counts).split(lengths),
            strict=True,
        ):
            if number not in seen:
                seen.add(number)
                total[pairs] += counts
        return total.view(self.num_classes, -1)

    def compute(self) -> dict[str, Tensor]:
        """`miou`, `macc`, `pixel_acc`, and `iou` (K,) and `acc` (K,) of each class, all in percent.

        The IoU of a class that is neither predicted nor present is NaN, and so is the accuracy of one that is
        not present; means exclude NaNs.
        """
        matrix_KK = self.matrix().double()
        right_K = matrix_KK.diagonal()
        true_K, found_K = matrix_KK.sum(1), matrix_KK.sum(0)
        iou_K = 100 * right_K / (true_K + found_K - right_K)
        acc_K = 100 * right_K / true_K
        pixel_acc = 100 * right_K.sum() / matrix_KK.sum()
        return {
            "miou": iou_K.nanmean(),
            "macc": acc_K.nanmean(),
            "pixel_acc": pixel_acc,
            "iou": iou_K,
            "acc": acc_K,
        }

    def by_class(self, names: Sequence[str]) -> dict[str, float]:
        """IoU in percent of the classes that occur, by name."""
        iou: list[float] = self.compute()["iou"].tolist()
        return {name: value for name, value in zip(names, iou, strict=True) if value == value}
