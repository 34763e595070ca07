"""Embedded images that need long range: digits in the cells of a grid, and a cue that names one of them.

The top left cell shows a square of one colour, the cue. Other cells show digits of different class and
colour, one of them in the cue's colour: its class is the label. All digits of an image are equally far from
the cue, so that none can be found, or excluded, by being near.

**The ceiling without communication.** In a network whose windows are the cells, which attends within windows,
merges tokens within cells and averages the logits of the cells, logits are sums of one function per cell.
The cross-entropy of such a network, over all images, is not increased by averaging it over all permutations
of the colours: the images with permuted colours are equally likely and have the same labels, and
cross-entropy is convex in the logits. In the average, the cue's cell adds the same whatever its colour. So
there is a best network without communication that does not see the cue; without the cue each of the digits
is equally likely the answer, and no guess is right more often than once in `digits` times: 50 % for two.
This is a bound for what training minimises, not for every sum of functions. Ranked classes (a red cue adds
to low ones, a green cue to high ones, a red digit of the higher class overrides both) give 75 %, with a
higher cross-entropy than guessing between the two.

Shape suffixes: B images, D digits of an image, S side of the image in px, C side of a cell in px. Distances
are in cells, by the larger of the differences in rows and columns, as windows are square.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from focal_lab.backbones.options import Size, image_size
from focal_lab.data.classification.samplers import NOTHING
from focal_lab.data.digits.classification import already_a_batch
from focal_lab.data.digits.embedded import EmbeddedData
from focal_lab.data.digits.mnist5k import DIGIT_SIDE, NUM_CLASSES, PER_CLASS, Split, source_digits
from focal_lab.data.option_checks import check, check_least
from focal_lab.errors import UserError

CELL_SIDE = DIGIT_SIDE // 2
COLOURS = np.array(
    [(255, 30, 30), (30, 255, 30), (30, 30, 255), (255, 255, 30), (255, 30, 255), (30, 255, 255)], np.uint8
)
# Measured over the default training images (seed 0), on a scale of 0 to 1, over all
# channels: blue occurs with three digits or more.
MEAN = 0.027
STD = 0.143

# Random streams of their own: the classification images have 0 to 2 and the scenes 10 to 12.
_STREAMS: dict[Split, int] = {"train": 20, "val": 21, "test": 22}
_GRIDS = (3, 6)
# Averages of 2 x 2 px are paler than the strokes.
_BRIGHTER = 1.3


class Arrangement(NamedTuple):
    """What is on each of B images, a few bytes an image; the answer is the first of the D digits.

    Attributes:
        digit: index of the source digit in its split, int16, shape (B, D).
        row, column: of the digit's cell, uint8, shape (B, D).
        colour: index of the digit's colour, uint8, shape (B, D); the cue has the colour of the answer.
        distance: of all digits from the cue, uint8, shape (B,).
    """

    digit: NDArray[np.int16]
    row: NDArray[np.uint8]
    column: NDArray[np.uint8]
    colour: NDArray[np.uint8]
    distance: NDArray[np.uint8]


class DigitsRetrieval(EmbeddedData):
    """Cued retrieval: the class of the digit that has the colour of a distant cue.

    Image i of a split depends only on the seed, the split, i and the options that say what is drawn. Every
    source digit of the split is the answer equally often, or once more than another; classes, places and
    colours of the other digits have the same distribution as the answer's, and distances are equally
    frequent. Images are painted when a batch is asked for.

    Memory: about 13 bytes an image with two digits.

    Args:
        grid: cells in a row and in a column, 3 to 6.
        digits: how many digits an image shows, each in its own colour, 2 to 6.
        classes: how many classes there are, the first ones of the ten.
        min_distance: least distance between the cue and the digits, in cells.
        max_distance: greatest distance; None for the farthest cells, grid - 1.
        control: negative control: the cue stands in the answer's own cell, with the digit cut out of it, and
            the top left cell is empty, so that the distance is 0. A network without communication can solve
            it, and all should solve it equally well.
        cell_size: side of a cell in px; in a larger one the digit stays 14 px wide, in the middle.
        num_train_images: how many different training images there are; an epoch shows each once.
        num_val_images: how many validation images.
        num_test_images: how many test images.
        batch_size: images per batch and process. The last incomplete training batch is dropped.
        num_workers: worker processes. A batch of 64 takes less than a millisecond: 0 is the fastest.
        seed: of the training images and their order; None for the seed of the run (`seed_everything`).
            Validation and test do not depend on any seed.
        data_seed: of the training images alone; None for `seed`.
        order_seed: of their order, and of everything else that is random in training, such as drop path;
            None for `seed` in the order and the seed of the run in the rest.

    Raises:
        UserError: an option is out of range, or the options do not fit each other.
    """

    mean = (MEAN,) * 3
    std = (STD,) * 3
    fills_up = True
    collate = staticmethod(already_a_batch)

    def __init__(
        self,
        grid: int = 4,
        digits: int = 2,
        classes: int = NUM_CLASSES,
        min_distance: int = 1,
        max_distance: int | None = None,
        control: bool = False,
        cell_size: int = CELL_SIDE,
        num_train_images: int = 32000,
        num_val_images: int = 1000,
        num_test_images: int = 5000,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int | None = None,
        data_seed: int | None = None,
        order_seed: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        least, most = _GRIDS
        check("grid", grid, least <= grid <= most, f"use {least} to {most} cells")
        check("digits", digits, 2 <= digits <= len(COLOURS), f"use 2 to {len(COLOURS)}, one for each colour")
        rule = f"use {digits}, the digits of an image, to {NUM_CLASSES}, the digits that there are"
        check("classes", classes, digits <= classes <= NUM_CLASSES, rule)
        check_least(self.hparams, {"cell_size": CELL_SIDE})
        _check_distances(grid, digits, min_distance, max_distance)
        self.class_names = tuple(str(digit) for digit in range(classes))
        self.begin()

    @property
    def num_classes(self) -> int:  # type: ignore[override]
        """How many classes the options ask for."""
        return len(self.class_names)

    @property
    def side(self) -> int:
        """Of the images, px."""
        return int(self.hparams["grid"] * self.hparams["cell_size"])

    def make(self, split: Split, seed: int, count: int) -> "RetrievalDataset":
        return RetrievalDataset(split, arrange(split, seed, count, self.hparams), self.hparams)

    def evaluation_image_sizes(self) -> Sequence[Size]:
        """All images have the same."""
        return [(self.side, self.side)]

    def check_network(self, model: Any) -> None:
        """Check that a network is made for these classes, and a focal backbone for this grid.

        Raises:
            UserError: the network has another number of classes, is made for images of another size, or a
                cell is not a whole number of tokens, so that a token would see two cells.
        """
        classes = getattr(model, "num_classes", self.num_classes)
        if classes != self.num_classes:
            raise UserError(
                f"{classes} is not the number of classes of the data, {self.num_classes} (use that, or null "
                "to take it from the data)",
                key="model.num_classes",
            )
        options = getattr(model, "options", None)
        if options is None:
            return
        grid, cell, side = self.hparams["grid"], self.hparams["cell_size"], self.side
        if image_size(options.img_size) != (side, side):
            height, width = image_size(options.img_size)
            raise UserError(
                f"{grid} x {grid} cells of {cell} px are {side} px, and the network is made for {height} x "
                f"{width} px (set model.backbone_options.img_size to {side})",
                key="data.init_args.grid",
            )
        if cell % options.patch_size:
            raise UserError(
                f"{cell} px are not a multiple of the network's patch_size, {options.patch_size} px: a token "
                "would see two cells (use another patch_size or cell_size)",
                key="data.init_args.cell_size",
            )

    def test_clusters(self) -> NDArray[np.int64]:
        """The source digit of each test image's answer, its index among those of the test split."""
        return self._tested.digit[:, 0].astype(np.int64)

    def test_groups(self) -> tuple[str, NDArray[np.int64]]:
        """The distance between cue and answer on each test image."""
        distance = self._tested.distance.astype(np.int64)
        return "distance", distance * (not self.hparams["control"])

    @property
    def _tested(self) -> Arrangement:
        dataset = self.dataset("test")
        assert isinstance(dataset, RetrievalDataset)
        return dataset.arrangement


class RetrievalDataset(Dataset[tuple[Tensor, Tensor]]):
    """Images and labels of an arrangement, painted and normalised a whole batch at a time."""

    def __init__(self, split: Split, arrangement: Arrangement, options: Mapping[str, Any]) -> None:
        self.split: Split = split
        self.arrangement = arrangement
        self.grid, self.cell = int(options["grid"]), int(options["cell_size"])
        self.control = bool(options["control"])
        self.labels = torch.from_numpy(source_digits(split).labels[arrangement.digit[:, 0]])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """One normalised image, float32 (3, S, S), and its label, int64 ()."""
        images, labels = self.__getitems__([index])
        return images[0], labels[0]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """A batch: (B, 3, S, S) and (B,); NOTHING gives some image with the label -1, which is ignored."""
        chosen = np.asarray(indices)
        images = torch.from_numpy(self.paint(chosen)).float().mul_(1 / (255 * STD)).sub_(MEAN / STD)
        positions = torch.from_numpy(chosen)
        return images, self.labels[positions].where(positions != NOTHING, NOTHING)

    def paint(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The images with these indices, uint8 (B, 3, S, S)."""
        count, grid, cell = len(indices), self.grid, self.cell
        digit, row, column, colour, _ = (field[indices] for field in self.arrangement)
        canvas = np.zeros((count, 3, grid, cell, grid, cell), np.uint8)
        each, colour_BD3 = np.arange(count), COLOURS[colour]
        shown = slice((cell - CELL_SIDE) // 2, (cell - CELL_SIDE) // 2 + CELL_SIDE)
        ink_BDCC = small_ink(self.split)[digit]
        for place in range(digit.shape[1]):
            ink_B3CC = ink_BDCC[:, place, None].astype(np.uint16) * colour_BD3[:, place, :, None, None] // 255
            canvas[each, :, row[:, place], shown, column[:, place], shown] = ink_B3CC
        cue_B311 = colour_BD3[:, 0, :, None, None]
        if self.control:
            # the digit is cut out of the square
            rest_B1CC = 255 - ink_BDCC[:, 0, None].astype(np.uint16)
            rest_B1CC[..., [0, -1], :] = rest_B1CC[..., :, [0, -1]] = 0
            canvas[each, :, row[:, 0], shown, column[:, 0], shown] = rest_B1CC * cue_B311 // 255
        else:
            canvas[:, :, 0, 1:-1, 0, 1:-1] = cue_B311
        return canvas.reshape(count, 3, grid * cell, grid * cell)


@functools.cache
def small_ink(split: Split) -> NDArray[np.uint8]:
    """The split's digits at half their size, uint8 (N, 14, 14), read-only."""
    images = source_digits(split).images.reshape(-1, CELL_SIDE, 2, CELL_SIDE, 2)
    ink: NDArray[np.uint8] = np.minimum(images.mean((2, 4)) * _BRIGHTER, 255).astype(np.uint8)
    ink.setflags(write=False)
    return ink


def arrange(split: Split, seed: int, count: int, options: Mapping[str, Any]) -> Arrangement:
    """What the first images of a split show: pass 0, pass 1, ... one after the other.

    Raises UserError if the source digits are missing.
    """
    digits = options["classes"] * PER_CLASS[split]  # sorted by class
    passes = [arrange_pass(split, seed, number, options) for number in range(-(-count // digits))]
    return Arrangement(*(np.concatenate(fields)[:count] for fields in zip(*passes, strict=True)))


def arrange_pass(split: Split, seed: int, number: int, options: Mapping[str, Any]) -> Arrangement:
    """One image for each source digit of the split as the answer, in random order.

    Each pass has its own random stream and is always drawn whole, so that an image does not depend on how
    many are asked for.
    """
    classes, shown, per_class = options["classes"], options["digits"], PER_CLASS[split]
    total = classes * per_class
    rng = np.random.default_rng([seed, _STREAMS[split], number])
    answer = rng.permutation(total)
    steps = rng.permuted(np.tile(np.arange(1, classes), (total, 1)), axis=1)[:, : shown - 1]
    others = (answer[:, None] // per_class + steps) % classes
    digit = np.column_stack([answer, others * per_class + rng.integers(per_class, size=others.shape)])
    row, column, distance = _random_cells(rng, total, options)
    colour = rng.permuted(np.tile(np.arange(shown), (total, 1)), axis=1)
    return Arrangement(
        digit.astype(np.int16),
        row.astype(np.uint8),
        column.astype(np.uint8),
        colour.astype(np.uint8),
        distance.astype(np.uint8),
    )


def cells_at(distance: int) -> NDArray[np.int64]:
    """Row and column of all cells at this distance from the top left one, shape (2 * distance + 1, 2)."""
    return np.array(
        [(distance, column) for column in range(distance + 1)] + [(row, distance) for row in range(distance)]
    )


def _random_cells(
    rng: np.random.Generator, total: int, options: Mapping[str, Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of different cells, (B, D), and their distance from the cue, (B,)."""
    least, most = options["min_distance"], options["max_distance"]
    most = options["grid"] - 1 if most is None else most
    distance = least + rng.permutation(total) % (most - least + 1)
    # a random order of the cells at the image's distance
    keys = rng.random((total, 2 * most + 1))
    keys[np.arange(2 * most + 1) > 2 * distance[:, None]] = np.inf
    order = np.argsort(keys, axis=1)[:, : options["digits"]]
    cells = np.zeros((most + 1, 2 * most + 1, 2), np.int64)
    for one in range(least, most + 1):
        cells[one, : 2 * one + 1] = cells_at(one)
    row, column = np.moveaxis(cells[distance[:, None], order], 2, 0)
    return row, column, distance


def _check_distances(grid: int, digits: int, least: int, most: int | None) -> None:
    rule = "use 1 or more; control: true puts the cue into the answer's cell"
    check("min_distance", least, least >= 1, rule)
    farthest = grid - 1
    check("min_distance", least, least <= farthest, f"{grid} x {grid} cells have at most {farthest}")
    if most is not None:
        rule = f"use min_distance, {least}, to {farthest}, the most on {grid} x {grid} cells"
        check("max_distance", most, least <= most <= farthest, rule)
    rule = f"{2 * least + 1} cells are that far from the cue, for {digits} digits; use {digits // 2} or more"
    check("min_distance", least, digits <= 2 * least + 1, rule)
