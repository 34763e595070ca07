"""Reads files of weights without executing anything in them, and loads them into any timm model.

timm loads into the whole network before wrapping it for its maps (`features_only`). It calls us at that
moment, so that names, original formats and position tables are those of a classifier.
"""

import argparse
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from timm.models import _builder, adapt_input_conv
from timm.models._input import get_model_traits
from torch import Tensor, nn

from focal_lab.backbones.weights.formats import WeightsError, unwrap
from focal_lab.errors import UserError
from focal_lab.tasks.ema import AVERAGE

_SHOWN = 3
# prefixes of training scripts, DDP and torch.compile
_WRAPPERS = ("model.", "module.", "_orig_mod.")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file of weights, by their names in the file.

    Reads safetensors and what `torch.save` wrote: a state dict, or a training's checkpoint with one; of a
    checkpoint that also has a moving average of the weights, the weights themselves. Where possible the
    tensors are views of the file, which take memory only when they are used.

    Raises:
        UserError: there is no such file, it is damaged or has no weights, or it would have to be executed.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError("is not a file" if path.exists() else "does not exist", file=path)
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if not isinstance(state, dict):
        raise UserError(f"holds a {type(state).__name__} and no weights by name", file=path)
    try:
        return {name: value for name, value in unwrap(state).items() if not name.startswith(AVERAGE)}
    except WeightsError as error:
        raise UserError(str(error), file=path) from error


def first_few(parts: Sequence[str], separator: str = ", ") -> str:
    """The first three, and how many more there are."""
    left = len(parts) - _SHOWN
    return separator.join(parts[:_SHOWN]) + (f" and {left} more" if left > 0 else "")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"cannot be read as safetensors; it is damaged or truncated ({error})", file=path
        ) from error


def _read_torch(path: Path) -> Any:
    try:
        # timm's training checkpoints contain their argparse.Namespace, which is data
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; problems are reported below
            # files of torch before 1.6 are not zip archives and cannot be memory-mapped
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:
        try:
            names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        except Exception:  # not a file of torch
            names = []
        code = [name for name in names if name != "argparse.Namespace"]
        if code:
            raise UserError(
                f"holds objects of {', '.join(code)}: reading them would run code, and nothing in a file of "
                "weights is run (save its tensors alone, or as safetensors)",
                file=path,
            ) from error
        raise UserError(
            "cannot be read as weights; it is damaged, truncated or something else", file=path
        ) from error


@contextmanager
def loading(load: Callable[..., None]) -> Iterator[None]:
    """Let `load` replace timm's `load_pretrained`, whose arguments it gets, within the context."""
    before = _builder.load_pretrained
    _builder.load_pretrained = load
    try:
        yield
    finally:
        _builder.load_pretrained = before


def load_whole(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    translate: Callable[..., dict[str, Tensor]] | None,
    *,
    in_chans: int,
    headless: bool,
) -> list[str]:
    """Load all weights into a timm network; returns what was changed or left as initialised, for a warning.

    Args:
        model: the network; `headless` if its classifier is unused.
        weights: by the names of the network or its original code, with any common prefix.
        translate: timm's filter of this network, if there is one.
        in_chans: channels of the network's images.
        headless: see `model`.

    Raises:
        ValueError: a weight other than the classifier's is missing, unexpected or of another shape.
    """
    own = model.state_dict()
    state = _without_prefix(weights, own)
    if translate is not None:
        try:
            state = dict(translate(state, model))
        except TypeError:  # older ones do not take the model
            state = dict(translate(state))
    notes = _adapt_input(model, state, in_chans)
    heads = _names(model, "classifier")
    headless = headless or not any(_belongs(name, heads) for name in own)  # some are built for maps only
    for head in heads:
        fresh = [name for name in own if _belongs(name, (head,))]
        if any(name not in state or state[name].shape != own[name].shape for name in fresh):
            if not headless:
                notes.append(_why_fresh(head, state))
            state = {name: value for name, value in state.items() if not _belongs(name, (head,))}
            state |= {name: own[name] for name in fresh}
    for name in own:
        if name.endswith("num_batches_tracked"):  # older files have none
            state.setdefault(name, own[name])
    if headless:
        parts = {name.partition(".")[0] for name in own}
        beyond = [name for name in state if name.partition(".")[0] not in parts]
        dropped = dict.fromkeys(name.partition(".")[0] for name in beyond if not _belongs(name, heads))
        if dropped:
            notes.append(f"{', '.join(dropped)} dropped (the model ends before it)")
        # parts around a classifier may exist without it, such as a norm
        beyond += [name for name in state if _belongs(name, heads) and name not in own]
        state = {name: value for name, value in state.items() if name not in beyond}
    _check(state, own)
    model.load_state_dict(state)
    return notes


def _belongs(name: str, modules: tuple[str, ...]) -> bool:
    return name.startswith(tuple(f"{module}." for module in modules))


def _without_prefix(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's weights under its own names."""
    anchor = next(iter(own))
    prefixes = [name.removesuffix(anchor) for name in weights if f".{name}".endswith(f".{anchor}")]
    prefix = min(prefixes, key=len, default=None)
    if prefix is None:  # names of the original code
        prefix, first = "", next(iter(weights), "")
        while wrapper := next((word for word in _WRAPPERS if first.startswith(prefix + word)), None):
            prefix += wrapper
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _adapt_input(model: nn.Module, state: dict[str, Tensor], channels: int) -> list[str]:
    """Sum or repeat the first convolutions' weights for another number of channels, as timm does."""
    notes = []
    for name in _names(model, "first_conv"):
        weight = state.get(f"{name}.weight")
        if weight is None or weight.ndim != 4:
            continue
        needed = model.get_parameter(f"{name}.weight").shape
        theirs, rest = divmod(weight.shape[1] * channels, needed[1])  # some stems fold pixels into channels
        if theirs != channels and not rest and weight.shape[0] == needed[0]:
            state[f"{name}.weight"] = adapt_input_conv(channels, weight, theirs)
            notes.append(f"{name} converted from {theirs} to {channels} channels")
    return notes


def _names(model: Any, part: str) -> tuple[str, ...]:
    """timm's names of a part of a network, such as its classifiers."""
    names = get_model_traits(model).get(part, model.pretrained_cfg.get(part)) or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _why_fresh(head: str, state: Mapping[str, Tensor]) -> str:
    weight = state.get(f"{head}.weight")
    why = "it is not in the file" if weight is None else f"it has {len(weight)} classes there"
    return f"{head} left as initialised ({why})"


def _check(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    faults = []
    for word, names in (("lacks", own.keys() - state.keys()), ("has also", state.keys() - own.keys())):
        if names:
            faults.append(f"{word} {first_few([name for name in (*own, *state) if name in names])}")
    for name in own.keys() & state.keys():
        if own[name].shape != state[name].shape:
            theirs, ours = tuple(state[name].shape), tuple(own[name].shape)
            faults.append(f"{name} has the shape {theirs} there and {ours} here")
    if faults:
        raise ValueError(first_few(faults, "; "))
