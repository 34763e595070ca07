"""Small image files for tests."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def noise(seed: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """An RGB image of noise, (width, height)."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(256, size=(size[1], size[0], 3)).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """An image file's bytes."""
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def class_folders(root: Path, counts: dict[str, int]) -> Path:
    """Noise in one folder per class: root/cat/0.jpg, ..."""
    for number, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            (root / name / f"{index}.jpg").write_bytes(encoded(noise(1000 * number + index)))
    return root


def open_folder(root: Path, stage: str = "fit", **options: Any) -> Any:
    """An ImageFolderDataModule whose images have been looked for."""
    from focal_lab.data.classification.image_folder import ImageFolderDataModule

    data = ImageFolderDataModule(str(root), **options)
    data.setup(stage)
    return data


def refusal(root: Path, stage: str = "fit", **options: Any) -> str:
    """The one line in which a folder is refused."""
    import pytest

    from focal_lab.errors import UserError

    with pytest.raises(UserError) as caught:
        open_folder(root, stage, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def read_all(source: Any, queue: Any) -> None:
    """What a process reads of a source; in a module without torch, which takes a new process seconds."""
    queue.put([source.read(index) for index in range(len(source))])
