"""How many classes a network has: as many as its data, unless the configuration gives a number."""

from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from focal_lab.data.classification.class_names import shortened
from focal_lab.errors import UserError
from focal_lab.training.dotted_path import find_class

if TYPE_CHECKING:
    from torch import Tensor

_KEY = "model.num_classes"


def fill_in(model: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    """Ask the data for the number where the model's options have `num_classes: null`; it is written there.

    Args:
        model: class_path and init_args of a configuration.
        data: the same of its data. It is made once for this, and lists its files.

    Raises:
        UserError: the data does not say, or cannot be made or read.
    """
    options: MutableMapping[str, Any] = model.get("init_args") or {}
    if options.get("num_classes", 0) is not None:
        return
    made = dict(data.get("init_args") or {}) | dict(data.get("dict_kwargs") or {})
    try:
        classes = getattr(find_class(data["class_path"])(**made), "num_classes", None)
    except (TypeError, KeyError) as error:
        raise UserError(f"is not given, and the data cannot be asked: {error} (set it)", key=_KEY) from error
    options["num_classes"] = known(classes)


def known(num_classes: int | None) -> int:
    """The number.

    Raises:
        UserError: there is none.
    """
    if num_classes is None:
        raise UserError(
            "is not known: null takes it from data that has `num_classes`, and only in a command (set it)",
            key=_KEY,
        )
    return num_classes


def check_count(num_classes: int, data: Any) -> None:
    """Refuse data with more or fewer classes than the network.

    Raises:
        UserError: the numbers differ.
    """
    classes = getattr(data, "num_classes", None)
    if classes is None or classes == num_classes:
        return
    names = getattr(data, "class_names", None)
    named = f" ({shortened(names)})" if names and isinstance(names, tuple | list) else ""
    background = num_classes == classes + 1 and not (names and "background" in names)
    hint = ": background is not counted" if background else ""
    raise UserError(
        f"{num_classes} is not the number of classes of the data, {classes}{named} "
        f"(use {classes}, or null to take it from the data{hint})",
        key=_KEY,
    )


def check_labels(labels: "Tensor", num_classes: int, image: int, ignored: int | None = None) -> None:
    """Refuse labels of a data module of the user's that the network has no output for.

    Args:
        labels: of an image, in any shape, in the memory of the processor.
        num_classes: of the network.
        image: its number, for the message.
        ignored: the label that does not count.

    Raises:
        UserError: there is one.
    """
    wrong = (labels < 0) | (labels >= num_classes)
    if ignored is not None:
        wrong &= labels != ignored
    if wrong.any():
        more = "" if ignored is None else f", or {ignored} for none"
        raise UserError(
            f"image {image} has the label {int(labels[wrong][0])}; the {num_classes} classes of "
            f"model.num_classes are 0 to {num_classes - 1}{more}, background of a detector not counted",
            key="data",
        )
