"""Pictures in tars and zips, one or many, read where they lie.

What the classes are is told by folders in the archive, by one archive for each class, or by label files
beside the pictures (WebDataset: key.jpg and key.cls).
"""

import os
import re
import zlib
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from focal_lab.data.loading.list_files import LeftOut, no_images
from focal_lab.data.sources.archive_index import Index, Member, index_archive
from focal_lab.data.sources.base import Names, Source, relabelled
from focal_lab.data.sources.found import CALLED, ROOT_KEY, Found, numbers_to
from focal_lab.errors import UserError

_OPEN = 64  # files at a time and process
_SPLITS = {name for names in CALLED.values() for name in names}

# members and the parts of their paths
_Shard = Sequence[tuple[Member, tuple[str, ...]]]


class _Picture(NamedTuple):
    label: str  # name of the class
    path: str  # below the class
    shard: int
    member: Member


@dataclass(frozen=True)
class ArchivedClasses(Found):
    """Pictures in archives, sorted by class and path, or in their own order where label files number them."""

    own: "ArchiveSource"

    def source(self, classes: Sequence[str]) -> "ArchiveSource":
        """The pictures; labels count along `classes`."""
        places = {name: label for label, name in enumerate(classes)}
        return relabelled(self.own, [places[name] for name in self.classes])


def open_archives(paths: Sequence[Path], where: Path, inside: Sequence[str] = ()) -> ArchivedClasses | None:
    """The pictures of one split.

    Args:
        paths: tars and zips.
        where: what to call them together.
        inside: names of the split's folder where the archives hold all splits; the first one found counts.

    Returns:
        None where there are no pictures under `inside`.

    Raises:
        UserError: an archive is damaged, or does not tell the classes of its pictures.
    """
    shards, left = [], LeftOut()
    for path in paths:
        index = index_archive(path)
        shards.append(_members(index, inside))
        left.take(index.left_out, path.name)
    if inside and not any(shards):
        return None
    if all(member.number >= 0 for shard in shards for member, _ in shard):
        raise UserError(no_images(left), file=where, key=ROOT_KEY)
    if any(member.number >= 0 for shard in shards for member, _ in shard):
        pictures = _numbered(paths, shards, left)
        classes = numbers_to(max(int(picture.label) for picture in pictures), where)
    else:
        pictures = sorted(_in_folders(paths, shards, where), key=lambda p: (p.label, p.path))
        classes = sorted({picture.label for picture in pictures})
    left.warn(where)
    labels = {name: label for label, name in enumerate(classes)}
    source = ArchiveSource(paths, pictures, [labels[picture.label] for picture in pictures])
    return ArchivedClasses(where, classes, source)


class ArchiveSource(Source):
    """Reads members of archives where they lie; processes share nothing but the files themselves."""

    def __init__(self, paths: Sequence[Path], pictures: Sequence[_Picture], labels: Sequence[int]) -> None:
        self.labels = np.asarray(labels, np.int64)
        self._paths = [str(path) for path in paths]
        self._shards = np.array([picture.shard for picture in pictures], np.int32)
        self._offsets = np.array([picture.member.offset for picture in pictures], np.int64)
        self._sizes = np.array([picture.member.size for picture in pictures], np.int64)
        self._packed = np.array([picture.member.packed for picture in pictures], bool)
        self._names = Names(picture.member.name for picture in pictures)
        self._files = _Files()

    def read(self, index: int) -> bytes | Image.Image:
        """The picture file's bytes.

        Raises:
            OSError: the archive is shorter than it was.
        """
        size, offset = int(self._sizes[index]), int(self._offsets[index])
        # reads at a place and leaves the file's own place alone, which processes share after a fork
        content = os.pread(self._files.descriptor(self._paths[self._shards[index]]), size, offset)
        if len(content) < size:
            raise OSError("the archive ends before it")
        return zlib.decompress(content, -zlib.MAX_WBITS) if self._packed[index] else content

    def name(self, index: int) -> str:
        """The archive's path and the member's in it."""
        return f"{self._paths[self._shards[index]]}/{self._names[index]}"


class _Files:
    """Open files, the latest used ones; they are opened anew in a process that gets them pickled."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, int] = OrderedDict()

    def descriptor(self, path: str) -> int:
        if path not in self._open:
            if len(self._open) >= _OPEN:
                os.close(self._open.popitem(last=False)[1])
            self._open[path] = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._open.move_to_end(path)
        return self._open[path]

    def __getstate__(self) -> dict[str, Any]:
        return {"_open": OrderedDict()}

    def __del__(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)


def _members(index: Index, inside: Sequence[str]) -> _Shard:
    """The members with the parts of their paths; only those below the folder `inside` where that is given."""
    members = [(member, PurePosixPath(member.name).parts) for member in index.members()]
    for name in inside:
        # at the top, or in the one folder that an archive often has
        below = [(member, parts[parts.index(name) + 1 :]) for member, parts in members if name in parts[:2]]
        if below:
            return below
    return [] if inside else members


def _numbered(paths: Sequence[Path], shards: Sequence[_Shard], left: LeftOut) -> list[_Picture]:
    """WebDataset: KEY.jpg has its class in KEY.cls; so has KEY.PART.jpg where it is the key's only image."""
    pictures = []
    for number, (path, shard) in enumerate(zip(paths, shards, strict=True)):
        labels = {member.name[:-4]: str(member.number) for member, _ in shard if member.number >= 0}
        images = [(member, *_key(member.name, labels)) for member, _ in shard if member.number < 0]
        plain = {key for _, key, whole in images if whole}
        parts = Counter(key for _, key, whole in images if not whole)
        for member, key, whole in images:
            if key not in labels:
                raise UserError(f"has no {key}.cls for {member.name}", file=path)
            if not whole and key not in plain and parts[key] > 1:
                raise UserError(
                    f"has {parts[key]} images of {key}.cls, such as {member.name}, and no {key}.jpg (give "
                    "each image its own .cls)",
                    file=path,
                )
            if whole or key not in plain:
                pictures.append(_Picture(labels[key], key, number, member))
            else:
                left.add("further images of a key", member.name)
    return pictures


def _key(name: str, labels: Mapping[str, str]) -> tuple[str, bool]:
    """The longest part before a dot that has a label; whether that is all but the last suffix."""
    folder, slash, file = name.rpartition("/")
    stem = file.rpartition(".")[0]
    part = stem
    while part and f"{folder}{slash}{part}" not in labels:
        part = part.rpartition(".")[0]
    return f"{folder}{slash}{part or stem}", part in ("", stem)


def _in_folders(paths: Sequence[Path], shards: Sequence[_Shard], where: Path) -> list[_Picture]:
    """By the folder in the archive, or by the archive's name where each class has its own."""
    shards = [_without_top(path, shard) for path, shard in zip(paths, shards, strict=True)]
    while len({parts[0] for shard in shards for _, parts in shard}) == 1 and _depth(shards) > 2:
        shards = [_without_first(shard) for shard in shards]
    if _depth(shards) > 1:
        return [
            _Picture(parts[0], "/".join(parts[1:]), number, member)
            for number, shard in enumerate(shards)
            for member, parts in shard
        ]
    stray = next(member.name for shard in shards for member, parts in shard if len(parts) == 1)
    if any(len(parts) > 1 for shard in shards for _, parts in shard):
        raise UserError(f"has {stray} outside of the class folders", file=where, key=ROOT_KEY)
    if len(paths) < 2 or _counted(paths):
        raise UserError(
            "does not tell the classes of its pictures: expected CLASS/NAME.jpg, or KEY.jpg with KEY.cls; "
            f"found {stray}",
            file=where,
            key=ROOT_KEY,
        )
    return [
        _Picture(path.stem, parts[0], number, member)
        for number, (path, shard) in enumerate(zip(paths, shards, strict=True))
        for member, parts in shard
    ]


def _without_top(path: Path, shard: _Shard) -> _Shard:
    """Without folders that are called as the split or the archive, where all pictures are in them."""
    while _depth([shard]) > 2 and len({parts[0] for _, parts in shard}) == 1:
        if shard[0][1][0] not in (*_SPLITS, path.stem):
            break
        shard = _without_first(shard)
    return shard


def _without_first(shard: _Shard) -> _Shard:
    return [(member, parts[1:]) for member, parts in shard]


def _depth(shards: Sequence[_Shard]) -> int:
    """The least number of parts of a path, the file's name included."""
    return min((len(parts) for shard in shards for _, parts in shard), default=0)


def _counted(paths: Sequence[Path]) -> bool:
    """Whether the archives are numbered: then they are shards, and no classes."""
    numbers = sorted(int(found[1]) for path in paths if (found := re.search(r"(\d+)\D*$", path.stem)))
    return len(numbers) == len(paths) and numbers == list(range(numbers[0], numbers[0] + len(paths)))
