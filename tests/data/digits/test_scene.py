from dataclasses import replace

import numpy as np
import pytest

from focal_lab.data.digits.classification import draw_pass
from focal_lab.data.digits.mnist5k import Digits, source_digits
from focal_lab.data.digits.scene import (
    INK,
    Scene,
    Stamp,
    annotate,
    random_colours,
    random_pieces,
    random_scene,
    render,
    render_batch,
)

WHITE = (255, 255, 255)


@pytest.fixture(scope="module")
def digits():
    return source_digits("test")


@pytest.fixture(params=range(8), ids="seed{}".format)
def crowded(request, digits):
    """A scene in which digits of many sizes cover each other over plenty of clutter."""
    rng = np.random.default_rng(request.param)
    return random_scene(
        rng, digits, height=72, width=96, objects=6, pieces=9, sizes=(14, 48), max_overlap=0.8
    )


def squares(*labels):
    """Source digits that are full squares of ink, 20 px wide in their 28 px: easy to reason about."""
    images = np.zeros((len(labels), 28, 28), np.uint8)
    images[:, 4:24, 4:24] = 255
    return Digits(images, np.array(labels, np.int64), np.arange(len(labels)))


def test_one_white_digit_is_rendered_as_it_was_written(digits):
    scene = Scene(height=40, width=50, objects=(Stamp(digit=7, top=5, left=11, size=28, colour=WHITE),))

    image = render(scene, digits)

    assert image.shape == (3, 40, 50)
    assert image.dtype == np.uint8
    for channel in image:
        assert np.array_equal(channel[5:33, 11:39], digits.images[7])
        assert channel.sum() == digits.images[7].sum()


def test_colour_scales_the_ink(digits):
    stamp = Stamp(digit=0, top=0, left=0, size=28, colour=(255, 100, 0))

    red, green, blue = render(Scene(28, 28, (stamp,)), digits)

    assert np.array_equal(red, digits.images[0])
    assert np.array_equal(green, np.rint(digits.images[0] * (100 / 255)))
    assert not blue.any()


def test_equal_generators_give_equal_scenes_and_others_do_not(digits):
    options = {"height": 64, "width": 64, "objects": 3, "pieces": 4, "sizes": (14, 40)}

    first, same, other = (random_scene(np.random.default_rng(seed), digits, **options) for seed in (3, 3, 4))

    assert first == same
    assert first != other


def test_a_scene_of_one_image_equals_its_image_in_a_batch(digits):
    batch = draw_pass("test", 5, 0, image_size=37, pieces=6)

    images = render_batch(batch, digits)

    assert images.shape == (500, 3, 37, 37)
    for index in range(0, 500, 7):
        assert np.array_equal(images[index], render(batch.scene(index), digits))


def test_batches_of_several_digits_equal_their_scenes_too(digits):
    batch = draw_pass("test", 5, 0, image_size=44, pieces=1)
    above = draw_pass("test", 6, 0, image_size=44, pieces=1)
    pairs = replace(batch, objects=batch.objects + above.objects)

    images = render_batch(pairs, digits)

    assert len(pairs.scene(0).objects) == 2
    for index in range(0, 500, 25):
        assert np.array_equal(images[index], render(pairs.scene(index), digits))


def test_the_first_scenes_of_a_batch_are_the_batch_cut_short(digits):
    batch = draw_pass("test", 5, 0, image_size=30, pieces=2)

    assert np.array_equal(render_batch(batch.first(9), digits), render_batch(batch, digits)[:9])
    assert batch.first(9).scene(8) == batch.scene(8)
    assert len(batch.first(10_000).objects[0].digit) == 500


def test_pieces_never_cover_strokes(digits):
    digit = Stamp(digit=42, top=3, left=3, size=28, colour=(255, 80, 0))
    clutter = random_pieces(np.random.default_rng(0), np.arange(40), height=34, width=34)
    pieces = tuple(clutter.stamp(number) for number in range(40))
    alone, cluttered = Scene(34, 34, (digit,)), Scene(34, 34, (digit,), pieces)

    full_ink = np.zeros((34, 34), bool)
    full_ink[3:31, 3:31] = digits.images[42] == 255

    assert full_ink.any()
    assert np.array_equal(render(alone, digits)[:, full_ink], render(cluttered, digits)[:, full_ink])
    assert (render(cluttered, digits) > 0).mean() > 1.5 * (render(alone, digits) > 0).mean()


def test_pieces_carry_no_label(crowded, digits):
    bare = annotate(replace(crowded, pieces=()), digits)
    cluttered = annotate(crowded, digits)

    for name in ("labels", "masks", "boxes", "semantic"):
        assert np.array_equal(getattr(bare, name), getattr(cluttered, name))
    only_pieces = annotate(replace(crowded, objects=()), digits)
    assert only_pieces.labels.shape == (0,)
    assert only_pieces.masks.shape == (0, 72, 96)
    assert only_pieces.boxes.shape == (0, 4)
    assert not only_pieces.semantic.any()


def test_labels_are_the_classes_of_the_placed_digits(crowded, digits):
    classes = [digits.labels[stamp.digit] for stamp in crowded.objects]

    assert len(classes) > 1
    assert annotate(crowded, digits).labels.tolist() == classes


def test_boxes_are_tight_around_masks(crowded, digits):
    labels = annotate(crowded, digits)

    for (left, top, right, bottom), mask in zip(labels.boxes.astype(int), labels.masks, strict=True):
        inside = mask[top:bottom, left:right]
        assert inside.sum() == mask.sum()
        for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
            assert edge.any()


def test_boxes_measure_pixels_with_exclusive_ends():
    scene = Scene(60, 80, (Stamp(digit=0, top=10, left=30, size=28, colour=WHITE),))

    assert annotate(scene, squares(3)).boxes.tolist() == [[34.0, 14.0, 54.0, 34.0]]


def test_semantic_map_is_the_masks_with_their_classes(crowded, digits):
    labels = annotate(crowded, digits)

    assert labels.masks.sum(axis=0).max() == 1
    assert np.array_equal(labels.semantic, (labels.masks * (labels.labels + 1)[:, None, None]).sum(axis=0))


def test_masks_lie_on_drawn_pixels_of_their_object(digits):
    stamp = Stamp(digit=9, top=2, left=6, size=28, colour=WHITE)

    (mask,) = annotate(Scene(32, 40, (stamp,)), digits).masks

    assert np.array_equal(mask, render(Scene(32, 40, (stamp,)), digits)[0] >= INK)


def test_later_objects_cover_earlier_ones():
    below = Stamp(digit=0, top=0, left=0, size=28, colour=(255, 0, 0))
    above = Stamp(digit=1, top=0, left=10, size=28, colour=(0, 255, 0))
    scene = Scene(28, 40, (below, above))

    labels, image = annotate(scene, squares(3, 5)), render(scene, squares(3, 5))

    assert labels.boxes.tolist() == [[4, 4, 14, 24], [14, 4, 34, 24]]
    assert np.array_equal(labels.masks[0], image[0] == 255)
    assert np.array_equal(labels.masks[1], image[1] == 255)
    assert set(np.unique(labels.semantic)) == {0, 4, 6}


def test_objects_that_cannot_be_seen_have_no_label():
    hidden = Stamp(digit=0, top=4, left=4, size=28, colour=WHITE)
    above = Stamp(digit=1, top=0, left=0, size=40, colour=WHITE)

    labels = annotate(Scene(40, 40, (hidden, above)), squares(3, 5))

    assert labels.labels.tolist() == [5]
    assert labels.masks.shape == (1, 40, 40)
    assert labels.boxes.shape == (1, 4)


@pytest.mark.parametrize("size", [14, 20, 56, 63])
def test_resized_digits_keep_their_place_and_share_of_ink(digits, size):
    scene = Scene(70, 70, (Stamp(digit=3, top=4, left=2, size=size, colour=WHITE),))

    image = render(scene, digits)[0]

    assert not image[:4].any()
    assert not image[:, :2].any()
    assert not image[4 + size :].any()
    assert not image[:, 2 + size :].any()
    assert image[4 : 4 + size, 2 : 2 + size].mean() == pytest.approx(digits.images[3].mean(), rel=0.05)


def test_resizing_a_full_square_leaves_no_seam():
    full = Digits(np.full((1, 28, 28), 255, np.uint8), np.zeros(1, np.int64), np.zeros(1, np.int64))

    for size in (7, 14, 31, 56):
        image = render(Scene(size, size, (Stamp(digit=0, top=0, left=0, size=size, colour=WHITE),)), full)
        assert image.min() == 255


@pytest.mark.parametrize("size", [9, 14, 28, 40])
def test_resizing_skips_no_stroke(size):
    images = np.zeros((28, 28, 28), np.uint8)
    images[np.arange(28), :, np.arange(28)] = 255
    lines = Digits(images, np.zeros(28, np.int64), np.arange(28))

    for column in range(28):
        stamp = Stamp(digit=column, top=0, left=0, size=size, colour=WHITE)
        assert render(Scene(size, size, (stamp,)), lines).max() > 255 * min(1, size / 28) / 2


def test_random_scenes_respect_sizes_canvas_and_overlap(digits):
    for seed in range(20):
        scene = random_scene(
            np.random.default_rng(seed),
            digits,
            height=80,
            width=60,
            objects=5,
            pieces=3,
            sizes=(16, 30),
            max_overlap=0.0,
        )
        covered = np.zeros((80, 60), int)
        for stamp in scene.objects:
            assert 16 <= stamp.size <= 30
            covered[stamp.top : stamp.top + stamp.size, stamp.left : stamp.left + stamp.size] += 1
        assert covered.max() == 1
        assert covered.sum() == sum(stamp.size**2 for stamp in scene.objects)
        assert 1 <= len(scene.objects) <= 5
        assert len(scene.pieces) == 3


def test_colours_are_bright_and_varied():
    colours = random_colours(np.random.default_rng(0), 1000)

    assert (colours.max(axis=1) == 255).all()
    assert colours.min() >= 64
    assert len(np.unique(colours, axis=0)) > 900


@pytest.mark.parametrize(("top", "left"), [(-1, 0), (0, -1), (13, 0), (0, 23)])
def test_a_stamp_outside_the_canvas_is_refused(top, left):
    with pytest.raises(ValueError, match="leaves the canvas of 40 x 50 px"):
        Scene(40, 50, (Stamp(digit=0, top=top, left=left, size=28, colour=WHITE),))


def test_digits_larger_than_the_canvas_are_refused(digits):
    with pytest.raises(ValueError, match="60 px does not fit on a canvas of 48 x 64 px"):
        random_scene(np.random.default_rng(0), digits, height=48, width=64, objects=1, sizes=(20, 60))
