"""COCO's images and objects as a data module serves them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support import ROOT
from support.coco_data import content, write, written

from focal_lab.data.detection.coco import AspectBatches, CocoDataModule
from focal_lab.errors import UserError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "coco", content())


def data(root: Path, **options: Any) -> CocoDataModule:
    return CocoDataModule(
        str(root), **{"num_workers": 0, "batch_size": 1, "flip": 0.0, "group_by_aspect": False} | options
    )


def test_categories_with_gaps_become_classes_in_the_order_of_their_ids(root: Path) -> None:
    module = data(root)
    assert module.num_classes == 3
    assert module.category_ids == (1, 3, 90)
    assert module.class_names == ("person", "car", "toothbrush")
    module.setup("fit")
    targets = {int(t["image_id"]): t for _, batch in module.val_dataloader() for t in batch}
    assert targets[7]["labels"].tolist() == [0, 2]
    assert targets[8]["labels"].tolist() == [1]


def test_evaluation_has_every_image_and_marks_crowds_and_training_only_what_has_objects(root: Path) -> None:
    module = data(root)
    module.setup("fit")
    trained = {int(t["image_id"]) for _, batch in module.train_dataloader() for t in batch}
    assert trained == {7, 8, 12}
    targets = {int(t["image_id"]): t for _, batch in module.val_dataloader() for t in batch}
    assert set(targets) == {7, 8, 9, 11, 12}
    assert targets[9]["boxes"].shape == (0, 4)
    assert targets[9]["masks"].shape == (0, 40, 60)
    assert targets[11]["iscrowd"].tolist() == [1]
    assert targets[11]["masks"].nonzero()[:, 2].unique().tolist() == [10]
    everything = data(root, keep_empty=True)
    everything.setup("fit")
    trained = {int(t["image_id"]): t for _, batch in everything.train_dataloader() for t in batch}
    assert set(trained) == set(targets)
    assert len(trained[11]["boxes"]) == 0


def test_images_are_normalised_rgb_and_masks_fill_their_boxes(root: Path) -> None:
    module = data(root, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    module.setup("fit")
    for images, targets in module.val_dataloader():
        (image,), (target,) = images, targets
        name = f"{int(target['image_id'])}.png"
        pixels = np.asarray(Image.open(root / "val2017" / name).convert("RGB")).astype(np.float32)
        expected = (torch.from_numpy(pixels).permute(2, 0, 1) / 255 - 0.5) / 0.25
        torch.testing.assert_close(image, expected)
        assert type(image) is torch.Tensor
        for box, mask in zip(target["boxes"].int().tolist(), target["masks"], strict=True):
            filled = torch.zeros_like(mask)
            filled[box[1] : box[3], box[0] : box[2]] = 1
            assert torch.equal(mask, filled)


def test_a_mirrored_image_has_mirrored_boxes_and_masks(root: Path) -> None:
    straight, mirrored = (data(root, flip=flip).dataset("train") for flip in (0.0, 1.0))
    for index in range(len(straight)):
        (image, target), (flipped, its_target) = straight[index] or (), mirrored[index] or ()
        assert torch.equal(image.flip(2), flipped)
        assert torch.equal(target["masks"].flip(2), its_target["masks"])
        width = image.shape[2]
        assert torch.equal(its_target["boxes"][:, [2, 0]], width - target["boxes"][:, [0, 2]])


def test_a_turned_photograph_is_upright_unless_its_annotation_is_not(root: Path) -> None:
    path = root / "train2017" / "8.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter to see it upright
    upright = Image.open(path).convert("RGB")
    upright.rotate(90, expand=True).save(path.with_suffix(".png"), exif=exif)
    for image, _ in (item for item in map(data(root).dataset("train").__getitem__, range(3)) if item):
        assert image.shape in {(3, 40, 60), (3, 50, 30)}
    # now it lies on its side when turned, and its annotation is for what is stored
    upright.save(path, exif=exif)
    item = data(root).dataset("train")[1]
    assert item is not None
    assert item[0].shape == (3, 50, 30)


@pytest.mark.parametrize("box", [[4, 6, 20, 10], [4, 6.5, 20, 10], [0, 0, 60, 40]])
@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_whole_number_boxes_are_float32(tmp_path: Path, box: list[float], flip: float) -> None:
    made = content()
    for entry in made["annotations"]:
        entry["bbox"] = box
    root = write(tmp_path / "coco", made)
    for split in ("train", "val"):
        for item in map(data(root, flip=flip, keep_empty=True).dataset(split).__getitem__, range(5)):
            assert item is not None
            assert item[1]["boxes"].dtype == torch.float32


def exchange(made: dict[str, Any]) -> None:
    first, second = made["categories"][:2]
    first["name"], second["name"] = second["name"], first["name"]


@pytest.mark.parametrize(
    ("change", "reported"),
    [
        (
            exchange,
            "'1 car', '3 person', '90 toothbrush' here and '1 person', '3 car', '90 toothbrush' there",
        ),
        (lambda made: made["categories"].append({"id": 4, "name": "bus"}), "'4 bus', '90 toothbrush' here"),
        (
            lambda made: made["categories"][0].update(name="Car "),
            "'3 car', '90 toothbrush' there, which differ only in case or spaces",
        ),
        (
            lambda made: [entry.update(iscrowd=1) for entry in made["annotations"]],
            "has no objects in 5 images",
        ),
        (lambda made: made.update(annotations=[]), "has no objects in 5 images, besides"),
    ],
)
@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.filterwarnings("ignore:.*no object is")
def test_splits_have_the_same_classes_and_all_have_objects(
    root: Path, change: Callable[[dict[str, Any]], object], reported: str, split: str
) -> None:
    path = written(root / "other.json", change)
    module = data(root, **{f"{split}_images": "val2017", f"{split}_annotations": "other.json"})

    def set_up() -> None:
        module.setup("fit")
        module.setup("test")

    with pytest.raises(UserError) as error:
        set_up()
    assert str(error.value).startswith(f"{path}: ")
    assert reported in str(error.value)


def test_missing_files_and_folders_are_named_before_anything_runs(root: Path) -> None:
    (root / "train2017" / "8.png").unlink()
    with pytest.raises(UserError, match=r"8\.png: image 8 of .* does not exist"):
        data(root).setup("fit")
    data(root).setup("test")
    shutil.rmtree(root / "val2017")
    with pytest.raises(UserError, match=r"val2017: .*is not a folder"):
        data(root).setup("validate")
    with pytest.raises(UserError, match=r"other\.json: does not exist"):
        data(root, val_annotations="other.json").setup("validate")
    write(root / "again", content())
    with pytest.raises(UserError, match="more than the 3 training images"):
        data(root / "again", batch_size=4).setup("fit")


def test_damaged_images_are_named_skipped_and_counted_up_to_a_limit(root: Path) -> None:
    for folder in ("train2017", "val2017"):
        path = root / folder / "8.png"
        path.write_bytes(path.read_bytes()[:200])
    module = data(root)
    with pytest.warns(UserWarning, match=r"8\.png: cannot be read .* 1 so far"):
        seen = [int(t["image_id"]) for _, batch in module.val_dataloader() for t in batch]
    assert sorted(seen) == [7, 9, 11, 12]
    with pytest.warns(UserWarning, match="cannot be read"):
        trained = [int(t["image_id"]) for _, batch in module.train_dataloader() for t in batch]
    assert len(trained) == 3
    with pytest.raises(UserError, match="max_unreadable") as error:
        list(data(root, max_unreadable=0).val_dataloader())
    assert error.value.key == "data.init_args.max_unreadable"


def test_a_test_needs_no_training_files(root: Path) -> None:
    shutil.rmtree(root / "train2017")
    (root / "annotations" / "instances_train2017.json").unlink()
    module = data(root)
    module.setup("test")
    assert (module.num_classes, module.has_masks) == (3, True)
    assert module.class_names == ("person", "car", "toothbrush")


def test_an_image_of_another_size_than_its_annotation_is_refused(root: Path) -> None:
    Image.new("RGB", (61, 40)).save(root / "val2017" / "7.png")
    with pytest.raises(UserError, match="61 x 40 px, but its annotation says 60 x 40"):
        list(data(root).val_dataloader())


def test_batches_are_wide_or_tall_and_none_is_lost() -> None:
    wide = [True, False] * 10 + [True] * 3
    batches = list(AspectBatches(range(23), 4, False, wide))  # type: ignore[arg-type]
    assert sorted(index for batch in batches for index in batch) == list(range(23))
    assert len(batches) == 6
    assert sum(len({wide[index] for index in batch}) == 1 for batch in batches) >= 5
    assert len(list(AspectBatches(range(23), 4, True, wide))) == 5  # type: ignore[arg-type]


def test_a_folder_of_images_can_be_predicted(root: Path) -> None:
    module = data(root, predict_images="val2017", batch_size=2)
    module.setup("predict")
    numbers = [int(t["image_id"]) for _, batch in module.predict_dataloader() for t in batch]
    assert numbers == list(range(5))
    names = [file.name for file in module.predict_files or ()]
    assert names == [
        "11.png",
        "12.png",
        "7.png",
        "8.png",
        "9.png",
    ]
    with pytest.raises(UserError, match="predict_images"):
        data(root, predict_images="nowhere").setup("predict")


def seen_by_processes(root: Path, out: Path) -> None:
    """Train two processes for an epoch; each notes the images that it saw."""
    from lightning import LightningModule, Trainer

    class Watcher(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))
            self.seen: list[int] = []

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            self.seen += [int(target["image_id"]) for target in batch[1]]
            return self.weight * 0

        def on_train_epoch_end(self) -> None:
            (out / f"{self.global_rank}.json").write_text(json.dumps(self.seen), encoding="utf-8")

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp_fork",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    ).fit(Watcher(), data(root, group_by_aspect=True, keep_empty=True))


@pytest.mark.slow
def test_processes_share_the_images_of_an_epoch_when_they_are_grouped(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "seen"
    out.mkdir()
    command = (
        "import sys; sys.path[:0] = sys.argv[3:]; from pathlib import Path; "
        "from test_coco import seen_by_processes; seen_by_processes(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    folders = [str(Path(__file__).parent), str(ROOT / "tests")]
    subprocess.run([sys.executable, "-c", command, str(root), str(out), *folders], check=True, timeout=240)
    first, second = (json.loads((out / f"{rank}.json").read_text()) for rank in (0, 1))
    assert len(first) == len(second) == 3
    assert set(first) | set(second) == {7, 8, 9, 11, 12}


def test_training_images_none_of_which_can_be_read_are_refused(root: Path) -> None:
    for path in root.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:200])
    module = data(root)
    module.setup("fit")
    with (
        pytest.warns(UserWarning, match="cannot be read"),
        pytest.raises(UserError, match="none of the 3 images"),
    ):
        list(module.train_dataloader())


def test_the_test_is_that_of_validation_unless_there_are_images_for_it(root: Path) -> None:
    assert data(root).tests_on_validation
    assert data(
        root, test_images="val2017", test_annotations="annotations/instances_val2017.json"
    ).tests_on_validation
    assert not data(
        root, test_images="test2017", test_annotations="annotations/test.json"
    ).tests_on_validation
