"""Any timm model by name and options, with errors that speak to the person who wrote the configuration."""

import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import timm
from timm.models import load_checkpoint
from torch import Tensor, nn

import focal_lab.backbones.registry  # noqa: F401  (registers the focal presets)
from focal_lab.backbones.model import FocalTransformer
from focal_lab.backbones.options import OPTION_NAMES, make_options
from focal_lab.backbones.presets import PRESETS, find_preset
from focal_lab.backbones.weights.fit import fit_weights
from focal_lab.backbones.weights.formats import MICROSOFT_SWIN, TIMM_SWIN, in_our_names
from focal_lab.backbones.weights.from_swin import swin_to_focal
from focal_lab.backbones.weights.report import FitReport
from focal_lab.errors import UserError, did_you_mean, one_of
from focal_lab.tasks.timm_weights import load_whole, loading
from focal_lab.training.checkpoints.read import read_weights


def create_backbone(
    name: str, options: Mapping[str, Any] | None = None, *, checkpoint: str | None = None, **kwargs: Any
) -> nn.Module:
    """A timm model.

    Args:
        name: a timm model name; `focal_tiny` is short for `focal_tiny_patch4_window7_224`.
        options: keyword arguments of the model.
        checkpoint: file of weights to start from. A focal model takes all that `focal-lab convert` takes,
            Swin's among them, and tells by a warning what it had to resize, drop or leave fresh: a head of
            other classes, for one. Another model takes checkpoints of ours, its own and those that timm
            translates for it, whole: only a head of other classes is left fresh.
        kwargs: what the task adds (`num_classes`, `features_only`, ...).

    Raises:
        UserError: no such model, option or file, or an option breaks a rule of the model.
    """
    full = resolve_name(name)
    options = dict(options or {})
    if full in PRESETS:
        try:
            make_options(PRESETS[full] | {key: options[key] for key in options if key in OPTION_NAMES})
        except ValueError as error:
            raise UserError(str(error), key="model.backbone_options") from error
    if checkpoint is not None and not Path(checkpoint).is_file():
        what = "is not a file" if Path(checkpoint).exists() else "does not exist"
        raise UserError(f"{checkpoint}: {what}", key="model.backbone_checkpoint")
    start = _starting_from(full, checkpoint) if checkpoint is not None and full not in PRESETS else None
    if start is not None:
        options["pretrained"] = True  # or timm would not ask for weights
    try:
        with nullcontext() if start is None else loading(start):
            model: nn.Module = timm.create_model(full, **options, **kwargs)
    except UserError:
        raise
    except Exception as error:
        # timm's models refuse options by asserts, KeyErrors and whatever the wrong value runs into
        raise UserError(f"{full}: {_reason(error)}", key="model.backbone_options") from error
    if checkpoint is not None and start is None:
        _start_from(model, full, checkpoint)
    return model


def resolve_name(name: str) -> str:
    """The registered name behind `name`.

    Raises:
        UserError: timm knows no such model.
    """
    full = find_preset(name) or name
    if not timm.is_model(full):
        short = [preset.partition("_patch")[0] for preset in PRESETS]
        hint = did_you_mean(name, [*short, *timm.list_models()])
        raise UserError(
            f"{name!r} is not a backbone (focal ones: {one_of(PRESETS)}; or any name of timm.list_models())"
            f"{hint}",
            key="model.backbone",
        )
    return full


def is_focal(name: str) -> bool:
    """Whether that name is one of our backbones."""
    return find_preset(name) is not None


def _start_from(model: nn.Module, name: str, checkpoint: str) -> None:
    """Load weights of any format into a focal model, from a file of which nothing is executed."""
    network = model if isinstance(model, FocalTransformer) else model.model  # features_only wraps it
    assert isinstance(network, FocalTransformer)
    with _refusing(name, checkpoint):
        values, report = _fitted(read_weights(checkpoint), network)
        network.load_state_dict(values)
        if report.summary():
            warnings.warn(f"{checkpoint} ({report.origin}): {report.summary()}", stacklevel=3)


def _starting_from(name: str, checkpoint: str) -> Callable[..., None]:
    """What fills another model of timm's, before that wraps it for its maps."""

    def load(model: Any, *_: Any, filter_fn: Any = None, num_classes: int, in_chans: int, **__: Any) -> None:
        with _refusing(name, checkpoint):
            if Path(checkpoint).suffix.lower() in (".npz", ".npy"):  # some of timm's models load such
                load_checkpoint(model, checkpoint)
                return
            weights = read_weights(checkpoint)
            notes = load_whole(model, weights, filter_fn, in_chans=in_chans, headless=num_classes == 0)
            if notes:
                warnings.warn(f"{checkpoint}: {'; '.join(notes)}", stacklevel=2)

    return load


@contextmanager
def _refusing(name: str, checkpoint: str) -> Iterator[None]:
    """Name the option in whatever is wrong with the file."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error), key="model.backbone_checkpoint") from error
    except Exception as error:
        # timm's models refuse weights by whatever the wrong value runs into
        raise UserError(
            f"{checkpoint}: does not fit {name}: {_reason(error)}", key="model.backbone_checkpoint"
        ) from error


def _fitted(weights: dict[str, Tensor], network: FocalTransformer) -> tuple[dict[str, Tensor], FitReport]:
    """Weights for a network; Swin's for one that downsamples otherwise, as the paper began Focal-Large."""
    if network.options.downsample == "conv" and in_our_names(weights).origin in (MICROSOFT_SWIN, TIMM_SWIN):
        return swin_to_focal(weights, network)
    return fit_weights(weights, network, transfer=True)


def _reason(error: Exception) -> str:
    """One line; the exception's name where it says nothing, as a bare assertion does."""
    told = textwrap.shorten(str(error), 600, placeholder=" ...")
    return told if len(told) > 10 else f"{type(error).__name__} {told}".rstrip()
