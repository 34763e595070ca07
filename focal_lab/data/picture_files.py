"""Picture files in folders."""

from pathlib import Path

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
