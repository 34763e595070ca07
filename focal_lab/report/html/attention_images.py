"""Images that `focal-lab inspect` made of a sweep's networks, small enough to be embedded in a page."""

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path

from focal_lab.report.table.records import Row, Table

INSPECT = "inspect"
INSPECT_FILE = "inspect.json"
# Bytes of all images, before base64 makes them a third longer.
_BUDGET = 1_200_000
_MAX_PIXELS = (900, 2000)


@dataclass(frozen=True)
class EmbeddedImage:
    """An image as a `data:` URL, with its size in pixels."""

    caption: str
    url: str
    width: int
    height: int


def attention_images(table: Table, out: Path) -> tuple[list[tuple[Row, str, list[EmbeddedImage]]], int]:
    """The images in `<out>/inspect/<run>/` of each row's first run that has any.

    Returns:
        Row, run and images; and how many images did not fit or cannot be read.
    """
    groups, left, left_out = [], _BUDGET, 0
    for row in table.rows:
        for run in row.runs if row.same_as is None else ():
            files = _files(out / INSPECT / run.run)
            images = []
            for path, caption in files:
                small = _compress(path)
                if small is None or len(small[0]) > left:
                    left_out += 1
                    continue
                raw, width, height = small
                left -= len(raw)
                url = f"data:image/webp;base64,{base64.b64encode(raw).decode()}"
                images.append(EmbeddedImage(caption, url, width, height))
            if images:
                groups.append((row, run.run, images))
            if files:
                break
    return groups, left_out


def _files(folder: Path) -> list[tuple[Path, str]]:
    """Images and captions that `inspect.json`, which is written last, lists."""
    try:
        listed = json.loads((folder / INSPECT_FILE).read_text(encoding="utf-8"))["pictures"]
        # only files of the folder itself
        files = [(folder / Path(entry["file"]).name, str(entry["caption"])) for entry in listed]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [(path, caption) for path, caption in files if path.is_file()]


def _compress(path: Path) -> tuple[bytes, int, int] | None:
    """WebP content, width and height; None if the file is not an image."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    image.thumbnail(_MAX_PIXELS)
    stream = io.BytesIO()
    image.save(stream, format="WEBP", quality=78)
    return stream.getvalue(), *image.size
