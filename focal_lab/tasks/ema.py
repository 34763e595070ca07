"""An exponential moving average of a network's weights (timm's), evaluated beside the weights themselves."""

from timm.utils import ModelEmaV3
from torch import nn

from focal_lab.tasks.optimizer import check_option

PREFIX = "ema_"  # of the average's metrics: val/ema_top1
AVERAGE = "ema.module."  # of its weights in a task's state dict


def average_of(model: nn.Module, decay: float | None, warmup: bool) -> ModelEmaV3 | None:
    """The average, which starts as a copy and is replaced by the weights at the first update.

    Raises:
        UserError: the decay, the share of the old average that a step keeps, is out of range.
    """
    if decay is None:
        return None
    check_option("ema_decay", decay, 0 < decay < 1, "in (0, 1); 0.9999 is usual")
    if next(model.parameters()).is_meta:  # only counted; timm's class needs random numbers of a real device
        return None
    average = ModelEmaV3(model, decay=decay, use_warmup=warmup)
    average.requires_grad_(False)  # DDP would wait for their gradients
    return average
