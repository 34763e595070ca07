from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from support.tiny_task import OPTIONS, tiny_config

from focal_lab.backbones.counting import count_gmacs, count_parameters
from focal_lab.errors import UserError
from focal_lab.training.cost import count_config
from focal_lab.training.lightning_cli import FocalCLI
from focal_lab.utils.lazy_imports import find_class

DIGITS = "focal_lab.data.DigitsClassification"
FOLDER = "focal_lab.data.ImageFolderDataModule"


def test_the_cost_is_that_of_the_model_that_is_trained() -> None:
    model = timm.create_model("focal_micro_patch2_window7_28", num_classes=10, **OPTIONS)
    counted = count_config(tiny_config())
    assert (counted.params, counted.gmacs) == (count_parameters(model), count_gmacs(model, (28, 28)))


def test_the_cost_is_counted_at_the_size_of_the_datas_images() -> None:
    config = tiny_config(backbone="resnet10t", backbone_options={}, data={"image_size": 64})
    small = count_config(config)
    larger = count_config(config | {"data": {"class_path": DIGITS, "init_args": {"image_size": 128}}})
    assert larger.params == small.params
    assert larger.gmacs == pytest.approx(4 * small.gmacs, rel=0.01)


def test_numbers_written_as_text_count_as_numbers() -> None:
    assert count_config(tiny_config(lr="3e-3", num_classes="10")) == count_config(tiny_config())


def test_the_number_of_classes_comes_from_the_data_unless_it_is_given(tmp_path: Path) -> None:
    for name in ("cat", "dog", "eel"):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "train" / name / "0.png")
    folder = {"class_path": FOLDER, "init_args": {"root": str(tmp_path), "image_size": 28}}
    config = tiny_config() | {"data": folder}
    given = count_config(config)
    del config["model"]["init_args"]["num_classes"]
    assert given.params - count_config(config).params == 7 * (8 * OPTIONS["embed_dim"] + 1)
    built = FocalCLI(config, run=False)
    assert built.model.hparams["num_classes"] == 3
    assert built.config.model.init_args.num_classes == 3  # what is trained again has it, too
    folder["init_args"]["root"] = str(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"nowhere: data\.init_args\.root: is not a folder"):
        count_config(config)


def test_weights_to_start_from_are_not_read() -> None:
    assert count_config(tiny_config(backbone_checkpoint="not/there.pth")) == count_config(tiny_config())


def test_a_networks_cost_needs_no_memory_for_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = []
    plain = torch.nn.Linear.__init__

    def spy(self: torch.nn.Linear, *args: Any, **kwargs: Any) -> None:
        plain(self, *args, **kwargs)
        devices.append(self.weight.device.type)

    monkeypatch.setattr(torch.nn.Linear, "__init__", spy)
    count_config(tiny_config())
    assert set(devices) == {"meta"}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            tiny_config(num_classes=12),
            "model.num_classes: 12 is not the number of classes of the data, 10 (0, 1",
        ),
        (tiny_config(lr="fast"), "model.lr: Expected a float. Got value: fast"),
        (tiny_config(lrr=1), "model: Option 'lrr' is not accepted by Classification"),
        (tiny_config(trainer={"epochs": 2}), "Group 'trainer' does not accept option 'epochs'"),
        (tiny_config(backbone="focal_tinny"), "model.backbone: 'focal_tinny' is not a backbone"),
        (tiny_config(options={"window_size": 0}), "model.backbone_options: window_size: "),
        (
            tiny_config(backbone="test_vit", backbone_options={}),
            "model.backbone: test_vit does not take images of 28 x 28 px: Input",
        ),
    ],
)
def test_a_configuration_that_cannot_be_trained_is_reported_in_one_line(config: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        count_config(config)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_data_that_does_not_say_its_size_is_refused() -> None:
    config = tiny_config() | {"data": {"class_path": "lightning.LightningDataModule"}}
    with pytest.raises(UserError, match=r"^data\.init_args\.image_size: .*DataModule has no image_size"):
        count_config(config)


@pytest.mark.parametrize("path", ["focal_lab.data.digits.Nope", "focal_lab.nope.Nope", "Nope", ""])
def test_a_class_that_is_not_there_is_reported_with_its_path(path: str) -> None:
    with pytest.raises(UserError, match=rf"^{path} is not the dotted path of a class: "):
        find_class(path)
