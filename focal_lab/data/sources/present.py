"""Whether the files of a data set are there, without opening any: a plan asks before anything is trained.

A data module that reads files has a method `check_files`, which raises UserError for what is missing.
"""

from collections.abc import Mapping
from pathlib import Path

from focal_lab.data.sources.found import ROOT_KEY
from focal_lab.errors import UserError


def check_present(root: Path, folders: Mapping[str, str], files: Mapping[str, str]) -> None:
    """Look for what options name.

    Args:
        root: folder that the options are relative to.
        folders: option -> folder.
        files: option -> file.

    Raises:
        UserError: one of them does not exist.
    """
    for kind, places in {"folder": folders, "file": files}.items():
        for option, place in places.items():
            path = root / place
            if path.is_dir() if kind == "folder" else path.is_file():
                continue
            if not root.is_dir() and not Path(place).is_absolute():
                raise UserError(
                    "is not a folder" if root.exists() else "does not exist", file=root, key=ROOT_KEY
                )
            raise UserError(
                f"is not a {kind}" if path.exists() else "does not exist",
                file=path,
                key=f"data.init_args.{option}",
            )
