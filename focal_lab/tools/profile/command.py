"""`focal-lab profile`: what models come to and cost, side by side."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from focal_lab.command_line import CommandParser
from focal_lab.errors import UserError

if TYPE_CHECKING:
    from focal_lab.tools.profile.counts import Counts
    from focal_lab.tools.profile.throughput import Speed

BATCH_SIZE = 8
ROUNDS = 5
_EPILOG = """what is measured:
  images/s  forward passes in float32 on the GPU if there is one, else on the processor; the models take
            turns, so that drift of the machine hits them alike; the median of the rounds. The ratio to the
            first model is the median of the rounds' ratios.
  memory    what one pass needs at its peak beyond weights and pictures, in a fresh process a model: growth
            of allocated memory on a GPU, of resident memory on the processor (Linux only).

examples:
  focal-lab profile focal_tiny swin_tiny_patch4_window7_224
  focal-lab profile focal_tiny --set window_size=14 --set depths=[2,2,4,2] --no-measure
  focal-lab profile focal_tiny --image-size 800 1280 --batch-size 1 --json
  focal-lab profile --task detection --method mask_rcnn focal_tiny swin_tiny_patch4_window7_224
  focal-lab profile --task segmentation focal_tiny swin_tiny_patch4_window7_224"""


@dataclass(frozen=True)
class Measured:
    """Speed and memory of one model in one way of running it.

    Attributes:
        peak_memory_bytes: None where the system does not tell.
    """

    speed: "Speed"
    peak_memory_bytes: int | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "images_per_second": self.speed.images_per_second,
            "images_per_second_rounds": list(self.speed.rounds),
            "relative_speed": self.speed.relative,
            "peak_memory_bytes": self.peak_memory_bytes,
        }


@dataclass(frozen=True)
class Machine:
    """Where, and with how many pictures at a time, models were measured."""

    device: str
    threads: int
    batch_size: int
    rounds: int


@dataclass(frozen=True)
class Profile:
    """One model.

    Attributes:
        label: the name as it was asked for.
        inference: None where nothing was measured.
        training: None where it was not asked for.
    """

    label: str
    counts: "Counts"
    machine: Machine | None = None
    inference: Measured | None = None
    training: Measured | None = None

    def as_dict(self) -> dict[str, Any]:
        """The object that `--json` prints: the same keys for every model, null for what is not known."""
        counts, machine = self.counts, self.machine
        measured = self.inference.as_dict() if self.inference else {}
        return {
            "name": counts.name,
            "options": dict(counts.options),
            "image_size": list(counts.image_size),
            "params": counts.params,
            "released_params": counts.released_params,
            "gmacs": counts.gmacs,
            "activations": counts.activations,
            "stages": counts.stages,
            "device": machine and machine.device,
            "threads": machine and machine.threads,
            "batch_size": machine and machine.batch_size,
            "images_per_second": measured.get("images_per_second"),
            "images_per_second_rounds": measured.get("images_per_second_rounds"),
            "relative_speed": measured.get("relative_speed"),
            "peak_memory_bytes": measured.get("peak_memory_bytes"),
            "training": self.training and self.training.as_dict(),
        }


def main(argv: list[str]) -> int:
    """Print the profile of models; the exit status.

    Args:
        argv: what follows `focal-lab profile`.

    Raises:
        UserError: a name, an option or a size is wrong.
    """
    options = _parser().parse_intermixed_args(argv)
    _check(options)
    from focal_lab.sweep.plan.plan import parse_overrides

    settings = parse_overrides(options.set)
    if "img_size" in settings:
        raise UserError("img_size is set by --image-size", key="--set")
    if options.task != "classification":
        return _heads(options, settings)
    profiles = _count(options.names, settings, _size(options.image_size))
    if not options.no_measure:
        if sys.stderr.isatty():  # no spinner: it would take its share of what is measured
            print(f"measuring {', '.join(options.names)} ...", file=sys.stderr)
        profiles = _measure(
            profiles, options.batch_size or BATCH_SIZE, options.rounds or ROUNDS, options.training
        )
    if options.json:
        print(json.dumps([profile.as_dict() for profile in profiles], indent=2))
        return 0
    from focal_lab.tools.profile.text import profile_text

    encoding = sys.stdout.encoding or "utf-8"
    text = profile_text(profiles, terminal=sys.stdout.isatty())
    print(text.encode(encoding, "replace").decode(encoding), end="")
    return 0


def _heads(options: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    """Count backbones with heads; they are not measured."""
    from focal_lab.tools.profile.heads import count_heads, heads_text

    head = options.method if options.task == "detection" else options.decoder or "upernet"
    size = _size(options.image_size)
    counted = [count_heads(options.task, name, head, settings, size) for name in options.names]
    if options.json:
        print(json.dumps([one.as_dict() for one in counted], indent=2))
    else:
        print(heads_text(counted, terminal=sys.stdout.isatty()), end="")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="focal-lab profile",
        description="Parameters, operations, reach, speed and memory of models, side by side.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names", nargs="+", metavar="NAME", help="a focal backbone (focal_tiny) or any other timm model"
    )
    parser.add_argument(
        "--task",
        choices=("classification", "detection", "segmentation"),
        default="classification",
        help="what the backbones are part of; with heads they are counted, not measured (classification)",
    )
    parser.add_argument("--method", help="of detection: retinanet, mask_rcnn, faster_rcnn or fcos")
    parser.add_argument(
        "--decoder", help="of segmentation: upernet (the default), fpn, segformer or deeplabv3plus"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="an option of every model, VALUE in YAML, such as window_size=14; may be repeated",
    )
    parser.add_argument(
        "--image-size",
        type=int,
        nargs="+",
        metavar="PIXELS",
        help="height and width, or one number for both (default: what each model is made for)",
    )
    parser.add_argument("--no-measure", action="store_true", help="count only: no speed, no memory")
    parser.add_argument("--training", action="store_true", help="measure forward and backward passes, too")
    parser.add_argument("--batch-size", type=int, help=f"pictures at a time when measuring ({BATCH_SIZE})")
    parser.add_argument("--rounds", type=int, help=f"how often each model's speed is taken ({ROUNDS})")
    parser.add_argument("--json", action="store_true", help="a list with one object a model")
    return parser


def _check(options: argparse.Namespace) -> None:
    """Mistakes that need no torch to be found."""
    for name, value in {"--batch-size": options.batch_size, "--rounds": options.rounds}.items():
        if value is not None and value < 1:
            raise UserError(f"{value} is too few; use 1 or more", key=name)
        if value is not None and options.no_measure:
            raise UserError(f"{name} says how to measure, and --no-measure not to: use one of them")
    if options.training and options.no_measure:
        raise UserError("--training says what to measure, and --no-measure not to: use one of them")
    if (options.task == "detection") != (options.method is not None):
        raise UserError("--task detection and --method (mask_rcnn, for example) go together", key="--method")
    if options.decoder is not None and options.task != "segmentation":
        raise UserError("goes with --task segmentation", key="--decoder")
    measuring = {
        "--batch-size": options.batch_size,
        "--rounds": options.rounds,
        "--training": options.training,
    }
    for name, value in measuring.items():
        if value and options.task != "classification":
            raise UserError("says how to measure, and backbones with heads are only counted", key=name)
    _size(options.image_size)


def _size(values: Sequence[int] | None) -> tuple[int, int] | None:
    if values is None:
        return None
    if len(values) > 2 or min(values) < 1:
        told = " ".join(map(str, values))
        raise UserError(f"{told} is neither one size nor height and width in pixels", key="--image-size")
    return values[0], values[-1]


def _count(names: Sequence[str], settings: Mapping[str, Any], size: tuple[int, int] | None) -> list[Profile]:
    from focal_lab.tools.profile.counts import count_model

    profiles: dict[str, Profile] = {}
    for label in names:
        counts = count_model(label, settings, size)
        if counts.name in profiles:
            raise UserError(f"{label}: the model {counts.name} is named twice")
        profiles[counts.name] = Profile(label, counts)
    return list(profiles.values())


def _measure(profiles: Sequence[Profile], batch_size: int, rounds: int, training: bool) -> list[Profile]:
    """Speed in this process, in turns; memory in a process each."""
    import torch

    from focal_lab.tools.profile.throughput import best_device

    device = best_device()
    machine = Machine(str(device), torch.get_num_threads(), batch_size, rounds)
    inference = _run(profiles, machine, training=False)
    trained: Sequence[Measured | None] = (
        _run(profiles, machine, training=True) if training else [None] * len(profiles)
    )
    return [
        Profile(profile.label, profile.counts, machine, *measured)
        for profile, *measured in zip(profiles, inference, trained, strict=True)
    ]


def _run(profiles: Sequence[Profile], machine: Machine, *, training: bool) -> list[Measured]:
    import torch

    from focal_lab.tasks.backbone import create_backbone
    from focal_lab.tools.profile.memory import measure_memory
    from focal_lab.tools.profile.throughput import make_pass, measure_speed, synchronizer

    device = torch.device(machine.device)
    passes, memory = [], []
    for profile in profiles:
        counts = profile.counts
        shape = (machine.batch_size, counts.channels, *counts.image_size)
        memory.append(measure_memory(counts.name, counts.arguments, shape, training=training))
        model = create_backbone(counts.name, counts.arguments).to(device)
        passes.append(make_pass(model, torch.randn(shape, device=device), training=training))
    speeds = measure_speed(
        passes, machine.batch_size, rounds=machine.rounds, synchronize=synchronizer(device)
    )
    return [Measured(speed, peak) for speed, peak in zip(speeds, memory, strict=True)]
