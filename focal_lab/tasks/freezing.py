"""Freezes parts of a network: the first stages, or all but the classifier."""

from typing import Any, Literal

from timm.models import group_parameters
from torch import nn

from focal_lab.errors import UserError
from focal_lab.tasks.optimizer import check_option

Frozen = int | Literal["backbone"]


def freeze(model: nn.Module, frozen: Frozen) -> None:
    """Exclude weights of a timm classifier from training.

    Args:
        model: the classifier.
        frozen: the number of stages after the patch embedding or stem, which is frozen with them. Of a model
            without stages, such as a ViT, the number of blocks. "backbone" leaves only the classifier.

    Raises:
        UserError: the model has no such parts, or nothing would be left to train.
    """
    names = _all_but_classifier(model) if frozen == "backbone" else _first_stages(model, frozen)
    for name, parameter in model.named_parameters():
        if name in names:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(f"{frozen} leaves nothing to train", key="model.frozen")


def evaluate_frozen(module: nn.Module) -> None:
    """Put frozen parts in evaluation mode: no drop path, and no updates of batch norm statistics."""
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        module.eval()
        return
    for child in module.children():
        evaluate_frozen(child)


def _all_but_classifier(model: Any) -> set[str]:
    trained = {id(parameter) for parameter in model.get_classifier().parameters()}
    if not trained:
        raise UserError("backbone: the model has no classifier to train", key="model.frozen")
    return {name for name, parameter in model.named_parameters() if id(parameter) not in trained}


def _first_stages(model: Any, count: int) -> set[str]:
    """Names of the parameters of the stem and the first stages, as timm groups them."""
    groups: dict[int, list[str]] = group_parameters(model, model.group_matcher(coarse=True))
    stages = len(groups) - 2  # the first group is the stem, the last one what follows the stages
    check_option("frozen", count, 0 <= count <= stages, f"0 to {stages}, the number of stages of the model")
    return {name for group in sorted(groups)[: count + 1] for name in groups[group]}
