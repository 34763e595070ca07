"""`focal-lab inspect`: plots what a checkpoint's network, or the networks of a sweep, attend to."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from focal_lab.command_line import CommandParser, add_out, at_least
from focal_lab.data.loading.list_files import is_image
from focal_lab.errors import UserError

IMAGES = 32
_EPILOG = """CHECKPOINT is a Lightning checkpoint of classification, detection or segmentation, a run's folder
or ID, or a file of weights (with --model, unless focal-lab convert wrote it). No code in it is executed.
Images get the preprocessing of the run's validation; without any, the first of its validation data are used,
and the first one is drawn.

examples:
  focal-lab inspect 29b1bc09ae60                           a run in runs/, by its ID
  focal-lab inspect runs/29b1bc09ae60 --query 9,14 --block 1,3 --head 0
  focal-lab inspect focal_tiny.safetensors cat.jpg dog.jpg --output plots
  focal-lab inspect --model focal_tiny cat.jpg             untrained
  focal-lab inspect --sweep window_size                    a run of each cell; focal-lab report shows them"""


def main(argv: list[str]) -> int:
    """Inspect one network or a sweep's; returns the exit status. Mistakes are reported before computing."""
    options = _parser().parse_intermixed_args(argv)
    if options.sweep is not None:
        given = {"CHECKPOINT": options.names, "--model": options.model, "--output": options.output}
        for name, value in given.items():
            if value:
                raise UserError("does not go with --sweep, which inspects its own runs", key=name)
        from focal_lab.tools.inspect.sweep import inspect_sweep

        return inspect_sweep(options, options.num_images or IMAGES)
    for name, value in {"--suite": options.suite, "--seeds": options.seeds, "--tasks": options.tasks}.items():
        if value is not None:
            raise UserError(f"selects runs of a sweep: add --sweep SWEEP, or leave {name} out", key=name)
    if options.force:
        raise UserError("goes with --sweep; a single network is always inspected again", key="--force")
    checkpoint, files = _checkpoint_and_images(options)
    return _inspect_one(options, checkpoint, files)


def _inspect_one(options: argparse.Namespace, checkpoint: str | None, files: Sequence[Path]) -> int:
    from focal_lab.report.html.attention_images import INSPECT
    from focal_lab.sweep.plan.plan import parse_overrides
    from focal_lab.tools.inspect.shares import choose_layers, inspect_network
    from focal_lab.tools.inspect.source import evaluation_images, network_of, open_network, read_images
    from focal_lab.tools.inspect.write import summary, write_inspection

    trained = open_network(checkpoint, options.out, options.model, parse_overrides(options.set))
    layers = choose_layers(network_of(trained), options.block, options.head)
    # of a run, where the page of its sweep looks for it
    runs = Path() if trained.run is None else trained.run.parent
    folder = options.output or runs / INSPECT / trained.name
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is not a folder", key="--output")
    images = (
        read_images(trained, files) if files else evaluation_images(trained, options.num_images or IMAGES)
    )
    draw = max(1, len(files))
    found = inspect_network(trained, images, layers, draw=draw, query=options.query, head=options.head)
    record = write_inspection(trained, found, folder, head=options.head)
    print(json.dumps(record, indent=1) if options.json else summary(trained, found, folder, record))
    return 0


def _checkpoint_and_images(options: argparse.Namespace) -> tuple[str | None, list[Path]]:
    """The checkpoint, which a model does not need, and the image files."""
    names = list(options.names)
    if not names and options.model is None:
        raise UserError("name a checkpoint, a run, or a sweep with --sweep", key="CHECKPOINT")
    first_is_image = bool(names) and is_image(names[0])
    if first_is_image and options.model is None:
        raise UserError("is an image; name the checkpoint first, or a model with --model", file=names[0])
    checkpoint = None if not names or first_is_image else names.pop(0)
    if options.set and options.model is None:
        raise UserError("sets options of a --model; a checkpoint has its own", key="--set")
    files = [Path(name) for name in names]
    if files and options.num_images is not None:
        raise UserError("is about validation data; leave it out, or the images", key="--num-images")
    for file in files:
        if not file.is_file():
            raise UserError("is not a file" if file.exists() else "there is no such image", file=file)
    return checkpoint, files


def _query(text: str) -> tuple[int, int]:
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a pixel; use X,Y, such as 14,14")
    return int(parts[0]), int(parts[1])


def _blocks(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of blocks; use 0, or 1,3,7")
    return [int(part) for part in parts]


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="focal-lab inspect",
        description="Plot what queries attend to, attention by level, learned biases and receptive fields.",
        epilog=_EPILOG,
        renamed={"--pictures": "--num-images"},
    )
    add = parser.add_argument
    add("names", nargs="*", metavar="CHECKPOINT [IMAGE ...]", help="the network to inspect, and image files")
    add("--query", type=_query, metavar="X,Y", help="pixel of the network's input (default: the centre)")
    blocks = "blocks to draw, from 0 (default: last of each stage)"
    add("--block", type=_blocks, metavar="N[,N...]", help=blocks)
    add("--head", type=int, metavar="N", help="from 0 (default: the average of all heads)")
    images = f"validation images to average shares over (default: {IMAGES})"
    add("--num-images", type=at_least(1), metavar="N", help=images)
    output = "folder for plots and inspect.json (default: OUT/inspect/RUN of a run, else inspect/NAME)"
    add("--output", "-o", type=Path, metavar="FOLDER", help=output)
    add_out(parser)
    add("--model", metavar="NAME", help="the focal backbone that the weights are for; alone: untrained")
    options = "an option of --model; or with --sweep, as in focal-lab sweep"
    add("--set", action="append", default=[], metavar="KEY=VALUE", help=options)
    add("--json", action="store_true", help="print the contents of inspect.json")
    sweep = "inspect a finished run of each cell of a sweep; its page shows the plots"
    add("--sweep", metavar="SWEEP", help=sweep)
    add("--force", action="store_true", help="with --sweep: inspect runs again that were inspected before")
    add("--suite", help="with --sweep: as in focal-lab report")
    add("--tasks", nargs="+", metavar="TASK", help="with --sweep: as in focal-lab report")
    add("--seeds", type=int, help="with --sweep: as in focal-lab report")
    return parser
