"""`focal-lab predict CHECKPOINT IMAGES...`: what a trained network sees in pictures."""

import argparse
import logging
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focal_lab.command_line import CommandParser, add_out
from focal_lab.errors import UserError, one_of

if TYPE_CHECKING:
    from focal_lab.tools.predict.table import Throughput
    from focal_lab.tools.trained.load import Trained
    from focal_lab.tools.trained.preprocessing import Preprocessing

_TOP = 5
# Pictures of detection and segmentation keep their size, which can be large.
_BATCH, _LARGE_BATCH = 32, 2
_FOLDER = Path("predictions")
_CLASSIFICATION = "classification"
_PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
_EPILOG = """CHECKPOINT is a file, or a run's folder or id, and comes first; IMAGES are files, folders (every
picture below) and patterns. Pictures go through the preprocessing that the run was judged by, and classes are
called as in the training; neither its data nor its configuration is needed. Nothing in a checkpoint is run.

classification writes a CSV table, a row a class, to --output or else to stdout. detection writes COCO's
result file and drawn pictures, segmentation masks and coloured pictures, to the folder --output or else
predictions/.
A picture that cannot be read is told and passed over; the exit status is 1 if none could be read.

examples:
  focal-lab predict 29b1bc09ae60 cat.jpg dog.jpg
  focal-lab predict runs/29b1bc09ae60/checkpoints/last.ckpt photos --top 1 --output photos.csv
  focal-lab predict mask.ckpt 'street/*.png' --output found --device cuda --precision bf16-mixed

another way in, told by a first argument that begins with --, predicts the data of an experiment on any number
of devices, as Lightning's command line does; its options follow below:
  focal-lab predict --config EXPERIMENT --ckpt_path CHECKPOINT --data.predict_root photos"""


def main(argv: list[str]) -> int:
    """Predict pictures; the exit status, 1 if none of them could be read.

    Args:
        argv: what follows `focal-lab predict`.

    Raises:
        UserError: an option is wrong, there is no such checkpoint or picture, or the output cannot be
            written; told before anything is predicted.
    """
    options = parser().parse_args(argv)
    for name, value in {"--batch-size": options.batch_size, "--top": options.top}.items():
        if value is not None and value < 1:
            raise UserError(f"{value} is too few; use 1 or more", key=name)
    if options.min_score is not None and not 0 <= options.min_score <= 1:
        raise UserError(f"{options.min_score:g} is not in [0, 1]", key="--min-score")
    if options.workers is not None and options.workers < 0:
        raise UserError(f"{options.workers} is not 0 or more", key="--workers")
    from focal_lab.tools.predict.images import find_pictures
    from focal_lab.tools.trained.load import open_trained

    files = find_pictures(options.images)
    device = _device(options.device)
    trained = open_trained(options.checkpoint, options.out, options.weights)
    channels = int(getattr(trained.data, "channels", 3))
    if trained.channels != channels:
        raise UserError(
            f"the network takes {trained.channels} channels, and picture files have {channels}",
            file=trained.file,
        )
    if trained.data is None:
        print(
            f"focal-lab: {trained.file}: {trained.trouble}; mean and std of ImageNet are assumed",
            file=sys.stderr,
        )
    if options.min_score is not None:
        if trained.task != "detection":
            raise UserError(f"is of detection, and {trained.file} is of {trained.task}", key="--min-score")
        trained.module.drawn_from = options.min_score
    if trained.task == _CLASSIFICATION:
        return _table(options, trained, files, device)
    return _drawn(options, trained, files, device)


def parser() -> argparse.ArgumentParser:
    """The options of this way in."""
    made = CommandParser(
        prog="focal-lab predict",
        description="What a trained network sees in pictures: of classification, detection or segmentation.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("checkpoint", metavar="CHECKPOINT", help="the trained network")
    made.add_argument("images", nargs="+", metavar="IMAGES", help="what to show it")
    made.add_argument("--output", "-o", type=Path, metavar="PATH", help="a file, or a folder; see below")
    made.add_argument("--force", action="store_true", help="overwrite what is there")
    made.add_argument("--top", type=int, metavar="K", help=f"classes a picture (default: {_TOP})")
    made.add_argument(
        "--min-score",
        type=float,
        metavar="S",
        help="draw the objects that a detector is that sure of; files of results have all (default: 0.5)",
    )
    made.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help=f"pictures a batch (default: {_BATCH}; {_LARGE_BATCH} of detection and segmentation)",
    )
    made.add_argument(
        "--workers", type=int, metavar="N", help="processes that read pictures (default: by the machine)"
    )
    made.add_argument(
        "--device",
        default="auto",
        help="auto, cpu, cuda, cuda:N or mps (default: auto, a GPU if there is one)",
    )
    made.add_argument("--precision", choices=_PRECISIONS, default=_PRECISIONS[0], help="default: 32-true")
    made.add_argument(
        "--weights",
        choices=("raw", "ema"),
        default="raw",
        help="the trained weights, or their moving average where the training kept one (default: raw)",
    )
    add_out(made)
    return made


def _table(options: argparse.Namespace, trained: "Trained", files: list[Path], device: Any) -> int:
    from focal_lab.tools.predict.output import table_stream
    from focal_lab.tools.predict.table import TopClasses, WriteTable

    classes = int(trained.options["num_classes"])
    if options.top is not None and options.top > classes:
        raise UserError(f"{options.top} is more than the {classes} classes", key="--top")
    shown = _shown(trained)
    with table_stream(options.output, options.force) as stream:
        module = TopClasses(trained.module.model, min(options.top or _TOP, classes))
        table = WriteTable(stream, files, shown, trained.module.classes)
        seen = _predict(options, trained, module, files, shown, device, [table], Path())[:2]
    return _report(seen, files, shown, [])


def _drawn(options: argparse.Namespace, trained: "Trained", files: list[Path], device: Any) -> int:
    from focal_lab.tools.predict.output import check_folder

    if options.top is not None:
        raise UserError(f"is of classification, and {trained.file} is of {trained.task}", key="--top")
    folder = options.output or _FOLDER
    check_folder(folder, options.force)
    shown = trained.preprocessing()
    seen = _predict(options, trained, trained.module, files, shown, device, [], folder)
    return _report(seen[:2], files, shown, [*seen[2], f"written to {folder}"])


def _predict(
    options: argparse.Namespace,
    trained: "Trained",
    module: Any,
    files: Sequence[Path],
    shown: "Preprocessing",
    device: tuple[str, Any],
    callbacks: Sequence[Any],
    folder: Path,
) -> tuple["Throughput", float, list[str]]:
    """Run the trainer; what it measured, the seconds that everything took, and what there is to say of it."""
    import torch
    from lightning import Trainer

    from focal_lab.tasks.image_callbacks import WritePictures
    from focal_lab.tools.predict.images import NamedPictures, default_workers
    from focal_lab.tools.predict.table import Throughput

    size = options.batch_size or (_BATCH if trained.task == _CLASSIFICATION else _LARGE_BATCH)
    batches = -(-len(files) // size)
    workers = default_workers(batches) if options.workers is None else options.workers
    pictures = NamedPictures(files, shown, trained.module.classes, size, workers)
    throughput = Throughput()
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")  # as in training
    with _quiet():
        trainer = Trainer(
            accelerator=device[0],
            devices=device[1],
            precision=options.precision,
            callbacks=[throughput, *callbacks],  # the clock stops before anything is written
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        begun = time.perf_counter()
        try:
            trainer.predict(module, datamodule=pictures, return_predictions=False)
        except SystemExit as error:
            # Lightning turns Ctrl-C into the exit status 1
            if isinstance(error.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from error
            raise
        except OSError as error:
            if error.filename is None:
                raise
            raise UserError(f"cannot be written: {error.strerror}", file=error.filename) from error
    seconds = time.perf_counter() - begun
    # the task has added its callbacks
    writers = [one for one in trainer.callbacks if isinstance(one, WritePictures)]  # type: ignore[attr-defined]
    return throughput, seconds, [note for writer in writers for note in writer.notes()]


def _report(
    seen: tuple["Throughput", float], files: Sequence[Path], shown: "Preprocessing", more: list[str]
) -> int:
    """Say on stderr how much was done, how fast, and what could not be read; the exit status."""
    from focal_lab.tools.predict.table import why_unreadable

    throughput, seconds = seen
    for number, file in enumerate(files):
        if number not in throughput.read:
            print(f"focal-lab: {file}: {why_unreadable(file, shown)}; passed over", file=sys.stderr)
    read = len(throughput.read)
    told = [f"{read} of {len(files)} pictures predicted, {len(files) - read} unreadable"]
    if read:
        told.append(
            f"{read / throughput.network_seconds:.1f} pictures/s of the network, {read / seconds:.1f} in all"
        )
    print("; ".join([*told, *more]), file=sys.stderr)
    return 0 if read else 1


def _shown(trained: "Trained") -> "Preprocessing":
    """What a classification's pictures go through."""
    shown = trained.preprocessing()
    if shown.size is None:
        raise UserError(
            f"{type(trained.data).__name__} does not say which size pictures get: it needs `eval_transform`",
            file=trained.file,
        )
    return shown


def _device(name: str) -> tuple[str, Any]:
    """Lightning's accelerator and devices."""
    import torch

    kind, _, number = name.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (number and (kind != "cuda" or not number.isdecimal())):
        raise UserError(
            f"{name!r} is no device; use {one_of(('auto', 'cpu', 'cuda', 'cuda:N', 'mps'))}", key="--device"
        )
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(number or 0) >= count:
            raise UserError(f"{name} is not there; PyTorch sees {count} CUDA device(s)", key="--device")
        return "cuda", [int(number or 0)]
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UserError("mps is not there; PyTorch sees no Apple GPU", key="--device")
    return kind, 1


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning tells of devices that it does not use, and recommends workers."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        logger.setLevel(level)
