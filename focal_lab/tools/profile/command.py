"""`focal-lab profile`: count, and measure, models side by side."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from focal_lab.command_line import CommandParser, at_least
from focal_lab.errors import UserError

if TYPE_CHECKING:
    from focal_lab.tools.profile.counts import CountedModel

BATCH_SIZE = 8
ROUNDS = 5
_EPILOG = """what is measured:
  images/s  forward passes in float32 on the GPU if there is one, else on the CPU. The models take turns, so
            that drift of the machine affects all of them; the median of the rounds. The ratio to the first
            model is the median of the rounds' ratios.
  memory    peak of one pass beyond weights and images, in a fresh process per model: growth of allocated
            memory on a GPU, of resident memory on the CPU (Linux only).

examples:
  focal-lab profile focal_tiny swin_tiny_patch4_window7_224
  focal-lab profile focal_tiny --set window_size=14 --set depths=[2,2,4,2] --no-measure
  focal-lab profile focal_tiny --image-size 800 1280 --batch-size 1 --json
  focal-lab profile --task detection --method mask_rcnn focal_tiny swin_tiny_patch4_window7_224
  focal-lab profile --task segmentation focal_tiny swin_tiny_patch4_window7_224"""


def main(argv: list[str]) -> int:
    """Print the profile of models; returns the exit status."""
    options = _parser().parse_intermixed_args(argv)
    _check(options)
    from focal_lab.sweep.plan.plan import parse_overrides

    settings = parse_overrides(options.set)
    if "img_size" in settings:
        raise UserError("img_size is set by --image-size", key="--set")
    size = _size(options.image_size)
    terminal = sys.stdout.isatty()
    from focal_lab.tools.profile.text import heads_text, profile_text

    if options.task == "classification":
        models = _models(options, settings, size)
        profiles, text = [model.profile for model in models], profile_text(models, terminal=terminal)
    else:
        from focal_lab.tools.profile.counts import count_heads

        head = options.method if options.task == "detection" else options.decoder or "upernet"
        profiles = [count_heads(options.task, name, head, settings, size) for name in options.names]
        text = heads_text(profiles, terminal=terminal)
    print(f"{json.dumps(profiles, indent=2)}\n" if options.json else text, end="")
    return 0


def _models(
    options: argparse.Namespace, settings: Mapping[str, Any], size: tuple[int, int] | None
) -> list["CountedModel"]:
    from focal_lab.tools.profile.counts import count_model
    from focal_lab.tools.profile.measure import measure_models

    models: dict[str, CountedModel] = {}
    for label in options.names:
        model = count_model(label, settings, size)
        if models.setdefault(model.profile["name"], model) is not model:
            raise UserError(f"{label}: the model {model.profile['name']} is named twice")
    counted = list(models.values())
    if not options.no_measure:
        if sys.stderr.isatty():  # no progress bar, which would slow down what is measured
            print(f"measuring {', '.join(options.names)} ...", file=sys.stderr)
        for training in (False, True) if options.training else (False,):
            rounds = options.rounds or ROUNDS
            measure_models(counted, options.batch_size or BATCH_SIZE, rounds, training=training)
    return counted


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="focal-lab profile",
        description="Parameters, operations, receptive field, speed and memory of models, side by side.",
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add("names", nargs="+", metavar="NAME", help="a focal backbone (focal_tiny) or any other timm model")
    tasks = ("classification", "detection", "segmentation")
    heads = "count the backbones with the heads of this task (default: classification)"
    add("--task", choices=tasks, default="classification", help=heads)
    add("--method", help="detection method: retinanet, mask_rcnn, faster_rcnn or fcos")
    add("--decoder", help="segmentation decoder: upernet (default), fpn, segformer or deeplabv3plus")
    option = "an option of every model, VALUE in YAML, such as window_size=14; can be repeated"
    add("--set", action="append", default=[], metavar="OPTION=VALUE", help=option)
    size = "height and width, or one number for both (default: the model's own)"
    add("--image-size", type=int, nargs="+", metavar="PIXELS", help=size)
    add("--no-measure", action="store_true", help="only count; do not measure speed and memory")
    add("--training", action="store_true", help="also measure forward and backward passes")
    add("--batch-size", type=at_least(1), help=f"images per batch when measuring (default: {BATCH_SIZE})")
    add("--rounds", type=at_least(1), help=f"measurements per model (default: {ROUNDS})")
    add("--json", action="store_true", help="print a list with one object per model")
    return parser


def _check(options: argparse.Namespace) -> None:
    """Check the options that can be checked without torch."""
    measuring = {"--batch-size": options.batch_size, "--rounds": options.rounds}
    for name, value in (measuring | {"--training": options.training or None}).items():
        if value is not None and options.no_measure:
            raise UserError(f"{name} applies to measuring, which --no-measure turns off; drop one of the two")
        if value is not None and options.task != "classification":
            raise UserError("applies to measuring, but backbones with heads are only counted", key=name)
    if (options.task == "detection") != (options.method is not None):
        raise UserError(
            "--task detection and --method (mask_rcnn, for example) must be given together", key="--method"
        )
    if options.decoder is not None and options.task != "segmentation":
        raise UserError("needs --task segmentation", key="--decoder")


def _size(values: Sequence[int] | None) -> tuple[int, int] | None:
    if values is None:
        return None
    if len(values) > 2 or min(values) < 1:
        raise UserError(
            f"{' '.join(map(str, values))} is neither one size nor height and width in pixels",
            key="--image-size",
        )
    return values[0], values[-1]
