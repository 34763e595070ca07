import numpy as np
import pytest

from focal_lab.data.digits.classification import draw_pass
from focal_lab.data.digits.drawing import (
    INK,
    Stamp,
    _resized,
    paint,
    paint_each,
    random_colours,
    random_pieces,
    random_scene,
)
from focal_lab.data.digits.mnist5k import Digits, source_digits
from focal_lab.data.digits.scenes import compose

WHITE = (255, 255, 255)
OPTIONS = {"side": 96, "objects": 6, "pieces": 9, "sizes": (14, 48), "max_overlap": 0.8}


@pytest.fixture(scope="module")
def digits():
    return source_digits("test")


@pytest.fixture(params=range(8), ids="seed{}".format)
def crowded(request, digits):
    """Objects and pieces: digits of many sizes that cover each other over plenty of clutter."""
    return random_scene(np.random.default_rng(request.param), digits, **OPTIONS)


def stamp_of(digits, digit, top, left, size=28, colour=WHITE):
    return Stamp(digit, top, left, np.array(colour, np.uint8), _resized(digits.images[digit], size))


def painted(side, *stamps):
    canvas = np.zeros((3, side, side), np.uint8)
    for stamp in stamps:
        paint(canvas, stamp)
    return canvas


def squares(*labels):
    """Source digits that are full squares of ink, 20 px wide in their 28 px: easy to reason about."""
    images = np.zeros((len(labels), 28, 28), np.uint8)
    images[:, 4:24, 4:24] = 255
    return Digits(images, np.array(labels, np.int64), np.arange(len(labels)))


def masks_of(scene):
    return [scene.owner == number for number in range(1, len(scene.labels) + 1)]


def same(one, other):
    return all(
        np.array_equal(field, its)
        for first, second in zip(one, other, strict=True)
        for field, its in zip(first, second, strict=True)
    )


def test_one_white_digit_is_painted_as_it_was_written(digits):
    image = painted(50, stamp_of(digits, 7, 5, 11))

    for channel in image:
        assert np.array_equal(channel[5:33, 11:39], digits.images[7])
        assert channel.sum() == digits.images[7].sum()


def test_colour_scales_the_ink(digits):
    red, green, blue = painted(28, stamp_of(digits, 0, 0, 0, colour=(255, 100, 0)))

    assert np.array_equal(red, digits.images[0])
    assert np.array_equal(green, np.rint(digits.images[0] * (100 / 255)))
    assert not blue.any()


def test_equal_generators_give_equal_scenes_and_others_do_not(digits):
    first, again, other = (
        random_scene(np.random.default_rng(seed), digits, **OPTIONS | {"objects": 3}) for seed in (3, 3, 4)
    )

    assert same(first[0], again[0])
    assert same(first[1], again[1])
    assert not same(first[1], other[1])


def test_stamps_painted_on_many_canvases_at_once_are_those_painted_one_by_one():
    layers = draw_pass("test", 5, 0, image_size=44, pieces=6) + draw_pass(
        "test", 6, 0, image_size=44, pieces=1
    )
    images = np.zeros((500, 3, 44, 44), np.uint8)
    for layer in layers:
        paint_each(images, layer)

    stamps = [layer.apart() for layer in layers]
    for index in range(0, 500, 7):
        assert np.array_equal(images[index], painted(44, *(of_layer[index] for of_layer in stamps)))


def test_pieces_never_cover_strokes(digits):
    digit = stamp_of(digits, 42, 3, 3, colour=(255, 80, 0))
    pieces = random_pieces(np.random.default_rng(0), digits, np.arange(40), 34).apart()
    scene = compose([digit], pieces, digits, 34)
    full_ink = np.zeros((34, 34), bool)
    full_ink[3:31, 3:31] = digits.images[42] == 255

    assert full_ink.any()
    assert np.array_equal(painted(34, digit)[:, full_ink], scene.pixels[:, full_ink])
    assert (scene.pixels > 0).mean() > 1.5 * (painted(34, digit) > 0).mean()


def test_pieces_carry_no_label(crowded, digits):
    objects, pieces = crowded
    bare, cluttered = compose(objects, [], digits, 96), compose(objects, pieces, digits, 96)

    for name in ("labels", "owner", "boxes"):
        assert np.array_equal(getattr(bare, name), getattr(cluttered, name))
    only_pieces = compose([], pieces, digits, 96)
    assert only_pieces.labels.shape == (0,)
    assert only_pieces.boxes.shape == (0, 4)
    assert not only_pieces.owner.any()


def test_labels_are_the_classes_of_the_placed_digits(crowded, digits):
    objects, pieces = crowded
    classes = [digits.labels[stamp.digit] for stamp in objects]

    assert len(classes) > 1
    assert compose(objects, pieces, digits, 96).labels.tolist() == classes


def test_boxes_are_tight_around_masks(crowded, digits):
    scene = compose(*crowded, digits, 96)

    for (left, top, right, bottom), mask in zip(scene.boxes.astype(int), masks_of(scene), strict=True):
        inside = mask[top:bottom, left:right]
        assert inside.sum() == mask.sum()
        for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
            assert edge.any()


def test_boxes_measure_pixels_with_exclusive_ends():
    three = squares(3)

    assert compose([stamp_of(three, 0, 10, 30)], [], three, 80).boxes.tolist() == [[34.0, 14.0, 54.0, 34.0]]


def test_masks_lie_on_drawn_pixels_of_their_object(digits):
    stamp = stamp_of(digits, 9, 2, 6)

    assert np.array_equal(compose([stamp], [], digits, 40).owner == 1, painted(40, stamp)[0] >= INK)


def test_later_objects_cover_earlier_ones():
    both = squares(3, 5)
    below = stamp_of(both, 0, 0, 0, colour=(255, 0, 0))
    above = stamp_of(both, 1, 0, 10, colour=(0, 255, 0))

    scene = compose([below, above], [], both, 40)

    assert scene.boxes.tolist() == [[4, 4, 14, 24], [14, 4, 34, 24]]
    assert np.array_equal(scene.owner == 1, scene.pixels[0] == 255)
    assert np.array_equal(scene.owner == 2, scene.pixels[1] == 255)


def test_objects_that_cannot_be_seen_have_no_label():
    both = squares(3, 5)

    scene = compose([stamp_of(both, 0, 4, 4), stamp_of(both, 1, 0, 0, size=40)], [], both, 40)

    assert scene.labels.tolist() == [5]
    assert set(np.unique(scene.owner)) == {0, 1}
    assert scene.boxes.shape == (1, 4)


@pytest.mark.parametrize("size", [14, 20, 56, 63])
def test_resized_digits_keep_their_place_and_share_of_ink(digits, size):
    image = painted(70, stamp_of(digits, 3, 4, 2, size))[0]

    assert not image[:4].any()
    assert not image[:, :2].any()
    assert not image[4 + size :].any()
    assert not image[:, 2 + size :].any()
    assert image[4 : 4 + size, 2 : 2 + size].mean() == pytest.approx(digits.images[3].mean(), rel=0.05)


def test_resizing_a_full_square_leaves_no_seam():
    for size in (7, 14, 31, 56):
        assert _resized(np.full((28, 28), 255, np.uint8), size).min() == 255


@pytest.mark.parametrize("size", [9, 14, 28, 40])
def test_resizing_skips_no_stroke(size):
    for column in range(28):
        line = np.zeros((28, 28), np.uint8)
        line[:, column] = 255
        assert _resized(line, size).max() > 255 * min(1, size / 28) / 2


def test_random_scenes_respect_sizes_canvas_and_overlap(digits):
    apart = {"side": 80, "objects": 5, "pieces": 3, "sizes": (16, 30), "max_overlap": 0.0}
    for seed in range(20):
        objects, pieces = random_scene(np.random.default_rng(seed), digits, **apart)
        covered = np.zeros((80, 80), int)
        for stamp in objects:
            size = len(stamp.ink)
            assert 16 <= size <= 30
            assert 0 <= min(stamp.top, stamp.left) <= max(stamp.top, stamp.left) <= 80 - size
            covered[stamp.top : stamp.top + size, stamp.left : stamp.left + size] += 1
        assert covered.max() == 1
        assert 1 <= len(objects) <= 5
        assert len(pieces) == 3


def test_colours_are_bright_and_varied():
    colours = random_colours(np.random.default_rng(0), 1000)

    assert (colours.max(axis=1) == 255).all()
    assert colours.min() >= 64
    assert len(np.unique(colours, axis=0)) > 900
