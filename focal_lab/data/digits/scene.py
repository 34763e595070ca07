"""Scenes of handwritten digits, from which every task derives its images and labels.

A scene is a list of stamps on a black canvas. A stamp is a square cut from a source digit, resized, coloured
and blended onto the canvas with the ink as opacity. Stamps of whole digits are the objects, stamps of small
crops are clutter without a label ("pieces"). Pieces are painted first, then the objects in their order: a
piece never covers a stroke of an object, and a later object covers an earlier one.

`render_batch` paints many scenes of equal composition at once, five times faster than `render`, with
identical pixels.

Shape suffixes: B scenes, N objects of a scene, H W canvas, S side of a stamp. Images are uint8 RGB, channels
first. Positions and sizes are in px; a digit's index counts within its split's `Digits`.
"""

import functools
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from focal_lab.data.digits.mnist5k import DIGIT_SIDE, Digits

PIECE_SIDE = 8
# A quarter of full ink makes a pixel part of an object: half would break up the thin strokes of small digits.
INK = 64

# MNIST centres 20 px of handwriting in 28 px: crops from this range of positions are rarely empty.
_FIRST_CROP, _LAST_CROP = 4, DIGIT_SIDE - 4 - PIECE_SIDE
_DARKEST = 64
_PLACEMENT_TRIES = 20


@dataclass(frozen=True)
class Stamp:
    """A square cut from a source digit, drawn `size` px wide in one colour (RGB, 0-255).

    `crop_*` is the square within the 28 px of the source digit, by default all of it.
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
    """What is drawn on a canvas of height x width px; objects are whole digits.

    Raises:
        ValueError: a stamp leaves the canvas.
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
class SceneLabels:
    """Labels of the N visible objects, in the scene's order.

    Attributes:
        labels: class 0-9, int64, shape (N,).
        masks: visible pixels, bool, shape (N, H, W); masks do not overlap.
        boxes: (x1, y1, x2, y2) around the mask, x2 and y2 exclusive, float32, shape (N, 4).
        semantic: class + 1 per pixel, 0 for background and pieces, uint8, shape (H, W).
    """

    labels: NDArray[np.int64]
    masks: NDArray[np.bool_]
    boxes: NDArray[np.float32]
    semantic: NDArray[np.uint8]


@dataclass(frozen=True)
class StampLayer:
    """One stamp for each of B scenes, not resized: `Stamp`'s fields as arrays, shape (B,), colour (B, 3)."""

    digit: NDArray[np.int64]
    top: NDArray[np.int64]
    left: NDArray[np.int64]
    colour: NDArray[np.uint8]
    crop_top: NDArray[np.int64]
    crop_left: NDArray[np.int64]
    side: int

    def first(self, count: int) -> "StampLayer":
        """The stamps of the first `count` scenes."""
        arrays = {field.name: getattr(self, field.name)[:count] for field in fields(self)[:-1]}
        return replace(self, **arrays)

    def stamp(self, scene: int) -> Stamp:
        """The stamp of one of the scenes."""
        values = (self.digit, self.top, self.left, self.crop_top, self.crop_left)
        digit, top, left, crop_top, crop_left = (int(array[scene]) for array in values)
        red, green, blue = self.colour[scene].tolist()
        return Stamp(digit, top, left, self.side, (red, green, blue), crop_top, crop_left, self.side)


@dataclass(frozen=True)
class SceneBatch:
    """B scenes with equally many pieces and objects, none of them resized."""

    height: int
    width: int
    objects: tuple[StampLayer, ...]
    pieces: tuple[StampLayer, ...] = ()

    def first(self, count: int) -> "SceneBatch":
        """The first `count` scenes, or all if there are fewer."""
        return replace(
            self,
            objects=tuple(layer.first(count) for layer in self.objects),
            pieces=tuple(layer.first(count) for layer in self.pieces),
        )

    def scene(self, index: int) -> Scene:
        """One of the scenes."""
        objects, pieces = (
            tuple(layer.stamp(index) for layer in layers) for layers in (self.objects, self.pieces)
        )
        return Scene(self.height, self.width, objects, pieces)


def render(scene: Scene, digits: Digits) -> NDArray[np.uint8]:
    """Paint one scene; the image, shape (3, H, W)."""
    canvas_3HW = np.zeros((3, scene.height, scene.width), np.uint8)
    for stamp in (*scene.pieces, *scene.objects):
        region = (slice(None), *_region(stamp))
        colour_3 = np.array(stamp.colour, np.uint8)
        canvas_3HW[region] = _blend(canvas_3HW[region], colour_3, _ink(stamp, digits))
    return canvas_3HW


def render_batch(batch: SceneBatch, digits: Digits) -> NDArray[np.uint8]:
    """Paint all scenes of a batch at once; shape (B, 3, H, W), each image equal to `render` of its scene."""
    count = len(batch.objects[0].digit)
    canvas_B3HW = np.zeros((count, 3, batch.height, batch.width), np.uint8)
    every = np.arange(count)
    for layer in (*batch.pieces, *batch.objects):
        side = (layer.side, layer.side)
        # views of every possible square: indexing with positions copies only the squares that are needed
        crops = np.lib.stride_tricks.sliding_window_view(digits.images, side, axis=(1, 2))
        squares = np.lib.stride_tricks.sliding_window_view(canvas_B3HW, side, axis=(2, 3), writeable=True)
        ink_BSS = crops[layer.digit, layer.crop_top, layer.crop_left]
        where = (every, slice(None), layer.top, layer.left)
        squares[where] = _blend(squares[where], layer.colour, ink_BSS)
    return canvas_B3HW


def annotate(scene: Scene, digits: Digits) -> SceneLabels:
    """Labels of all objects except those that are fully covered."""
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
    return SceneLabels(
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
    """Scatter digits and pieces over a canvas.

    Args:
        rng: the only source of randomness.
        objects: how many digits to place; fewer if there is no room.
        pieces: how many 8 px crops lie under them.
        sizes: smallest and largest side of a digit's square, inclusive.
        max_overlap: share of the smaller of two digits' squares that the other may cover.

    Raises:
        ValueError: the largest digit does not fit on the canvas.
    """
    if sizes[1] > min(height, width):
        raise ValueError(f"a digit of {sizes[1]} px does not fit on a canvas of {height} x {width} px")
    placed: list[Stamp] = []
    for _ in range(objects):
        digit = int(rng.integers(len(digits)))
        red, green, blue = random_colours(rng, 1)[0].tolist()
        for _ in range(_PLACEMENT_TRIES):
            size = int(rng.integers(sizes[0], sizes[1] + 1))
            top, left = (int(rng.integers(room + 1)) for room in (height - size, width - size))
            stamp = Stamp(digit, top, left, size, (red, green, blue))
            if all(_overlap(stamp, other) <= max_overlap for other in placed):
                placed.append(stamp)
                break
    clutter = random_pieces(rng, rng.integers(len(digits), size=pieces), height=height, width=width)
    return Scene(height, width, tuple(placed), tuple(clutter.stamp(number) for number in range(pieces)))


def random_pieces(
    rng: np.random.Generator, digit_B: NDArray[np.int64], *, height: int, width: int
) -> StampLayer:
    """One piece of each given digit, with random crop, position and colour."""
    count = len(digit_B)
    return StampLayer(
        digit=digit_B,
        top=rng.integers(height - PIECE_SIDE + 1, size=count),
        left=rng.integers(width - PIECE_SIDE + 1, size=count),
        colour=random_colours(rng, count),
        crop_top=rng.integers(_FIRST_CROP, _LAST_CROP + 1, size=count),
        crop_left=rng.integers(_FIRST_CROP, _LAST_CROP + 1, size=count),
        side=PIECE_SIDE,
    )


def random_digits(
    rng: np.random.Generator, digit_B: NDArray[np.int64], *, height: int, width: int
) -> StampLayer:
    """The given digits in their own size, each at a random position of its canvas and in a random colour."""
    count = len(digit_B)
    return StampLayer(
        digit=digit_B,
        top=rng.integers(height - DIGIT_SIDE + 1, size=count),
        left=rng.integers(width - DIGIT_SIDE + 1, size=count),
        colour=random_colours(rng, count),
        crop_top=np.zeros(count, np.int64),
        crop_left=np.zeros(count, np.int64),
        side=DIGIT_SIDE,
    )


def random_colours(rng: np.random.Generator, count: int) -> NDArray[np.uint8]:
    """Bright colours of any hue, the strongest channel always 255; shape (count, 3)."""
    raw = rng.integers(_DARKEST, 256, size=(count, 3))
    strongest: NDArray[np.int64] = raw.max(axis=1, keepdims=True)
    return (raw * 255 // strongest).astype(np.uint8)


def _blend(under: NDArray[np.uint8], colour: NDArray[np.uint8], ink: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colour (..., 3) over `under` (..., 3, S, S) with ink / 255 (..., S, S) as opacity, rounded.

    In integers, so that one scene and a batch agree bit for bit; 255 * 255 + 127 fits uint16.
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
    """Antialiased linear interpolation along one axis, shape (new, old); each row sums to one."""
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
