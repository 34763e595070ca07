"""Scenes of handwritten digits: one description, from which every task takes its picture and its labels.

A scene is a list of stamps on a black canvas. A stamp is a square cut from a source digit, resized, coloured
and blended onto what is already there with the ink as opacity. Stamps of whole digits are the objects;
stamps of small crops are the pieces, clutter without a label. Pieces are painted first and objects after
them in their order, so no piece ever covers a stroke of an object, and a later object covers an earlier one.

`render` and `annotate` take one scene of any composition. `render_batch` paints many scenes of equal
composition at once, five times faster, and gives the same pixels.

Shape suffixes: B scenes, N objects of a scene, H W canvas, S side of a stamp. Pictures are uint8 RGB with
the channels first. Positions and sizes are in pixels; a digit's index counts within its split's `Digits`.
"""

import functools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from focal_lab.data.digits.mnist5k import DIGIT_SIDE, Digits

PIECE_SIDE = 8
# A quarter of full ink makes a pixel part of an object: half would break up the thin strokes of small digits.
INK = 64

# MNIST centres 20 px of handwriting in 28 px: crops from this range of positions rarely come out empty.
_FIRST_CROP, _LAST_CROP = 4, DIGIT_SIDE - 4 - PIECE_SIDE
_DARKEST = 64
_PLACEMENT_TRIES = 20


@dataclass(frozen=True)
class Stamp:
    """A square cut from a source digit, drawn `size` px wide in one colour.

    Attributes:
        digit: index of the source digit.
        top, left: where the upper left corner lies on the canvas.
        size: side on the canvas.
        colour: RGB, 0-255.
        crop_top, crop_left, crop_side: the square within the 28 px of the source digit; all of it by default.
    """

    digit: int
    top: int
    left: int
    size: int
    colour: tuple[int, int, int]
    crop_top: int = 0
    crop_left: int = 0
    crop_side: int = DIGIT_SIDE


@dataclass(frozen=True)
class Scene:
    """What is drawn on a canvas of height x width pixels, from back to front: pieces, then objects.

    Every stamp lies inside the canvas. Objects are whole digits; their class is that of the source digit.
    """

    height: int
    width: int
    objects: tuple[Stamp, ...]
    pieces: tuple[Stamp, ...] = ()

    def __post_init__(self) -> None:
        for stamp in (*self.pieces, *self.objects):
            if not (
                0 <= stamp.top <= self.height - stamp.size and 0 <= stamp.left <= self.width - stamp.size
            ):
                raise ValueError(f"{stamp} leaves the canvas of {self.height} x {self.width} px")


@dataclass(frozen=True)
class Annotations:
    """Labels of the N objects that can be seen, in the scene's order.

    Attributes:
        labels: class 0-9, int64, shape (N,).
        masks: the pixels where the object is seen, bool, shape (N, H, W); masks do not overlap.
        boxes: (x1, y1, x2, y2) around the mask, float32, shape (N, 4); x2 and y2 are exclusive, so that
            x2 - x1 is the width.
        semantic: class + 1 per pixel, 0 for background and pieces, uint8, shape (H, W).
    """

    labels: NDArray[np.int64]
    masks: NDArray[np.bool_]
    boxes: NDArray[np.float32]
    semantic: NDArray[np.uint8]


@dataclass(frozen=True)
class Layer:
    """One stamp for each of B scenes, none of them resized.

    Attributes:
        digit, top, left, crop_top, crop_left: `Stamp`'s fields, shape (B,).
        colour: shape (B, 3).
        side: both `size` and `crop_side` of all the stamps.
    """

    digit: NDArray[np.int64]
    top: NDArray[np.int64]
    left: NDArray[np.int64]
    colour: NDArray[np.uint8]
    crop_top: NDArray[np.int64]
    crop_left: NDArray[np.int64]
    side: int

    def first(self, count: int) -> "Layer":
        """The stamps of the first `count` scenes."""
        return Layer(
            digit=self.digit[:count],
            top=self.top[:count],
            left=self.left[:count],
            colour=self.colour[:count],
            crop_top=self.crop_top[:count],
            crop_left=self.crop_left[:count],
            side=self.side,
        )

    def stamp(self, scene: int) -> Stamp:
        """The stamp that belongs to one of the scenes."""
        red, green, blue = (int(value) for value in self.colour[scene])
        return Stamp(
            digit=int(self.digit[scene]),
            top=int(self.top[scene]),
            left=int(self.left[scene]),
            size=self.side,
            colour=(red, green, blue),
            crop_top=int(self.crop_top[scene]),
            crop_left=int(self.crop_left[scene]),
            crop_side=self.side,
        )


@dataclass(frozen=True)
class SceneBatch:
    """B scenes with equally many pieces and objects, none of them resized."""

    height: int
    width: int
    objects: tuple[Layer, ...]
    pieces: tuple[Layer, ...] = ()

    def first(self, count: int) -> "SceneBatch":
        """The first `count` of the scenes, or all where there are fewer."""
        return replace(
            self,
            objects=tuple(layer.first(count) for layer in self.objects),
            pieces=tuple(layer.first(count) for layer in self.pieces),
        )

    def scene(self, index: int) -> Scene:
        """One of the scenes on its own."""
        return Scene(
            height=self.height,
            width=self.width,
            objects=tuple(layer.stamp(index) for layer in self.objects),
            pieces=tuple(layer.stamp(index) for layer in self.pieces),
        )


def render(scene: Scene, digits: Digits) -> NDArray[np.uint8]:
    """Paint one scene.

    Returns:
        The picture, shape (3, H, W).
    """
    canvas_3HW = np.zeros((3, scene.height, scene.width), np.uint8)
    for stamp in (*scene.pieces, *scene.objects):
        region = (slice(None), *_region(stamp))
        colour_3 = np.array(stamp.colour, np.uint8)
        canvas_3HW[region] = _blend(canvas_3HW[region], colour_3, _ink(stamp, digits))
    return canvas_3HW


def render_batch(batch: SceneBatch, digits: Digits) -> NDArray[np.uint8]:
    """Paint all scenes of a batch at once; each picture equals `render` of its scene.

    Returns:
        The pictures, shape (B, 3, H, W).
    """
    count = len(batch.objects[0].digit)
    canvas_B3HW = np.zeros((count, 3, batch.height, batch.width), np.uint8)
    every = np.arange(count)
    for layer in (*batch.pieces, *batch.objects):
        side = (layer.side, layer.side)
        # Views of every possible square: indexing them with positions copies just the squares that are meant.
        crops = np.lib.stride_tricks.sliding_window_view(digits.images, side, axis=(1, 2))
        squares = np.lib.stride_tricks.sliding_window_view(canvas_B3HW, side, axis=(2, 3), writeable=True)
        ink_BSS = crops[layer.digit, layer.crop_top, layer.crop_left]
        where = (every, slice(None), layer.top, layer.left)
        squares[where] = _blend(squares[where], layer.colour, ink_BSS)
    return canvas_B3HW


def annotate(scene: Scene, digits: Digits) -> Annotations:
    """Labels for detection, instance and semantic segmentation.

    An object that later ones cover completely is left out: nobody could find it.
    """
    masks: list[NDArray[np.bool_]] = []
    for stamp in scene.objects:
        mask_HW = np.zeros((scene.height, scene.width), bool)
        mask_HW[_region(stamp)] = _ink(stamp, digits) >= INK
        for earlier_HW in masks:
            earlier_HW &= ~mask_HW
        masks.append(mask_HW)
    seen = [number for number, mask_HW in enumerate(masks) if mask_HW.any()]
    labels_N = np.array([digits.labels[scene.objects[number].digit] for number in seen], np.int64)
    semantic_HW = np.zeros((scene.height, scene.width), np.uint8)
    for label, number in zip(labels_N, seen, strict=True):
        semantic_HW[masks[number]] = label + 1
    return Annotations(
        labels=labels_N,
        masks=np.array([masks[number] for number in seen], bool).reshape(-1, scene.height, scene.width),
        boxes=np.array([_tight_box(masks[number]) for number in seen], np.float32).reshape(-1, 4),
        semantic=semantic_HW,
    )


def random_scene(
    rng: np.random.Generator,
    digits: Digits,
    *,
    height: int,
    width: int,
    objects: int,
    pieces: int = 0,
    sizes: tuple[int, int] = (DIGIT_SIDE, DIGIT_SIDE),
    max_overlap: float = 0.3,
) -> Scene:
    """Scatter digits and pieces of `digits` over a canvas.

    Args:
        rng: the only source of chance.
        objects: how many digits to place; fewer where no room is left.
        pieces: how many crops of 8 px to strew under them.
        sizes: smallest and largest side of a digit's square, both possible.
        max_overlap: share of the smaller of two digits' squares that the other may cover.

    Raises:
        ValueError: the largest digit does not fit on the canvas.
    """
    if sizes[1] > min(height, width):
        raise ValueError(f"a digit of {sizes[1]} px does not fit on a canvas of {height} x {width} px")
    placed: list[Stamp] = []
    for _ in range(objects):
        digit, colour = int(rng.integers(len(digits))), _random_colour(rng)
        for _ in range(_PLACEMENT_TRIES):
            size = int(rng.integers(sizes[0], sizes[1] + 1))
            top, left = (int(rng.integers(room + 1)) for room in (height - size, width - size))
            stamp = Stamp(digit, top, left, size, colour)
            if all(_overlap(stamp, other) <= max_overlap for other in placed):
                placed.append(stamp)
                break
    clutter = random_pieces(rng, rng.integers(len(digits), size=pieces), height=height, width=width)
    return Scene(height, width, tuple(placed), tuple(clutter.stamp(number) for number in range(pieces)))


def random_pieces(rng: np.random.Generator, digit_B: NDArray[np.int64], *, height: int, width: int) -> Layer:
    """One piece of each given digit: where it is cut, where it goes and its colour are drawn."""
    count = len(digit_B)
    return Layer(
        digit=digit_B,
        top=rng.integers(height - PIECE_SIDE + 1, size=count),
        left=rng.integers(width - PIECE_SIDE + 1, size=count),
        colour=random_colours(rng, count),
        crop_top=rng.integers(_FIRST_CROP, _LAST_CROP + 1, size=count),
        crop_left=rng.integers(_FIRST_CROP, _LAST_CROP + 1, size=count),
        side=PIECE_SIDE,
    )


def random_digits(rng: np.random.Generator, digit_B: NDArray[np.int64], *, height: int, width: int) -> Layer:
    """The given digits, unresized, each at a random place of its own canvas and in a random colour."""
    count = len(digit_B)
    return Layer(
        digit=digit_B,
        top=rng.integers(height - DIGIT_SIDE + 1, size=count),
        left=rng.integers(width - DIGIT_SIDE + 1, size=count),
        colour=random_colours(rng, count),
        crop_top=np.zeros(count, np.int64),
        crop_left=np.zeros(count, np.int64),
        side=DIGIT_SIDE,
    )


def random_colours(rng: np.random.Generator, count: int) -> NDArray[np.uint8]:
    """Bright colours of any hue, the strongest channel always at 255; shape (count, 3)."""
    raw = rng.integers(_DARKEST, 256, size=(count, 3))
    strongest: NDArray[np.int64] = raw.max(axis=1, keepdims=True)
    return (raw * 255 // strongest).astype(np.uint8)


def _random_colour(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in random_colours(rng, 1)[0])
    return red, green, blue


def _blend(under: NDArray[np.uint8], colour: NDArray[np.uint8], ink: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colour over `under` with ink / 255 as opacity, rounded.

    Integers, so that one scene and a batch of them agree to the last bit. 255 * 255 + 127 fits uint16.

    Args:
        under: shape (..., 3, S, S).
        colour: shape (..., 3).
        ink: shape (..., S, S).
    """
    opacity = ink[..., None, :, :].astype(np.uint16)
    mixed = under * (255 - opacity) + colour[..., None, None] * opacity
    return ((mixed + np.uint16(127)) // np.uint16(255)).astype(np.uint8)


def _ink(stamp: Stamp, digits: Digits) -> NDArray[np.uint8]:
    """The stamp's opacity at its drawn size, shape (size, size)."""
    bottom, right = stamp.crop_top + stamp.crop_side, stamp.crop_left + stamp.crop_side
    crop = digits.images[stamp.digit, stamp.crop_top : bottom, stamp.crop_left : right]
    if stamp.size == stamp.crop_side:
        return crop
    weights = _resize_weights(stamp.crop_side, stamp.size)
    return np.rint(weights @ crop @ weights.T).astype(np.uint8)


@functools.cache
def _resize_weights(old: int, new: int) -> NDArray[np.float64]:
    """Linear interpolation along one axis, widened when shrinking so that no stroke is skipped.

    Returns:
        Shape (new, old); each row sums to one.
    """
    scale = old / new
    centres = (np.arange(new) + 0.5) * scale - 0.5
    distance = np.abs(np.arange(old)[None, :] - centres[:, None])
    weights = np.clip(1 - distance / max(scale, 1.0), 0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _region(stamp: Stamp) -> tuple[slice, slice]:
    return slice(stamp.top, stamp.top + stamp.size), slice(stamp.left, stamp.left + stamp.size)


def _tight_box(mask_HW: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _overlap(one: Stamp, other: Stamp) -> float:
    """Shared area of two squares as a share of the smaller one."""
    height = min(one.top + one.size, other.top + other.size) - max(one.top, other.top)
    width = min(one.left + one.size, other.left + other.size) - max(one.left, other.left)
    return max(height, 0) * max(width, 0) / min(one.size, other.size) ** 2
