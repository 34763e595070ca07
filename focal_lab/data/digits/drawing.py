"""Draws handwritten digits onto a canvas, from which every task derives its images and labels.

A stamp is a square cut from a source digit, resized, coloured and blended onto a black canvas with the ink as
opacity. Stamps of whole digits are the objects, stamps of small crops are clutter without a label ("pieces").
Pieces are painted first: they never cover a stroke of an object, and a later object covers an earlier one.

Shape suffixes: B canvases, H W their size, S side of a stamp. Images are uint8 RGB, channels first. Positions
and sizes are in px; a digit's index counts within its split's `Digits`.
"""

import functools
from typing import Any, NamedTuple

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


class Stamp(NamedTuple):
    """A stamp for one canvas, or one for each of B canvases: then every field has a first axis of length B.

    Attributes:
        digit: index of the source digit.
        top, left: position on the canvas.
        colour: RGB, uint8, shape (3,).
        ink: uint8, shape (S, S).
    """

    digit: Any
    top: Any
    left: Any
    colour: NDArray[np.uint8]
    ink: NDArray[np.uint8]

    def apart(self) -> "list[Stamp]":
        """The stamps of B canvases one by one."""
        return [Stamp(*fields) for fields in zip(*self, strict=True)]


def paint(canvas_3HW: NDArray[np.uint8], stamp: Stamp) -> None:
    """Blend a stamp onto a canvas, in place."""
    square_3SS = canvas_3HW[:, *region(stamp)]
    square_3SS[:] = _blend(square_3SS, stamp.colour, stamp.ink)


def paint_each(canvas_B3HW: NDArray[np.uint8], stamps: Stamp) -> None:
    """Blend one stamp onto each canvas, in place, with the same pixels as `paint`, but five times faster."""
    side = stamps.ink.shape[-2:]
    # views of every possible square: indexing with positions copies only the squares that are needed
    squares = np.lib.stride_tricks.sliding_window_view(canvas_B3HW, side, axis=(2, 3), writeable=True)
    where = (np.arange(len(canvas_B3HW)), slice(None), stamps.top, stamps.left)
    squares[where] = _blend(squares[where], stamps.colour, stamps.ink)


def region(stamp: Stamp) -> tuple[slice, slice]:
    """Rows and columns of the canvas that a stamp covers."""
    side = len(stamp.ink)
    return slice(stamp.top, stamp.top + side), slice(stamp.left, stamp.left + side)


def random_scene(
    rng: np.random.Generator,
    digits: Digits,
    *,
    side: int,
    objects: int,
    pieces: int,
    sizes: tuple[int, int],
    max_overlap: float,
) -> tuple[list[Stamp], list[Stamp]]:
    """Scatter digits and pieces over a square canvas.

    Args:
        rng: the only source of randomness.
        digits: where they come from.
        side: of the canvas.
        objects: how many digits to place; fewer if there is no room.
        pieces: how many pieces lie under them.
        sizes: smallest and largest side of a digit's square, inclusive.
        max_overlap: share of the smaller of two digits' squares that the other may cover.

    Returns:
        Objects and pieces, in the order of painting.
    """
    placed: list[Stamp] = []
    squares: list[tuple[int, int, int]] = []
    for _ in range(objects):
        digit = int(rng.integers(len(digits)))
        colour = random_colours(rng, 1)[0]
        for _ in range(_PLACEMENT_TRIES):
            size = int(rng.integers(sizes[0], sizes[1] + 1))
            top, left = (int(rng.integers(side - size + 1)) for _ in range(2))
            square = (top, left, size)
            if all(_overlap(square, other) <= max_overlap for other in squares):
                squares.append(square)
                placed.append(Stamp(digit, top, left, colour, _resized(digits.images[digit], size)))
                break
    clutter = random_pieces(rng, digits, rng.integers(len(digits), size=pieces), side)
    return placed, clutter.apart()


def random_pieces(rng: np.random.Generator, digits: Digits, digit_B: NDArray[np.int64], side: int) -> Stamp:
    """One piece of each given digit, with random crop, position and colour, on canvases `side` px wide."""
    count = len(digit_B)
    top, left = (rng.integers(side - PIECE_SIDE + 1, size=count) for _ in range(2))
    colour = random_colours(rng, count)
    crops = [rng.integers(_FIRST_CROP, _LAST_CROP + 1, size=count) for _ in range(2)]
    windows = np.lib.stride_tricks.sliding_window_view(digits.images, (PIECE_SIDE, PIECE_SIDE), axis=(1, 2))
    return Stamp(digit_B, top, left, colour, windows[digit_B, *crops])


def random_digits(rng: np.random.Generator, digits: Digits, digit_B: NDArray[np.int64], side: int) -> Stamp:
    """The given digits in their own size, each at a random position of its canvas and in a random colour."""
    count = len(digit_B)
    top, left = (rng.integers(side - DIGIT_SIDE + 1, size=count) for _ in range(2))
    return Stamp(digit_B, top, left, random_colours(rng, count), digits.images[digit_B])


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


def _resized(ink_SS: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    if size == len(ink_SS):
        return ink_SS
    weights = _resize_weights(len(ink_SS), size)
    return np.rint(weights @ ink_SS @ weights.T).astype(np.uint8)


@functools.cache
def _resize_weights(old: int, new: int) -> NDArray[np.float64]:
    """Antialiased linear interpolation along one axis, shape (new, old); each row sums to one."""
    scale = old / new
    centres = (np.arange(new) + 0.5) * scale - 0.5
    distance = np.abs(np.arange(old)[None, :] - centres[:, None])
    weights = np.clip(1 - distance / max(scale, 1.0), 0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _overlap(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    """Shared area of two squares, each top, left and size, as a share of the smaller one."""
    height, width = (
        min(one[axis] + one[2], other[axis] + other[2]) - max(one[axis], other[axis]) for axis in (0, 1)
    )
    return max(height, 0) * max(width, 0) / min(one[2], other[2]) ** 2
