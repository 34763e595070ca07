"""`focal-lab export`: write a trained network for other programs."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from focal_lab.command_line import CommandParser, add_out, add_weights
from focal_lab.errors import UserError
from focal_lab.utils.atomic_files import atomic_output

if TYPE_CHECKING:
    from focal_lab.tools.trained.load import TrainedTask

_ENDINGS = {"onnx": ".onnx", "torch_export": ".pt2", "timm": "-timm"}
_TIMM_FILES = frozenset({"config.json", "model.safetensors", "README.md"})
_EPILOG = """CHECKPOINT is a file, or a run's folder or ID. No code in it is executed.

onnx and torch_export write one file that takes normalized images (B, 3, H, W). It returns the logits of a
classification, the logits of every pixel of a segmentation, or the boxes and scores of every anchor of
retinanet and fcos. timm writes a folder with config.json, model.safetensors and a model card; of detection
and segmentation it gets the backbone. Class names, mean, std and image size are stored in the file. The
outputs are compared with the module's on noise and on validation images before anything is written.

examples:
  focal-lab export 29b1bc09ae60 --to onnx
  focal-lab export runs/29b1bc09ae60 --to torch_export --output digits.pt2 --batch 8
  focal-lab export ade.ckpt --to onnx --image-size 512 1024 --opset 20
  focal-lab export best.ckpt --to timm --weights ema --license apache-2.0"""


def main(argv: list[str]) -> int:
    """Export a checkpoint; returns the exit status. After a UserError no file is left behind."""
    options = _parser().parse_args(argv)
    batch = _batch(options.batch)
    _check_options(options)
    if options.to == "onnx":
        from focal_lab.tools.export.graph import check_installed

        check_installed()
    from focal_lab.tools.trained.load import open_trained

    trained = open_trained(options.checkpoint, options.out, options.weights)
    target = options.output or Path(f"{trained.name}{_ENDINGS[options.to]}")
    holds = _TIMM_FILES if options.to == "timm" else None
    with atomic_output(target, force=options.force, holds=holds) as temporary:
        if options.to == "timm":
            lines = _timm(options, trained, temporary)
        else:
            lines = _graph(options, trained, temporary, batch)
    print(f"{trained.file} ({trained.task}, {trained.weights} weights) -> {target}")
    for line in lines:
        print(f"  {line}")
    return 0


def _graph(options: argparse.Namespace, trained: "TrainedTask", path: Path, batch: int | None) -> list[str]:
    from focal_lab.tools.export.graph import write_graph
    from focal_lab.tools.export.verify import verify
    from focal_lab.tools.export.wrapper import INPUT, portable

    network = portable(trained, options.image_size and tuple(options.image_size))
    run = write_graph(trained, network, options.to, path, batch, options.opset)
    shape = ["B" if batch is None else str(batch), str(network.channels), *map(str, network.size)]
    return [
        f"{INPUT} ({', '.join(shape)}), normalized; see the metadata for mean and std",
        *(f"{name}: {meaning}" for name, meaning in network.outputs.items()),
        *verify(run, network, trained, batch, options.tolerance),
    ]


def _timm(options: argparse.Namespace, trained: "TrainedTask", folder: Path) -> list[str]:
    from focal_lab.tools.export.timm_folder import load_timm, write_timm
    from focal_lab.tools.export.verify import verify

    compared = write_timm(trained, folder, options.license)
    lines = ['timm.create_model("local-dir:PATH", pretrained=True)']
    if trained.task != "classification":
        lines = [
            'timm.create_model("local-dir:PATH", pretrained=True, features_only=True)',
            "the backbone alone, without the norms of its maps and the heads: timm has no place for them",
        ]
    return lines + verify(load_timm(folder, trained), compared, trained, None, options.tolerance)


def _check_options(options: argparse.Namespace) -> None:
    """Refuse options that the chosen format does not have, rather than ignore them."""
    if options.tolerance <= 0:
        raise UserError(f"{options.tolerance:g} is not more than 0", key="--tolerance")
    if options.opset is not None and options.to != "onnx":
        raise UserError(f"applies to onnx; omit it with --to {options.to}", key="--opset")
    if options.license is not None and options.to != "timm":
        raise UserError("is for the model card of --to timm; omit it", key="--license")
    if options.image_size is not None and min(options.image_size) < 1:
        raise UserError(f"{' '.join(map(str, options.image_size))}: use 1 or more", key="--image-size")
    for name, value in {"--image-size": options.image_size, "--batch": options.batch}.items():
        if value is not None and options.to == "timm":
            raise UserError("fixes a graph's input; omit it with --to timm", key=name)


def _batch(text: str | None) -> int | None:
    if text is None or text == "dynamic":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{text!r} is not a batch size; use 1 or more, or dynamic", key="--batch")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="focal-lab export",
        description="Write a trained network for other programs, after comparing it with the module.",
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="the trained network")
    add("--to", required=True, choices=tuple(_ENDINGS), help="the format")
    add("--output", "-o", type=Path, metavar="PATH", help="default: the run ID or file name, in this folder")
    add("--force", action="store_true", help="overwrite the output")
    add_weights(parser)
    size = "size of the input in px (default: the size used in evaluation)"
    add("--image-size", nargs=2, type=int, metavar=("H", "W"), help=size)
    add("--batch", metavar="N|dynamic", help="batch size (default: dynamic, any number)")
    add("--opset", type=int, metavar="N", help="ONNX opset (default: torch's own choice)")
    tolerance = "largest allowed difference, relative to the largest value (default: 1e-4)"
    add("--tolerance", type=float, default=1e-4, metavar="X", help=tolerance)
    add("--license", metavar="NAME", help="license of the weights for the model card, such as apache-2.0")
    add_out(parser)
    return parser
