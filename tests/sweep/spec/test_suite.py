import re
import shutil

import pytest
from support.small_project import DIGITS, write

from focal_lab.errors import UserError
from focal_lab.sweep.spec.suite import find_suite

pytestmark = pytest.mark.usefixtures("project")


def test_a_suite_knows_its_experiments_and_what_backbones_stand_for() -> None:
    suite = find_suite("digits")
    assert suite.backbones == {"focal_tiny": "focal_micro", "swin": "focal_swin_micro"}
    assert suite.experiment("detection")["model"]["init_args"]["num_classes"] == 10
    assert find_suite("large").backbones == {}


def test_an_unknown_suite_is_refused_with_those_that_exist() -> None:
    with pytest.raises(UserError, match=r"^--suite: 'digit' is not a suite \(did you mean digits\?\)$"):
        find_suite("digit")
    with pytest.raises(UserError, match=r"^--suite: 'coco' is not a suite \(use digits or large\)$"):
        find_suite("coco")


@pytest.mark.parametrize("name", ["digits/", "./digits", ".", "../experiments/digits"])
def test_a_suite_is_named_and_not_a_path(name: str) -> None:
    with pytest.raises(UserError, match=r"^--suite: .* is a path; give the name of a folder in experiments/"):
        find_suite(name)


def test_outside_a_checkout_the_message_says_where_to_go() -> None:
    shutil.rmtree("experiments")
    with pytest.raises(UserError, match=r"no folder experiments/ here; run focal-lab from a checkout"):
        find_suite("digits")


def test_a_task_without_experiment_is_refused_with_those_that_have_one() -> None:
    with pytest.raises(UserError) as caught:
        find_suite("digits").experiment("segmentation")
    there = "suite digits has no experiment for segmentation (it has classification or detection)"
    assert str(caught.value) == f"experiments/digits/segmentation.yaml: {there}"


def test_an_experiment_may_lie_in_another_folder() -> None:
    write("experiments/large/suite.yaml", "experiments: {detection: ../digits/detection.yaml}\n")
    assert find_suite("large").experiment("detection") == find_suite("digits").experiment("detection")


def test_a_suite_declares_for_which_tasks_it_has_the_papers_data() -> None:
    write("experiments/large/suite.yaml", "paper_images: {classification: 50000}\n")
    assert find_suite("large").paper_images == {"classification": 50000}
    assert find_suite("digits").paper_images == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{'classify': 1}", "paper_images: 'classify' is not a task (use classification, "),
        ("{detection: many}", "paper_images.detection: 'many' is not a number of images"),
        ("{detection: 0}", "paper_images.detection: 0 is not a number of images"),
        ("{detection: true}", "paper_images.detection: True is not a number of images"),
    ],
)
def test_images_of_the_paper_are_numbers_of_images_of_tasks(text: str, message: str) -> None:
    write("experiments/digits/suite.yaml", f"paper_images: {text}\n")
    with pytest.raises(UserError, match=re.escape(f"experiments/digits/suite.yaml: {message}")):
        find_suite("digits")


@pytest.mark.parametrize(
    "text", ["backbone: {}", "backbones: [a]", "backbones:", "backbones: {}\nmore: 1", "experiments: 3"]
)
def test_a_suite_file_holds_nothing_but_stand_ins(text: str) -> None:
    write("experiments/digits/suite.yaml", text)
    with pytest.raises(UserError, match=r"^experiments/digits/suite\.yaml: may have backbones"):
        find_suite("digits")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("model:", "modle:", "model: needs a class_path and init_args"),
        ("  class_path: focal_lab.data.DigitsClassification\n", "", "data: needs a class_path and"),
        ("init_args: {batch_size: 64}", "init_args: [64]", "data.init_args: [64] is not a mapping"),
        ("trainer: {max_epochs: 2, log_every_n_steps: 20}", "trainer: 2", "trainer: 2 is not a mapping"),
        ("trainer: {", "trainer: {{", "is not YAML: line 3, column 1"),
    ],
)
def test_a_malformed_experiment_is_reported_with_file_and_key(old: str, new: str, message: str) -> None:
    assert old in DIGITS
    write("experiments/digits/classification.yaml", DIGITS.replace(old, new))
    with pytest.raises(UserError) as caught:
        find_suite("digits").experiment("classification")
    assert str(caught.value).startswith(f"experiments/digits/classification.yaml: {message}")


@pytest.mark.parametrize("empty", ["init_args:", "init_args: {}", ""])
def test_parts_of_an_experiment_may_be_left_empty(empty: str) -> None:
    write("experiments/digits/bare.yaml", f"model: {{class_path: M}}\ndata:\n  class_path: D\n  {empty}\n")
    config = find_suite("digits").experiment("bare")
    assert config["model"] == {"class_path": "M", "init_args": {}}
    assert config["data"] == {"class_path": "D", "init_args": {}}
    assert config["trainer"] == {}
