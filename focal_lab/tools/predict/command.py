"""`focal-lab predict CHECKPOINT IMAGES...`: run a trained network on images."""

import argparse
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focal_lab.command_line import CommandParser, add_out, add_weights, at_least
from focal_lab.errors import UserError, one_of
from focal_lab.utils.atomic_files import atomic_output

if TYPE_CHECKING:
    from focal_lab.tools.predict.images import NamedImages
    from focal_lab.tools.trained.load import TrainedTask

_TOP = 5
# Images of detection and segmentation keep their size, which can be large.
_BATCH, _LARGE_BATCH = 32, 2
_FOLDER = Path("predictions")
_PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
_EPILOG = """CHECKPOINT is a file, or a run's folder or ID, and comes first; IMAGES are files, folders (every
image below) and patterns. Images get the preprocessing and class names of the training, whose data and
configuration are not needed. No code in a checkpoint is executed.

classification writes a CSV table, one row per class, to --output or else to stdout. detection writes COCO's
result file and drawn images, segmentation masks and coloured images, to the folder --output or else
predictions/. An image that cannot be read is reported and skipped; if none can, the exit status is 1.

examples:
  focal-lab predict 29b1bc09ae60 cat.jpg dog.jpg
  focal-lab predict runs/29b1bc09ae60/checkpoints/last.ckpt photos --top 1 --output photos.csv
  focal-lab predict mask.ckpt 'street/*.png' --output found --device cuda --precision bf16-mixed"""


def main(argv: list[str]) -> int:
    """Predict images; returns the exit status, 1 if none could be read. Mistakes are reported before."""
    options = _parser().parse_args(argv)
    if options.min_score is not None and not 0 <= options.min_score <= 1:
        raise UserError(f"{options.min_score:g} is not in [0, 1]", key="--min-score")
    from focal_lab.tools.predict.images import NamedImages, default_workers, find_images
    from focal_lab.tools.trained.load import open_trained

    files = find_images(options.images)
    device = _device(options.device)
    trained = open_trained(options.checkpoint, options.out, options.weights)
    _check_network(options, trained)
    preprocessing = trained.preprocessing()
    classes = trained.task == "classification"
    if classes and preprocessing.size is None:
        raise UserError(
            f"{type(trained.data).__name__} does not define its image size: it needs `eval_transform`",
            file=trained.file,
        )
    size = options.batch_size or (_BATCH if classes else _LARGE_BATCH)
    workers = default_workers(len(files), size) if options.workers is None else options.workers
    images = NamedImages(files, preprocessing, size, workers)
    if classes:
        return _write_table(options, trained, images, device)
    folder = options.output or _FOLDER
    _check_folder(folder, options.force)
    if options.min_score is not None:
        trained.module.drawn_from = options.min_score
    return _predict(trained.module, images, device, options.precision, [], folder)


def _write_table(
    options: argparse.Namespace, trained: "TrainedTask", images: "NamedImages", device: tuple[str, Any]
) -> int:
    from focal_lab.tools.predict.table import TopClasses, WriteTable

    with ExitStack() as stack:
        stream = sys.stdout
        if options.output is not None:
            temporary = stack.enter_context(atomic_output(options.output, force=options.force))
            stream = stack.enter_context(open(temporary, "w", newline="", encoding="utf-8"))
        module = TopClasses(trained.module.model, min(options.top or _TOP, len(trained.class_names)))
        table = WriteTable(stream, images, trained.module.classes)
        return _predict(module, images, device, options.precision, [table])


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="focal-lab predict",
        description="Run a trained network on images: classification, detection or segmentation.",
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="the trained network")
    add("images", nargs="+", metavar="IMAGES", help="files, folders and patterns")
    add("--output", "-o", type=Path, metavar="PATH", help="a file, or a folder; see below")
    add("--force", action="store_true", help="overwrite the output")
    add("--top", type=at_least(1), metavar="K", help=f"classes per image (default: {_TOP})")
    score = "only draw objects with at least this score; result files have all (default: 0.5)"
    add("--min-score", type=float, metavar="S", help=score)
    batch = f"images per batch (default: {_BATCH}; {_LARGE_BATCH} for detection and segmentation)"
    add("--batch-size", type=at_least(1), metavar="N", help=batch)
    workers = "processes that read images (default: one per core, up to 8)"
    add("--workers", type=at_least(0), metavar="N", help=workers)
    device = "auto, cpu, cuda, cuda:N or mps (default: auto, a GPU if available)"
    add("--device", default="auto", help=device)
    add("--precision", choices=_PRECISIONS, default=_PRECISIONS[0], help="default: 32-true")
    add_weights(parser)
    add_out(parser)
    return parser


def _check_network(options: argparse.Namespace, trained: "TrainedTask") -> None:
    """Refuse options of another task and a network that does not take image files."""
    channels = int(getattr(trained.data, "channels", 3))
    if trained.channels != channels:
        raise UserError(
            f"the network takes {trained.channels} channels, and image files have {channels}",
            file=trained.file,
        )
    if trained.data is None:
        print(f"focal-lab: {trained.file}: {trained.trouble}; using ImageNet's mean and std", file=sys.stderr)
    tasks = {"--min-score": (options.min_score, "detection"), "--top": (options.top, "classification")}
    for name, (value, task) in tasks.items():
        if value is not None and trained.task != task:
            raise UserError(f"is for {task}, and {trained.file} is a {trained.task}", key=name)
    if options.top is not None and options.top > len(trained.class_names):
        raise UserError(f"{options.top} is more than the {len(trained.class_names)} classes", key="--top")


def _predict(
    module: Any,
    images: "NamedImages",
    device: tuple[str, Any],
    precision: Any,
    callbacks: Sequence[Any],
    folder: Path | None = None,
) -> int:
    """Run the trainer; print on stderr what was predicted, how fast, and what could not be read."""
    import torch
    from lightning import Trainer

    from focal_lab.tasks.image_callbacks import WriteImages
    from focal_lab.tools.predict.table import PredictionTimer

    timer = PredictionTimer()
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")  # as in training
    with _quiet():
        trainer = Trainer(
            accelerator=device[0],
            devices=device[1],
            precision=precision,
            callbacks=[timer, *callbacks],  # the timer stops before anything is written
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        begun = time.perf_counter()
        try:
            trainer.predict(module, datamodule=images, return_predictions=False)
        except SystemExit as error:  # Lightning turns Ctrl-C into the exit status 1
            if isinstance(error.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from error
            raise
        except OSError as error:
            if error.filename is None:
                raise
            raise UserError(f"cannot be written: {error.strerror}", file=error.filename) from error
    seconds = time.perf_counter() - begun
    total, read = len(images.predict_files), len(timer.read)
    for number, file in enumerate(images.predict_files):
        if number not in timer.read:
            print(f"focal-lab: {file}: {images.why_unreadable(number)}; skipped", file=sys.stderr)
    words = [f"{read} of {total} images predicted, {total - read} unreadable"]
    if read:
        network, overall = read / timer.network_seconds, read / seconds
        words.append(f"{network:.1f} images/s in the network, {overall:.1f} overall")
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        words += callback.notes() if isinstance(callback, WriteImages) else []
    words += [f"written to {folder}"] if folder else []
    print("; ".join(words), file=sys.stderr)
    return 0 if read else 1


def _check_folder(folder: Path, force: bool) -> None:
    """Create the output folder, or refuse one that is not empty or not writable."""
    if folder.exists() and not folder.is_dir():
        raise UserError("is not a folder", file=folder, key="--output")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise UserError("is not empty (write into it with --force)", file=folder, key="--output")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(
            f"cannot be written: {error.strerror or error}", file=folder, key="--output"
        ) from error


def _device(name: str) -> tuple[str, Any]:
    """Lightning's accelerator and devices."""
    import torch

    kind, _, number = name.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (number and (kind != "cuda" or not number.isdecimal())):
        known = one_of(("auto", "cpu", "cuda", "cuda:N", "mps"))
        raise UserError(f"{name!r} is not a device; use {known}", key="--device")
    there = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if int(number or 0) >= there.get(kind, 1):
        raise UserError(f"{name} is not available; PyTorch sees {there[kind]} {kind} devices", key="--device")
    return kind, [int(number)] if number else 1


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's notes on unused devices and its advice on workers."""
    logging.disable(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        logging.disable(logging.NOTSET)
