"""`focal-lab inspect`: what a network's attention looks at, of a checkpoint or of a sweep's cells."""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focal_lab.command_line import CommandParser, add_out
from focal_lab.errors import UserError

if TYPE_CHECKING:
    from focal_lab.tools.inspect.measure import Inspection
    from focal_lab.tools.inspect.source import Source

PICTURES = 32
_PICTURE_FILES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})
_ASCII = str.maketrans({"–": "-", "─": "-"})  # noqa: RUF001
_EPILOG = """CHECKPOINT is a Lightning checkpoint of classification, detection or segmentation, a run's folder
or id, or a file of weights (with --model, unless focal-lab convert wrote it). Nothing in it is run.
Pictures go through the preprocessing of the run's validation; without any, the first of its validation data
are taken, and the first one is drawn.

examples:
  focal-lab inspect 29b1bc09ae60                           a run in runs/, by its id
  focal-lab inspect runs/29b1bc09ae60 --query 9,14 --block 1,3 --head 0
  focal-lab inspect focal_tiny.safetensors cat.jpg dog.jpg --output pictures
  focal-lab inspect --model focal_tiny cat.jpg             as it begins, without any training
  focal-lab inspect --sweep window_size                    a run of each cell; focal-lab report shows them"""


def main(argv: list[str]) -> int:
    """Inspect one network or a sweep's; the exit status.

    Args:
        argv: what follows `focal-lab inspect`.

    Raises:
        UserError: an option is wrong, or a file cannot be read or written; told before anything is computed.
    """
    options = _parser().parse_intermixed_args(argv)
    query = _query(options.query)
    blocks = _blocks(options.block)
    if options.pictures is not None and options.pictures < 1:
        raise UserError(f"{options.pictures} is too few; use 1 or more", key="--pictures")
    if options.sweep is not None:
        _check_alone(options)
        from focal_lab.tools.inspect.sweep import inspect_sweep

        return inspect_sweep(options, query, blocks, options.pictures or PICTURES)
    for name, value in {"--suite": options.suite, "--seeds": options.seeds, "--tasks": options.tasks}.items():
        if value is not None:
            raise UserError(f"says which runs a sweep has: add --sweep SWEEP, or leave {name} out", key=name)
    if options.force:
        raise UserError("goes with --sweep; a single network is always inspected anew", key="--force")
    checkpoint, images = _named(options)
    if images and options.pictures is not None:
        raise UserError("is about validation data; leave it out, or the pictures", key="--pictures")
    return _one(options, checkpoint, images, query, blocks)


def _one(
    options: argparse.Namespace,
    checkpoint: str | None,
    images: Sequence[Path],
    query: tuple[int, int] | None,
    blocks: Sequence[int] | None,
) -> int:
    from focal_lab.sweep.plan.plan import parse_overrides
    from focal_lab.tools.inspect.measure import choose_layers, inspect_network
    from focal_lab.tools.inspect.source import open_source
    from focal_lab.tools.inspect.write import write_inspection

    for image in images:
        if not image.is_file():
            raise UserError("is not a file" if image.exists() else "there is no such picture", file=image)
    source = open_source(checkpoint, options.out, options.model, parse_overrides(options.set))
    layers = choose_layers(source.network, blocks, options.head)
    folder = options.output or _folder(source)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is not a folder", key="--output")
    pictures = [(image.name, source.read(image)) for image in images]
    count = options.pictures or PICTURES
    pictures = pictures or list(source.validation_pictures(count))
    found = inspect_network(
        source, pictures, layers, draw=max(1, len(images)), query=query, head=options.head
    )
    record = write_inspection(source, found, layers, folder, head=options.head)
    if options.json:
        print(json.dumps(record, indent=1))
    else:
        _say(source, found, folder, record)
    return 0


def _say(source: "Source", found: "Inspection", folder: Path, record: dict[str, Any]) -> None:
    from focal_lab.tools.inspect.write import shares_text

    what = ", ".join(f"{key}={value}" for key, value in source.settings.items())
    weights = "no weights: as it begins" if source.file is None else str(source.file)
    told = [
        f"{source.model}{f' ({what})' if what else ''}, {weights}",
        f"attention by level, averaged over queries, heads and {found.count} picture(s)",
        "",
        shares_text(
            source, found, shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else None
        ),
        f"recomputed beside the network; {_agreement(found.error)}",
        *(f"{folder / picture['file']}" for picture in record["pictures"]),
    ]
    write("\n".join(told) + "\n")


def _agreement(error: float) -> str:
    if error == 0:
        return "its own output to the last bit"
    return f"differs from its own output by {error:.0e} of the largest value"


def write(text: str) -> None:
    """To stdout, in letters that it knows."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(_ASCII).encode(encoding, "replace").decode(encoding)
    sys.stdout.write(text)


def _folder(source: "Source") -> Path:
    """Of a run, where the page of its sweep looks; else a folder of that name where we are."""
    from focal_lab.report.html.attention_images import INSPECT

    beside = Path() if source.run is None else source.run.parent
    return beside / INSPECT / source.name


def _named(options: argparse.Namespace) -> tuple[str | None, list[Path]]:
    """The checkpoint, if one was named, and the pictures. A model needs no checkpoint."""
    names = list(options.names)
    if not names and options.model is None:
        raise UserError("name a checkpoint, a run, or a sweep with --sweep", key="CHECKPOINT")
    first_is_picture = bool(names) and Path(names[0]).suffix.lower() in _PICTURE_FILES
    if first_is_picture and options.model is None:
        raise UserError("is a picture; name the checkpoint first, or a model with --model", file=names[0])
    checkpoint = None if not names or first_is_picture else names.pop(0)
    if options.set and options.model is None:
        raise UserError("sets options of a --model; a checkpoint says its own", key="--set")
    return checkpoint, [Path(name) for name in names]


def _check_alone(options: argparse.Namespace) -> None:
    given = {"CHECKPOINT": options.names, "--model": options.model, "--output": options.output}
    for name, value in given.items():
        if value:
            raise UserError("does not go with --sweep, which inspects its own runs", key=name)


def _query(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise UserError(f"{text!r} is no pixel; say X,Y, such as 14,14", key="--query")
    return int(parts[0]), int(parts[1])


def _blocks(text: str | None) -> list[int] | None:
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise UserError(f"{text!r} are no numbers of blocks; say 0, or 1,3,7", key="--block")
    return [int(part) for part in parts]


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="focal-lab inspect",
        description="What a query attends to, how attention is divided among levels, learned biases, reach.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="CHECKPOINT [IMAGE ...]",
        help="what to look into, and pictures to show it",
    )
    parser.add_argument(
        "--query", metavar="X,Y", help="pixel of the pictures as the network gets them (default: the centre)"
    )
    parser.add_argument(
        "--block",
        metavar="N[,N...]",
        help="blocks to draw, counted from 0 as in the paper's figure 7 (default: the last of each stage)",
    )
    parser.add_argument("--head", type=int, metavar="N", help="from 0 (default: the average of all heads)")
    parser.add_argument(
        "--pictures",
        type=int,
        metavar="N",
        help=f"validation pictures to average shares over (default: {PICTURES})",
    )
    parser.add_argument(
        "--output",
        "-o",
        type=Path,
        metavar="FOLDER",
        help="where pictures and inspect.json go (default: of a run OUT/inspect/RUN, else inspect/NAME)",
    )
    add_out(parser)
    parser.add_argument("--model", metavar="NAME", help="the focal backbone of a file of weights, or alone")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of --model; or with --sweep, as given to focal-lab sweep",
    )
    parser.add_argument("--json", action="store_true", help="print what inspect.json holds")
    parser.add_argument(
        "--sweep", metavar="SWEEP", help="inspect a finished run of each cell of a sweep, for its page"
    )
    parser.add_argument("--force", action="store_true", help="with --sweep: again what was inspected before")
    parser.add_argument("--suite", help="with --sweep: as in focal-lab report")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="with --sweep: as in focal-lab report")
    parser.add_argument("--seeds", type=int, help="with --sweep: as in focal-lab report")
    return parser
