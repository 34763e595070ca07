"""What is drawn over an image."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from focal_lab.tasks.classes import Classes
from focal_lab.tasks.detection.images import draw
from focal_lab.tasks.image_callbacks import FOUND, TRUE, as_bytes, beside, colour, image_ids, output_names
from focal_lab.tasks.segmentation.images import overlay
from focal_lab.tasks.words import Note, as_tensor, boxed, ink_on, readable, text_size, with_notes


def test_masks_that_overlap_are_drawn_in_a_classs_colour_and_what_is_hidden_is_counted() -> None:
    white_3HW = torch.full((3, 400, 400), 255, dtype=torch.uint8)
    masks = torch.zeros(3, 400, 400, dtype=torch.bool)
    masks[0, 40:360, 40:360] = masks[1, 100:200, 100:200] = masks[2, 300:350] = True
    found = {
        "boxes": torch.tensor([[40.0, 40, 360, 360], [100, 100, 200, 200], [0, 300, 400, 350]]),
        "labels": torch.tensor([1, 2, 3]),
        "masks": masks,
        "scores": torch.tensor([0.9, 0.8, 0.1]),
    }
    drawn_3HW = draw(white_3HW, found, Classes(), 0.5)
    for label, (x, y) in {1: (250, 250), 2: (150, 150)}.items():
        expected = torch.tensor(colour(label)) * 0.5 + 127.5
        torch.testing.assert_close(drawn_3HW[:, y, x].float(), expected.round(), atol=1, rtol=0)
    # the third is not drawn, and a strip below says so
    assert (drawn_3HW[:, 325, 380] == 255).all()
    assert drawn_3HW.shape[1] > 400
    assert (drawn_3HW[:, 400:] < 100).any()
    everything_3HW = draw(white_3HW, found, Classes(), 0.0)
    assert everything_3HW.shape[1] == 400


def written(notes: Sequence[Note]) -> list[str]:
    return [note.word for note in notes]


def test_what_is_not_drawn_is_reported_below_and_truth_differs_from_what_was_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reported: list[list[str]] = []
    for module in ("detection", "segmentation"):
        monkeypatch.setattr(
            f"focal_lab.tasks.{module}.images.with_notes",
            lambda picture, notes: (reported.append(written(notes)), picture)[1],
        )
    grey_3HW = torch.full((3, 400, 400), 90, dtype=torch.uint8)
    boxes, labels = torch.tensor([[40.0, 40, 360, 360], [100, 100, 200, 200]]), torch.tensor([0, 1])
    names = Classes(("background", "cat", *(f"class {number}" for number in range(2, 40))))
    draw(grey_3HW, {"boxes": boxes, "labels": labels, "iscrowd": torch.tensor([1, 0])}, names, heading=TRUE)
    draw(grey_3HW, {"boxes": boxes, "labels": labels, "scores": torch.tensor([0.9, 0.2])}, names, 0.5, FOUND)
    draw(grey_3HW, {"boxes": boxes[:0], "labels": labels[:0], "scores": torch.zeros(0)}, names, 0.5)
    assert reported == [
        ["TRUE", "1 crowds not drawn"],
        ["FOUND", "score 0.5 or more", "1 of 2 objects below not drawn"],
        ["score 0.5 or more", "0 of 0 objects below not drawn"],
    ]
    reported.clear()
    label_HW = torch.zeros(400, 400, dtype=torch.uint8)
    label_HW[:100] = 1
    label_HW[:, 300:] = 255
    overlay(grey_3HW, label_HW, names, ignored=255, heading=TRUE)
    overlay(grey_3HW, torch.arange(1, 41).clamp(max=39).repeat_interleave(10).repeat(400, 1), names)
    assert reported[0] == ["TRUE", "cat", "not coloured: background", "ignored"]
    assert len(reported[1]) == 21
    assert reported[1][-1] == "and 19 more classes"


def test_pixels_that_are_ignored_are_hatched_and_those_of_background_are_not() -> None:
    for grey in (0, 64, 128, 192, 255):
        picture_3HW = torch.full((3, 400, 400), grey, dtype=torch.uint8)
        label_HW = torch.zeros(400, 400, dtype=torch.uint8)
        label_HW[:200] = 255
        for classes, ignored in ((Classes(("background", "cat")), 255), (Classes(), 255)):
            drawn_3HW = overlay(picture_3HW, label_HW, classes, ignored=ignored)[:, :400]
            assert len(drawn_3HW[:, :200].flatten(1).unique(dim=1).T) >= 2
        assert (overlay(picture_3HW, label_HW, Classes(("background", "cat")))[:, 200:400] == grey).all()


def test_a_class_has_one_colour_in_truth_prediction_and_legend() -> None:
    white_3HW = torch.full((3, 400, 400), 255, dtype=torch.uint8)
    names = Classes(tuple("abcdef"))
    for label_HW in (torch.full((400, 400), 3), torch.arange(6).repeat(400, 67)[:, :400].sort().values):
        drawn_3HW = overlay(white_3HW, label_HW, names)
        shade = torch.tensor(colour(3))
        mixed = (shade * 0.6 + 255 * 0.4).round()
        area_HW = label_HW == 3
        assert ((drawn_3HW[:, :400] - mixed[:, None, None]).abs().amax(0) <= 1)[area_HW].all()
        assert (drawn_3HW[:, 400:] == shade[:, None, None]).all(0).any()


def test_hundred_classes_have_colours_of_their_own() -> None:
    colours = torch.tensor([colour(label) for label in range(100)]).float()
    apart = torch.cdist(colours, colours) + 1000 * torch.eye(100)
    assert apart.min() > 10
    assert apart[:21, :21].min() > 50


def test_labels_are_plates_inside_the_image_whose_words_can_be_read() -> None:
    for side in (400, 2000):
        image = Image.new("RGB", (side, side), "white")
        edge = [(0, 0, 9, 9), (side - 9, side - 9, side, side), (side - 5, 0, side, side), (3, 0, 9, 9)]
        shades = [colour(label) for label in range(4)]
        boxed(image, edge, ["a long name 0.97"] * 4, shades)
        drawn = as_tensor(image).flatten(1).T
        high, wide = text_size(side, side) + 4, 16 * text_size(side, side) / 3
        for shade in shades:
            assert (drawn == torch.tensor(shade)).all(1).sum() > 0.5 * high * wide
    for label in range(60):
        light = [0.299 * r + 0.587 * g + 0.114 * b for r, g, b in (colour(label), ink_on(colour(label)))]
        assert abs(light[0] - light[1]) > 80


def test_a_strip_below_leaves_the_pixels_as_they_are_and_makes_room_for_its_words() -> None:
    picture_3HW = torch.randint(256, (3, 900, 60), dtype=torch.uint8)
    noted_3HW = with_notes(picture_3HW, [Note("a rather long word"), Note("cat", (1, 2, 3))])
    assert torch.equal(noted_3HW[:, :900, :60], picture_3HW)
    assert noted_3HW.shape[1] > 900
    assert noted_3HW.shape[2] > 100
    assert with_notes(picture_3HW, []) is picture_3HW
    assert beside(noted_3HW, picture_3HW).shape == (3, noted_3HW.shape[1], noted_3HW.shape[2] + 4 + 60)


def test_names_that_the_font_cannot_write_are_numbers_and_long_ones_are_cut() -> None:
    assert readable("Vögel, кошка", 3) == "Vögel, кошка"
    assert readable("猫", 3) == "class 3"
    assert readable("x" * 100, 3) == "x" * 29 + "..."


def test_pixels_are_those_of_the_image_whatever_its_channels() -> None:
    picture_CHW = torch.randint(256, (5, 6, 7), dtype=torch.uint8)
    mean, std = [0.1, 0.2, 0.3, 0.4, 0.5], [0.5, 0.4, 0.3, 0.2, 0.1]
    for channels in (1, 3, 4, 5):
        scale, shift = (torch.tensor(values[:channels]).view(-1, 1, 1) for values in (std, mean))
        normal_CHW = (picture_CHW[:channels] / 255 - shift) / scale
        found_3HW = as_bytes(normal_CHW, SimpleNamespace(mean=mean[:channels], std=std[:channels]))
        assert torch.equal(found_3HW, picture_CHW[:channels][:3].expand(3, -1, -1))


def test_output_files_are_called_as_images_unless_two_would_be_one() -> None:
    assert output_names([Path("x/a.jpg"), Path("b.c.png"), Path("y/\u00e9.png")]) == ["a", "b.c", "\u00e9"]
    with pytest.warns(UserWarning, match="several images are called a"):
        assert output_names([Path("a.jpg"), Path("a.png"), Path("b.png")]) == ["a.jpg", "a.png", "b"]
    with pytest.warns(UserWarning, match="several images are called a"):
        names = output_names([Path("a.jpg"), Path("a.png"), Path("a.jpg.bmp")])
    assert len(set(names)) == 3


def test_equal_names_in_several_folders_go_into_folders_of_the_same_names() -> None:
    files = [
        Path("p/x/a.jpg"),
        Path("p/y/z/a.jpg"),
        Path("p/y/b.png"),
        Path("p/y/b.jpg"),
        Path("p/../p/c.jpg"),
    ]
    with pytest.warns(UserWarning, match="images of several folders are called a"):
        assert output_names(files) == ["x/a", "y/z/a", "y/b.png", "y/b.jpg", "c"]


def test_an_image_id_is_a_files_number_only_where_every_file_has_one_of_its_own() -> None:
    assert image_ids([Path("007.jpg"), Path("12.jpg")]) == [7, 12]
    assert image_ids([Path("a.jpg"), Path("0.jpg")]) == [0, 1]
    assert image_ids([Path("7.jpg"), Path("07.jpg")]) == [0, 1]
