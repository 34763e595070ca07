"""Any timm model by name and options, with errors that name the option of the configuration."""

import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import timm
from timm.models import load_checkpoint
from torch import nn

import focal_lab.backbones.registry  # noqa: F401  (registers the focal presets)
from focal_lab.backbones.model import FocalTransformer
from focal_lab.backbones.options import OPTION_NAMES, make_options
from focal_lab.backbones.presets import PRESETS, find_preset
from focal_lab.backbones.weights.fit_weights import fit_weights
from focal_lab.backbones.weights.formats import MICROSOFT_SWIN, TIMM_SWIN, in_our_names
from focal_lab.backbones.weights.from_swin import swin_to_focal
from focal_lab.errors import UserError, did_you_mean, one_of
from focal_lab.tasks.weights_file import load_whole, loading, read_weights

_CHECKPOINT = "model.backbone_checkpoint"


def create_backbone(
    name: str, options: Mapping[str, Any] | None = None, *, checkpoint: str | None = None, **kwargs: Any
) -> nn.Module:
    """A timm model.

    Args:
        name: a timm model name; `focal_tiny` is short for `focal_tiny_patch4_window7_224`.
        options: keyword arguments of the model.
        checkpoint: file of weights to start from. A focal model accepts everything that `focal-lab convert`
            does, including Swin's, and warns about what it resized, dropped or left as initialised, such as a
            head of other classes. Any other model accepts our checkpoints, its own and those that timm
            converts for it, complete except for a head of other classes.
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
        raise UserError(f"{checkpoint}: {what}", key=_CHECKPOINT)
    start = _timm_loader(full, checkpoint) if checkpoint is not None and full not in PRESETS else None
    if start is not None:
        options["pretrained"] = True  # or timm would not ask for weights
    try:
        with nullcontext() if start is None else loading(start):
            model: nn.Module = timm.create_model(full, **options, **kwargs)
    except UserError:
        raise
    except Exception as error:
        # timm's models refuse options by asserts, KeyErrors and whatever the wrong value causes
        raise UserError(f"{full}: {_reason(error)}", key="model.backbone_options") from error
    if checkpoint is not None and start is None:
        _load_focal(model, full, checkpoint)
    return model


def resolve_name(name: str) -> str:
    """The registered name of a backbone.

    Raises:
        UserError: timm has no such model.
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


def _load_focal(model: nn.Module, name: str, checkpoint: str) -> None:
    """Load weights of any format into a focal model; nothing in the file is executed."""
    network = model if isinstance(model, FocalTransformer) else model.model  # features_only wraps it
    assert isinstance(network, FocalTransformer)
    with _refusing(name, checkpoint):
        weights = read_weights(checkpoint)
        # the paper's Focal-Large, which has other downsampling, starts from Swin's weights
        if network.options.downsample == "conv" and in_our_names(weights).origin in (
            MICROSOFT_SWIN,
            TIMM_SWIN,
        ):
            values, report = swin_to_focal(weights, network)
        else:
            values, report = fit_weights(weights, network, transfer=True)
        network.load_state_dict(values)
        if report.summary():
            warnings.warn(f"{checkpoint} ({report.origin}): {report.summary()}", stacklevel=3)


def _timm_loader(name: str, checkpoint: str) -> Callable[..., None]:
    """A replacement of timm's `load_pretrained`, called before timm wraps the network for its maps."""

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
    """Add the option to errors about the file."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error), key=_CHECKPOINT) from error
    except Exception as error:  # whatever the wrong weights cause in timm's models
        raise UserError(f"{checkpoint}: does not fit {name}: {_reason(error)}", key=_CHECKPOINT) from error


def _reason(error: Exception) -> str:
    """One line; with the exception's name if the message is empty or short, as a bare assertion's."""
    message = textwrap.shorten(str(error), 600, placeholder=" ...")
    return message if len(message) > 10 else f"{type(error).__name__} {message}".rstrip()
