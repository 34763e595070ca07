"""What `focal-lab inspect` drew of a sweep's networks, small enough to stand inside a page."""

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focal_lab.report.formats.grid import row_name
from focal_lab.report.table.model import Table

if TYPE_CHECKING:
    from PIL.Image import Image

INSPECT = "inspect"
INSPECT_FILE = "inspect.json"
# Bytes of all pictures together before base64 makes them a third longer, and what one needs to be legible.
_BUDGET = 1_000_000
_SHARE = (20_000, 150_000)
_WIDTHS = (1000, 760, 560)


@dataclass(frozen=True)
class Picture:
    """A picture as a `data:` address, with its size in pixels."""

    caption: str
    address: str
    width: int
    height: int


@dataclass(frozen=True)
class Inspected:
    """The pictures of a row's first run that has any."""

    name: str
    run: str
    pictures: tuple[Picture, ...]


def inspected(table: Table, out: Path) -> tuple[list[Inspected], int]:
    """The pictures of each row, and how many there was no room for.

    They lie in `<out>/inspect/<run>/`: `inspect.json`, whose list `pictures` may name files and captions, and
    PNG files, which otherwise are taken in the order of their names.
    """
    found = []
    for row in table.rows:
        folders = [(run.run, out / INSPECT / run.run) for run in row.runs] if row.same_as is None else []
        named = [(run, files) for run, folder in folders if (files := list(_files(folder)))]
        if named:
            found.append((row_name(row), *named[0]))
    count = sum(len(files) for _, _, files in found)
    if not count:
        return [], 0
    share = min(max(_BUDGET // count, _SHARE[0]), _SHARE[1])
    left, dropped, groups = _BUDGET, 0, []
    for name, run, files in found:
        pictures = []
        for path, caption in files:
            small = _small(path, share)
            if small is None or len(small[0]) > left:
                dropped += 1
                continue
            left -= len(small[0])
            pictures.append(_picture(caption, *small))
        if pictures:
            groups.append(Inspected(name, run, tuple(pictures)))
    return groups, dropped


def _files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Pictures and their captions; none before `inspect.json`, which is written last."""
    try:
        record: Any = json.loads((folder / INSPECT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    listed = record.get("pictures") if isinstance(record, dict) else None
    if isinstance(listed, list):
        for entry in listed:
            name = entry.get("file") if isinstance(entry, dict) else entry
            # only what lies in the folder itself
            if isinstance(name, str) and Path(name).name == name and (folder / name).is_file():
                caption = entry.get("caption") or entry.get("title") if isinstance(entry, dict) else None
                yield folder / name, str(caption or _words(name))
        return
    for path in sorted(folder.glob("*.png")):
        yield path, _words(path.name)


def _words(name: str) -> str:
    return Path(name).stem.replace("_", " ").replace("-", " ")


def _small(path: Path, most: int) -> tuple[bytes, str, int, int] | None:
    """Bytes, type, width and height of a picture of so many bytes at most; None if there is none."""
    from PIL import Image

    try:
        raw = path.read_bytes()
        with Image.open(io.BytesIO(raw)) as opened:
            width, height = opened.size
            if len(raw) <= most and opened.format == "PNG":
                return raw, "png", width, height
            picture = opened.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    for limit in _WIDTHS:
        scaled = _scaled(picture, limit)
        stream = io.BytesIO()
        scaled.save(stream, format="WEBP", quality=78, method=4)
        if stream.tell() <= most:
            return stream.getvalue(), "webp", *scaled.size
    return None


def _scaled(picture: "Image", width: int) -> "Image":
    if picture.width <= width:
        return picture
    return picture.resize((width, max(1, round(picture.height * width / picture.width))))


def _picture(caption: str, raw: bytes, kind: str, width: int, height: int) -> Picture:
    return Picture(caption, f"data:image/{kind};base64,{base64.b64encode(raw).decode()}", width, height)
