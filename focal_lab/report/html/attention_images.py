"""Images that `focal-lab inspect` made of a sweep's networks, small enough to be embedded in a page."""

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from focal_lab.report.table.records import Table, row_name

INSPECT = "inspect"
INSPECT_FILE = "inspect.json"
# Bytes of all images before base64 makes them a third longer, and the limits of the share of each.
_BUDGET = 1_000_000
_LEAST, _MOST = 20_000, 150_000
_WIDTHS = (1000, 760, 560)


@dataclass(frozen=True)
class EmbeddedImage:
    """An image as a `data:` URL, with its size in pixels."""

    caption: str
    url: str
    width: int
    height: int


@dataclass(frozen=True)
class ImageGroup:
    """The images of a row, of its first run that has any."""

    name: str
    run: str
    images: tuple[EmbeddedImage, ...]


def attention_images(table: Table, out: Path) -> tuple[list[ImageGroup], int]:
    """The images of each row from `<out>/inspect/<run>/`, and how many did not fit.

    Its `inspect.json` may list files and captions under `pictures`; otherwise all PNG files are shown.
    """
    found = []
    for row in table.rows:
        for run in row.runs if row.same_as is None else ():
            if files := list(_files(out / INSPECT / run.run)):
                found.append((row_name(row), run.run, files))
                break
    count = sum(len(files) for _, _, files in found)
    share = min(max(_BUDGET // max(1, count), _LEAST), _MOST)
    left, groups = _BUDGET, []
    for name, run_id, files in found:
        images = []
        for path, caption in files:
            small = _compress(path, share)
            if small is None or len(small[0]) > left:
                continue
            raw, kind, width, height = small
            left -= len(raw)
            url = f"data:image/{kind};base64,{base64.b64encode(raw).decode()}"
            images.append(EmbeddedImage(caption, url, width, height))
        if images:
            groups.append(ImageGroup(name, run_id, tuple(images)))
    return groups, count - sum(len(group.images) for group in groups)


def _files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Images and captions; none before `inspect.json`, which is written last."""
    try:
        record: Any = json.loads((folder / INSPECT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    listed = record.get("pictures") if isinstance(record, dict) else None
    if not isinstance(listed, list):
        listed = sorted(path.name for path in folder.glob("*.png"))
    for entry in listed:
        entry = entry if isinstance(entry, dict) else {"file": entry}
        name = entry.get("file")
        # only files of the folder itself
        if isinstance(name, str) and Path(name).name == name and (folder / name).is_file():
            words = Path(name).stem.replace("_", " ").replace("-", " ")
            yield folder / name, str(entry.get("caption") or entry.get("title") or words)


def _compress(path: Path, limit: int) -> tuple[bytes, str, int, int] | None:
    """Content, type, width and height with at most `limit` bytes; None if that cannot be reached."""
    from PIL import Image

    try:
        raw = path.read_bytes()
        with Image.open(io.BytesIO(raw)) as opened:
            if len(raw) <= limit and opened.format == "PNG":
                return raw, "png", *opened.size
            image = opened.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    for width in _WIDTHS:
        if image.width > width:
            image = image.resize((width, max(1, round(image.height * width / image.width))))
        stream = io.BytesIO()
        image.save(stream, format="WEBP", quality=78, method=4)
        if stream.tell() <= limit:
            return stream.getvalue(), "webp", *image.size
    return None
