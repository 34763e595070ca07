"""`focal-lab export`: a trained network for other programs, held against the module before it is written."""

import argparse
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focal_lab.command_line import CommandParser, add_out
from focal_lab.errors import UserError

if TYPE_CHECKING:
    from focal_lab.tools.export.verify import Difference
    from focal_lab.tools.trained.load import Trained

_FORMATS = ("onnx", "torch_export", "timm")
_ENDINGS = {"onnx": ".onnx", "torch_export": ".pt2", "timm": "-timm"}
# What such a folder holds; another folder is not overwritten.
_TIMM_FILES = frozenset({"config.json", "model.safetensors", "README.md"})
_EPILOG = """CHECKPOINT is a file, or a run's folder or id. Nothing in it is run.

onnx and torch_export write one file: normalised pictures (B, 3, H, W) in; logits of a classification, logits
of every pixel of a segmentation, or boxes and scores of every anchor of retinanet and fcos out. timm writes a
folder with config.json, model.safetensors and a model card; of detection and segmentation it gets the
backbone. Classes, mean, std and size are in the file. It is compared with the module on noise and on
validation pictures; one that differs is not written.

examples:
  focal-lab export 29b1bc09ae60 --to onnx
  focal-lab export runs/29b1bc09ae60 --to torch_export --output digits.pt2 --batch 8
  focal-lab export ade.ckpt --to onnx --image-size 512 1024 --opset 20
  focal-lab export best.ckpt --to timm --weights ema --license apache-2.0"""


def main(argv: list[str]) -> int:
    """Export a checkpoint; the exit status.

    Args:
        argv: what follows `focal-lab export`.

    Raises:
        UserError: an option is wrong, the checkpoint cannot be used, the format cannot hold the network, what
            it holds differs from the module, or it cannot be written; no file is left behind.
    """
    options = _parser().parse_args(argv)
    batch = _batch(options.batch)
    _check_options(options)
    if options.to != "timm":
        from focal_lab.tools.export.graph import check_installed

        check_installed(options.to)
    from focal_lab.tools.trained.load import open_trained

    trained = open_trained(options.checkpoint, options.out, options.weights)
    target = options.output or Path(f"{trained.name}{_ENDINGS[options.to]}")
    with _in_its_place(target, options.to == "timm", options.force) as temporary:
        found, more = (
            _timm(options, trained, temporary)
            if options.to == "timm"
            else _graph(options, trained, temporary, batch)
        )
    print(f"{trained.file} ({trained.task}, {trained.weights} weights) -> {target}")
    for line in (*more, *(f"largest difference from the module on {difference}" for difference in found)):
        print(f"  {line}")
    return 0


def _graph(
    options: argparse.Namespace, trained: "Trained", path: Path, batch: int | None
) -> tuple[list["Difference"], list[str]]:
    from focal_lab.tools.export.graph import record, write_onnx, write_torch_export
    from focal_lab.tools.export.metadata import metadata_of
    from focal_lab.tools.export.verify import check, compare
    from focal_lab.tools.export.wrapper import INPUT, portable

    made = portable(trained, _size(options.image_size))
    if trained.task == "detection" and trained.options["method"] in ("mask_rcnn", "faster_rcnn"):
        batch = 1  # the answer has another length for each picture
    metadata = metadata_of(trained, made, batch)
    called = str(trained.options.get("method") or trained.options["backbone"])
    program = record(made, options.to, batch, called)
    if options.to == "onnx":
        run = write_onnx(program, made, path, metadata, options.opset, called)
    else:
        run = write_torch_export(program, path, metadata)
    found = compare(run, made, trained, batch)
    check(found, options.tolerance)
    shape = ["B" if batch is None else str(batch), str(made.channels), *map(str, made.size)]
    told = [f"{INPUT} ({', '.join(shape)}), normalised; see the metadata for mean and std"]
    return found, told + [f"{name}: {meaning}" for name, meaning in made.outputs.items()]


def _timm(
    options: argparse.Namespace, trained: "Trained", folder: Path
) -> tuple[list["Difference"], list[str]]:
    from focal_lab.tools.export.timm_folder import for_timm, load_timm, write_timm
    from focal_lab.tools.export.verify import check, compare

    made = for_timm(trained)
    write_timm(made, trained, folder, options.license)
    found = compare(load_timm(folder, trained), made.compared, trained, None)
    check(found, options.tolerance)
    features = "" if trained.task == "classification" else ", features_only=True"
    told = [f'timm.create_model("local-dir:PATH", pretrained=True{features})']
    if features:
        told.append(
            "the backbone alone, without the norms of its maps and the heads: timm has no place for them"
        )
    return found, told


@contextmanager
def _in_its_place(target: Path, is_folder: bool, force: bool) -> Iterator[Path]:
    """A place beside the target, which becomes the target if nothing goes wrong."""
    if target.exists() or target.is_symlink():
        if target.is_dir() != is_folder:
            raise UserError(f"is {'not ' if is_folder else ''}a folder", file=target, key="--output")
        if not force:
            raise UserError("exists (overwrite it with --force)", file=target, key="--output")
        if is_folder and not {entry.name for entry in target.iterdir()} <= _TIMM_FILES:
            raise UserError("holds other files, too; name a new folder", file=target, key="--output")
    if not target.parent.is_dir():
        raise UserError(f"the folder {target.parent} does not exist", file=target, key="--output")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        if is_folder:
            temporary.mkdir()
        else:
            temporary.touch()
        yield temporary
        if is_folder and target.is_dir():
            shutil.rmtree(target)
        os.replace(temporary, target)
    except OSError as error:
        raise UserError(
            f"cannot be written: {error.strerror or error}", file=target, key="--output"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True) if is_folder else temporary.unlink(missing_ok=True)


def _check_options(options: argparse.Namespace) -> None:
    """Options that a format does not have are told, and not passed over."""
    if options.tolerance <= 0:
        raise UserError(f"{options.tolerance:g} is not more than 0", key="--tolerance")
    if options.opset is not None and options.to != "onnx":
        raise UserError(f"is of onnx; leave it out with --to {options.to}", key="--opset")
    if options.to != "timm":
        if options.license is not None:
            raise UserError("is for the model card of --to timm; leave it out", key="--license")
        return
    for name, value in {"--image-size": options.image_size, "--batch": options.batch}.items():
        if value is not None:
            raise UserError("is of a graph's input; timm's networks take what they take", key=name)


def _batch(text: str | None) -> int | None:
    if text is None or text == "dynamic":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{text!r} is no number of pictures; use 1 or more, or dynamic", key="--batch")
    return int(text)


def _size(sides: list[int] | None) -> tuple[int, int] | None:
    if sides is None:
        return None
    height, width = sides
    if min(height, width) < 1:
        raise UserError(f"{height} {width}: use 1 or more", key="--image-size")
    return height, width


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="focal-lab export",
        description="Write a trained network for other programs, after comparing it with the module.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add: Any = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="the trained network")
    add("--to", required=True, choices=_FORMATS, help="the format")
    add("--output", "-o", type=Path, metavar="PATH", help="default: the run's id or the file's name, here")
    add("--force", action="store_true", help="overwrite it")
    add(
        "--weights",
        choices=("raw", "ema"),
        default="raw",
        help="the trained weights, or their moving average where the training kept one (default: raw)",
    )
    add(
        "--image-size",
        nargs=2,
        type=int,
        metavar=("H", "W"),
        help="of the pictures, px (default: as the network was judged)",
    )
    add("--batch", metavar="N|dynamic", help="pictures at a time (default: dynamic, any number)")
    add("--opset", type=int, metavar="N", help="of ONNX (default: torch's own choice)")
    add(
        "--tolerance",
        type=float,
        default=1e-4,
        metavar="X",
        help="largest difference, as a share of the largest value (default: 1e-4)",
    )
    add("--license", metavar="NAME", help="of the weights, for the model card, such as apache-2.0")
    add_out(parser)
    return parser
