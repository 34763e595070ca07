"""Dotted paths of data modules: short ones for experiments, old ones in earlier configurations."""

import subprocess
import sys
from pkgutil import resolve_name

import pytest

import focal_lab.data

OLD = {
    "cifar": ["CifarDataModule"],
    "classification": ["ClassificationDataModule"],
    "coco": ["CocoDataModule"],
    "digits": ["DigitsClassification"],
    "digits_detection": ["DigitsDetection"],
    "digits_segmentation": ["DigitsSegmentation"],
    "fashion_mnist": ["FashionMnistDataModule", "IdxDataModule"],
    "image_folder": ["ImageFolderDataModule"],
    "segmentation_folder": ["Ade20kDataModule", "SegmentationFolder"],
}


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in OLD.items() for name in names]
)
def test_old_and_short_paths_lead_to_the_same_class(module: str, name: str) -> None:
    kind = resolve_name(f"focal_lab.data.{module}.{name}")

    assert kind is getattr(focal_lab.data, name)
    assert kind.__name__ == name


def test_every_data_module_has_a_short_path() -> None:
    new = {"DigitsRetrieval"}
    assert set(focal_lab.data.__all__) == {name for names in OLD.values() for name in names} | new
    assert all(getattr(focal_lab.data, name).__name__ == name for name in new)
    with pytest.raises(AttributeError, match="has no attribute 'Nope'"):
        _ = focal_lab.data.Nope


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, focal_lab.data; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
