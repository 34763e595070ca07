"""Images a second of our ImageNet training pipeline, as a ratio to timm's `create_loader`.

    python benchmarks/loader.py FOLDER [OTHER ...] [--workers 2] [--rounds 7]

Both loaders do the same to an image (random part, mirror, RandAugment, then on the device normalisation and
random erasing), with as many processes. A round is one epoch of each in turn, with nothing in preparation
before or after it. Further roots are the same images in other layouts (archives, tables), read by ours.
"""

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from timing import hardware, interleaved, markdown
from timm.data import ImageDataset, create_loader

from focal_lab.data.classification.augmentation import allow_posterizing_to_zero_bits
from focal_lab.data.classification.image_folder import ImageFolderDataModule

RECIPE = {"auto_augment": "rand-m9-mstd0.5-inc1", "color_jitter": 0.4, "interpolation": "bicubic"}
ERASING = 0.25


def timms(options: argparse.Namespace, device: torch.device) -> tuple[Callable[[], None], int]:
    """An epoch of timm's loader, and how many images it has."""
    dataset = ImageDataset(f"{options.roots[0]}/train")
    loader = create_loader(
        dataset,
        options.image_size,
        options.batch_size,
        is_training=True,
        re_prob=ERASING,
        re_mode="pixel",
        num_workers=options.workers,
        pin_memory=device.type == "cuda",
        device=device,
        **RECIPE,
    )
    # it would end the measurement with an error, see the function
    allow_posterizing_to_zero_bits(dataset.transform)

    def epoch() -> None:
        for images, _ in loader:
            assert images.dtype == torch.float32
        synchronize(device)

    return epoch, len(loader) * options.batch_size


def ours(root: str, options: argparse.Namespace, device: torch.device) -> Callable[[], None]:
    """An epoch of our loader, as Lightning moves it to the device."""
    data = ImageFolderDataModule(
        root,
        image_size=options.image_size,
        batch_size=options.batch_size,
        num_workers=options.workers,
        random_erasing=ERASING,
        val_split=0.001,  # where there is no validation, nearly all is trained on
        **RECIPE,
    )
    data.setup("fit")
    loader = data.train_dataloader()

    def epoch() -> None:
        loader.sampler.set_epoch(loader.sampler.epoch + 1)
        for images, *rest in loader:
            batch = [images.to(device, non_blocking=True), rest[0].to(device, non_blocking=True), *rest[1:]]
            assert data.on_after_batch_transfer(batch, 0)[0].dtype == torch.float32
        synchronize(device)

    return epoch


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("roots", nargs="+", help="the first has train/CLASS/*.jpg")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--batch_size", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)  # the main process only normalises: no threads that wait beside the loaders
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    baseline, count = timms(options, device)
    candidates = {"timm, folders": baseline}
    candidates |= {f"ours, {Path(root).name}": ours(root, options, device) for root in options.roots}
    timings = interleaved(candidates, options.rounds)
    rows = [
        [name, f"{count / timing.seconds:.0f}", f"{1 / timing.ratio:.3f}"] for name, timing in timings.items()
    ]
    where = f"{device.type}, {options.workers} processes, {options.image_size} px, {count} images"
    print(f"{hardware()}; {where}\n")
    print(markdown(["loader", "images a second", "ratio of images a second"], rows))


if __name__ == "__main__":
    main()
