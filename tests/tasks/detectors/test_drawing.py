"""What is drawn over an image."""

from pathlib import Path

import pytest
import torch

from focal_lab.errors import UserError
from focal_lab.tasks.classes import Classes
from focal_lab.tasks.detectors.drawing import draw
from focal_lab.tasks.pictures import colour, image_ids, output_names


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
    # the third is not drawn, and a line at the bottom says so
    assert (drawn_3HW[:, 325, 380] == 255).all()
    assert not (drawn_3HW[:, -3, 1] == 255).any()
    everything_3HW = draw(white_3HW, found, Classes(), 0.0)
    assert (everything_3HW[:, -3, 1] == 255).all()


def test_output_files_are_called_as_images_unless_two_would_be_one() -> None:
    assert output_names([Path("x/a.jpg"), Path("b.png")]) == ["a", "b"]
    with pytest.warns(UserWarning, match="several images are called a"):
        assert output_names([Path("a.jpg"), Path("a.png"), Path("b.png")]) == ["a.jpg", "a.png", "b"]
    with pytest.raises(UserError, match=r"a\.jpg is the name of several images"):
        output_names([Path("x/a.jpg"), Path("y/a.jpg")])


def test_an_image_id_is_a_files_number_only_where_every_file_has_one_of_its_own() -> None:
    assert image_ids([Path("007.jpg"), Path("12.jpg")]) == [7, 12]
    assert image_ids([Path("a.jpg"), Path("0.jpg")]) == [0, 1]
    assert image_ids([Path("7.jpg"), Path("07.jpg")]) == [0, 1]
