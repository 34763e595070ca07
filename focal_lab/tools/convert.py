"""`focal-lab convert`: convert weights of any known format for one model, as safetensors."""

import argparse
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focal_lab._version import __version__
from focal_lab.command_line import CommandParser, at_least
from focal_lab.errors import UserError, known_names, one_of
from focal_lab.utils.atomic_files import atomic_output

if TYPE_CHECKING:
    from torch import Tensor

    from focal_lab.backbones.weights.formats import WeightsError
    from focal_lab.backbones.weights.report import Change, FitReport

_EPILOG = """SRC is of the authors' released code, of focal-lab (Lightning checkpoints, too), or of Swin from
timm or Microsoft: .pth, .pt, .ckpt, .bin or .safetensors. No code in it is executed.

Position biases and pooling weights are resized to the model's windows, regions and sub-windows. Parameters
that the file lacks are initialized as in a new model (seed 0), and reported.

examples:
  focal-lab convert focal-tiny.pth focal_tiny.safetensors --model focal_tiny
  focal-lab convert focal-tiny.pth focal_14.safetensors --model focal_tiny --set window_size=14
  focal-lab convert swin_large.pth focal_large.safetensors --model focal_large --from-swin"""

_PARTS = {
    "mapped": "copied unchanged",
    "folded": "several values merged into one, exactly",
    "interpolated": "resized",
    "dropped": "the model has no such parameter",
    "fresh": "initialized as in a new model",
}


def main(argv: list[str]) -> int:
    """Convert a file; returns the exit status. After a UserError no target is left behind."""
    arguments = _parser().parse_args(argv)
    source, target = Path(arguments.source), Path(arguments.target)
    if target.suffix != ".safetensors":
        raise UserError("must end in .safetensors", file=target, key="DST")
    with atomic_output(target, force=arguments.force, key="DST") as temporary:
        report, description = _convert(arguments, source, temporary)
    print(f"{source} ({report.origin}) -> {target} ({description})")
    for line in _lines(report, arguments.verbose):
        print(line)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="focal-lab convert",
        description="Convert weights for one model; the result loads into it, and into timm's own Swin.",
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add("source", metavar="SRC", help="the weights")
    add("target", metavar="DST", help="the file to write; ends in .safetensors")
    add("--model", required=True, metavar="NAME", help="a focal backbone, such as focal_tiny")
    option = "an option of the model, such as window_size=14; can be repeated"
    add("--set", action="append", default=[], metavar="OPTION=VALUE", help=option)
    swin = "initialise a Focal Transformer from Swin's weights, like the paper's Focal-Large"
    add("--from-swin", action="store_true", help=swin)
    resized = "how parameters are resized (default: bicubic; the paper used bilinear)"
    add("--interpolation", choices=("bicubic", "bilinear"), default="bicubic", help=resized)
    classes = "default: that of SRC's head; a head of another size is initialised from scratch"
    add("--num-classes", type=at_least(0), metavar="N", help=classes)
    add("--force", action="store_true", help="overwrite DST")
    add("--verbose", action="store_true", help="list every key")
    return parser


def _preset(name: str, settings: dict[str, Any]) -> str:
    """The preset's full name; refuses settings that it does not take."""
    from focal_lab.backbones.options import make_options
    from focal_lab.backbones.presets import PRESETS, find_preset

    full = find_preset(name)
    if full is None:
        raise UserError(f"{name!r} is not a focal backbone{known_names(name, PRESETS)}", key="--model")
    try:
        make_options(PRESETS[full] | settings)
    except ValueError as error:
        raise UserError(str(error), key="--set") from error
    return full


def _convert(arguments: argparse.Namespace, source: Path, target: Path) -> tuple["FitReport", str]:
    """Write the target; returns what was done and the model's name and number of classes."""
    from focal_lab.backbones.presets import preset_options
    from focal_lab.sweep.plan.plan import parse_overrides

    settings = parse_overrides(arguments.set)
    name = _preset(arguments.model, settings)
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from focal_lab.tasks.weights_file import read_weights

    weights = read_weights(source)
    classes = _classes(weights) if arguments.num_classes is None else arguments.num_classes
    values, report = _fit(arguments, weights, name, settings, classes)
    metadata = {  # where the file is from; safetensors stores strings only
        "format": "pt",
        "model": name,
        "options": json.dumps(asdict(preset_options(name, settings))),
        "num_classes": str(classes),
        "source": source.name,
        "focal_lab": __version__,
    }
    contiguous = {key: value.contiguous() for key, value in values.items()}
    try:
        save_file(contiguous, target, metadata)
    except SafetensorError as error:
        raise UserError(f"cannot be written: {error}", file=arguments.target) from error
    return report, f"{name}, {classes} classes"


def _fit(
    arguments: argparse.Namespace,
    weights: Mapping[str, "Tensor"],
    name: str,
    settings: Mapping[str, Any],
    classes: int,
) -> tuple[dict[str, "Tensor"], "FitReport"]:
    import torch

    from focal_lab.backbones.weights.fit_weights import fit_weights
    from focal_lab.backbones.weights.formats import WeightsError
    from focal_lab.backbones.weights.from_swin import swin_to_focal
    from focal_lab.tasks.backbone import create_backbone

    with torch.device("meta"):  # only its shapes are needed
        model: Any = create_backbone(name, settings, num_classes=classes)
    try:
        if arguments.from_swin:
            values, report = swin_to_focal(weights, model, interpolation=arguments.interpolation)
        else:
            values, report = fit_weights(weights, model, interpolation=arguments.interpolation, transfer=True)
    except WeightsError as error:
        message = f"{error.message} ({_way_out(error, weights, name, settings)})"
        raise UserError(message, file=arguments.source, key=error.key) from error
    if report.fresh:
        torch.manual_seed(0)
        new = create_backbone(name, settings, num_classes=classes).state_dict()
        values |= {change.key: new[change.key] for change in report.fresh}
    return values, report


def _way_out(
    error: "WeightsError", weights: Mapping[str, "Tensor"], name: str, settings: Mapping[str, Any]
) -> str:
    """What to try instead: models of the file's width and depths, or an option."""
    from focal_lab.backbones.presets import PRESETS, preset_options
    from focal_lab.backbones.weights.formats import ANCHOR, MICROSOFT_SWIN, TIMM_SWIN, in_our_names

    if "not Swin's" in error.message:
        return "omit --from-swin"
    if "NaN" in error.message or "not a ring of the released code" in error.message:
        return "use another file; such weights cannot be repaired"
    named = in_our_names(weights)
    stem = named.values.get(ANCHOR)
    if stem is None:
        return "these are not the weights of a focal backbone or of Swin"
    swin = named.origin in (TIMM_SWIN, MICROSOFT_SWIN)
    blocks = {tuple(key.split(".")[1:4:2]) for key in named.values if re.match(r"layers\.\d+\.blocks\.", key)}
    depths = tuple(count for _, count in sorted(Counter(stage for stage, _ in blocks).items()))
    wanted = preset_options(name, settings)
    if (wanted.embed_dim, tuple(wanted.depths)) != (stem.shape[0], depths):
        alike = [
            full
            for full in PRESETS
            if (options := preset_options(full)).embed_dim == stem.shape[0]
            and tuple(options.depths) == depths
            and (options.downsample == "merge") == swin
            and options.use_conv_embed == (stem.shape[2] not in (2, 4))
        ]
        found = f"the file's network has width {stem.shape[0]} and depths {'-'.join(map(str, depths))}"
        return f"{found}, as {one_of(alike)}" if alike else found
    if swin and wanted.downsample == "conv":
        return "these are Swin's weights: add --from-swin"
    return "set the file's options with --set"


def _classes(weights: Mapping[str, "Tensor"]) -> int:
    """Outputs of the file's head; 0 without one."""
    from focal_lab.backbones.weights.formats import find_prefix

    prefix = find_prefix(weights)
    for name in ("head.fc.weight", "head.weight"):
        if f"{prefix}{name}" in weights:
            return int(weights[f"{prefix}{name}"].shape[0])
    return 0


def _lines(report: "FitReport", verbose: bool) -> list[str]:
    """A line per kind of change with counts and shapes; a line per key if verbose."""
    lines = []
    for part, meaning in _PARTS.items():
        changes: list[Change] = getattr(report, part)
        if not changes and part != "mapped":
            continue
        lines.append(f"  {part:<13} {len(changes):>4}  {meaning}")
        if verbose and part == "mapped":
            renamed = (f" from {change.why}" if change.why != change.key else "" for change in changes)
            lines += [f"    {one.key} {_shapes(one)}{old}" for one, old in zip(changes, renamed, strict=True)]
        elif verbose:
            lines += [f"    {change.key} {_shapes(change)}: {change.why}" for change in changes]
        elif part != "mapped":
            groups = Counter((_shapes(change), change.why) for change in changes)
            lines += [f"    {count:>15}  {shapes}: {why}" for (shapes, why), count in groups.items()]
    if report.buffers:
        lines.append(f"  {'left out':<13} {len(report.buffers):>4}  indices and masks, which are computed")
    return lines


def _shapes(change: "Change") -> str:
    shapes = [str(shape) for shape in (change.before, change.after) if shape is not None]
    return " -> ".join(shapes if change.before != change.after else shapes[:1]) or "-"
