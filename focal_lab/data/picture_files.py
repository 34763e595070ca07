"""Picture files in folders."""

from pathlib import Path

from PIL import Image, ImageOps
from torchvision.datasets.folder import IMG_EXTENSIONS, is_image_file

from focal_lab.errors import UserError


def list_pictures_of(folder: Path, key: str) -> list[Path]:
    """The pictures that lie in a folder, by name.

    Args:
        folder: where to look; folders in it are not looked into.
        key: the option that named the folder.

    Raises:
        UserError: the folder is missing or has no picture in it.
    """
    key = f"data.init_args.{key}"
    if not folder.is_dir():
        raise UserError("is no folder", file=folder, key=key)
    files = sorted(file for file in folder.iterdir() if is_image_file(file.name))
    if not files:
        raise UserError(f"has no pictures ({', '.join(IMG_EXTENSIONS)})", file=folder, key=key)
    return files


def upright(opened: Image.Image, size: tuple[int, int] | None) -> Image.Image | None:
    """A picture as RGB, turned as EXIF says unless what is known of it was made for the unturned one.

    Args:
        opened: the picture.
        size: expected width and height; None for any.

    Returns:
        None if the picture has another size either way.
    """
    turned = ImageOps.exif_transpose(opened)
    for candidate in (turned, opened):
        if size is None or candidate.size == size:
            return candidate.convert("RGB")
    return None
