import warnings

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer, seed_everything
from support.image_folders import class_folders

from focal_lab.data.classification.image_folder import ImageFolderDataModule

OPTIONS = {"image_size": 16, "batch_size": 4, "num_workers": 0}


class Small(LightningModule):
    """A linear classifier with dropout, which draws from the training process beside augmentation."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3 * 16 * 16, 2)
        self.seen, self.losses = [], []

    def training_step(self, batch, batch_idx):
        images, labels = batch
        self.seen.append(images.clone())
        dropped = torch.nn.functional.dropout(images.flatten(1), 0.5)
        loss = torch.nn.functional.cross_entropy(self.layer(dropped * np.random.rand()), labels)
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch, batch_idx):
        assert batch[0].dtype == torch.float32

    def predict_step(self, batch, batch_idx):
        return batch[1]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


@pytest.fixture
def root(tmp_path):
    class_folders(tmp_path / "train", {"cat": 10, "dog": 9})
    class_folders(tmp_path / "val", {"cat": 3, "dog": 2})
    return str(tmp_path)


def trained(root, options=None, **trainer):
    seed_everything(0, verbose=False)
    module = Small()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = Trainer(
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **{"max_epochs": 2} | trainer,
        )
        made.fit(module, datamodule=ImageFolderDataModule(root, **(OPTIONS | (options or {}))))
    return module


def test_the_number_of_loading_processes_changes_no_bit_of_a_training(root):
    alone, helped = trained(root), trained(root, {"num_workers": 2})

    assert len(alone.losses) == 8
    assert alone.losses == helped.losses
    assert torch.equal(alone.layer.weight, helped.layer.weight)


def test_every_epoch_has_another_order_and_other_augmentation(root):
    seen = trained(root).seen

    assert not any(torch.equal(one, other) for one, other in zip(seen[:4], seen[4:], strict=True))


def test_batches_for_overfitting_stay_the_same_images(root):
    options = {"auto_augment": None, "color_jitter": 0.0, "random_erasing": 0.0, "hflip": 0.0}
    whole = {"scale": (1.0, 1.0), "ratio": (1.2, 1.2)}  # the images are 48 x 40

    seen = trained(root, options | whole, overfit_batches=1, max_epochs=3).seen

    assert len(seen) == 3
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])


def test_predictions_come_in_the_order_of_the_files(root):
    data = ImageFolderDataModule(root, **OPTIONS)
    made = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        labels = torch.cat(made.predict(Small(), datamodule=data)).tolist()

    assert labels == [0, 0, 0, 1, 1]
    assert [data.folders.index(file.parent.name) for file in data.predict_files] == labels
