"""Images in tars and zips, one or many, read in place.

The classes are folders in the archive, one archive each, or given by label files beside the images
(WebDataset: key.jpg and key.cls).
"""

import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from focal_lab.data.loading.list_files import LeftOut, no_images
from focal_lab.data.option_checks import ROOT_KEY
from focal_lab.data.sources.archive_index import Member, index_archive
from focal_lab.data.sources.image_source import (
    SPLIT_NAMES,
    ImageSource,
    LabelledImages,
    numbers_to,
    packed,
    unpacked,
)
from focal_lab.errors import UserError

_SPLITS = {name for names in SPLIT_NAMES.values() for name in names}

# members with the parts of their paths
_Shard = Sequence[tuple[Member, tuple[str, ...]]]


class _Image(NamedTuple):
    label: str  # name of the class
    path: str  # below the class
    shard: int
    member: Member


def open_archives(paths: Sequence[Path], where: Path, inside: Sequence[str] = ()) -> LabelledImages | None:
    """The images of one split, sorted by class and path, or in their own order where label files number them.

    Args:
        paths: tars and zips.
        where: what to call them in messages.
        inside: names of the split's folder if the archives hold all splits; the first one found counts, and
            without any the result is None.

    Raises:
        UserError: an archive is damaged, or the classes of its images are unknown.
    """
    shards, left = [], LeftOut()
    for path in paths:
        members, others = index_archive(path)
        shards.append(_inside(members, inside))
        left.take(others, path.name)
    if inside and not any(shards):
        return None
    numbered = [member.number >= 0 for shard in shards for member, _ in shard]
    if all(numbered):
        raise UserError(no_images(left), file=where, key=ROOT_KEY)
    if any(numbered):
        images = _numbered(paths, shards, left)
        classes = numbers_to(max(int(image.label) for image in images), where)
    else:
        images = sorted(_in_folders(paths, shards, where), key=lambda image: (image.label, image.path))
        classes = sorted({image.label for image in images})
    left.warn(where)
    labels = {name: label for label, name in enumerate(classes)}
    source = ArchiveSource(paths, images, [labels[image.label] for image in images])
    return LabelledImages(where=where, classes=classes, own=source)


class ArchiveSource(ImageSource):
    """Reads members of archives in place; processes share nothing but the files themselves."""

    def __init__(self, paths: Sequence[Path], images: Sequence[_Image], labels: Sequence[int]) -> None:
        self.labels = np.asarray(labels, np.int64)
        self._paths = [str(path) for path in paths]
        self._shards = np.array([image.shard for image in images], np.int32)
        self._offsets = np.array([image.member.offset for image in images], np.int64)
        self._sizes = np.array([image.member.size for image in images], np.int64)
        self._deflated = np.array([image.member.deflated for image in images], bool)
        self._names = packed(image.member.name for image in images)

    def read(self, index: int) -> bytes:
        size = int(self._sizes[index])
        with open(self._paths[self._shards[index]], "rb") as archive:
            archive.seek(self._offsets[index])
            content = archive.read(size)
        if len(content) < size:
            raise OSError("the archive ends before it")
        return zlib.decompress(content, -zlib.MAX_WBITS) if self._deflated[index] else content

    def name(self, index: int) -> str:
        return f"{self._paths[self._shards[index]]}/{unpacked(self._names[index])}"


def _inside(members: Sequence[Member], inside: Sequence[str]) -> _Shard:
    """Members with the parts of their paths, only those below the folder `inside` if that is given."""
    split = [(member, PurePosixPath(member.name).parts) for member in members]
    for name in inside:
        # at the top, or in the one folder that an archive often has
        below = [(member, parts[parts.index(name) + 1 :]) for member, parts in split if name in parts[:2]]
        if below:
            return below
    return [] if inside else split


def _numbered(paths: Sequence[Path], shards: Sequence[_Shard], left: LeftOut) -> list[_Image]:
    """WebDataset: KEY.cls holds the class of KEY.jpg, or of KEY.PART.jpg if it is the key's only image."""
    found = []
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
                found.append(_Image(labels[key], key, number, member))
            else:
                left.add("further images of a key", member.name)
    return found


def _key(name: str, labels: Mapping[str, str]) -> tuple[str, bool]:
    """The longest part before a dot that has a label; whether that is all but the last suffix."""
    folder, slash, file = name.rpartition("/")
    stem = file.rpartition(".")[0]
    part = stem
    while part and f"{folder}{slash}{part}" not in labels:
        part = part.rpartition(".")[0]
    return f"{folder}{slash}{part or stem}", part in ("", stem)


def _in_folders(paths: Sequence[Path], shards: Sequence[_Shard], where: Path) -> list[_Image]:
    """By the folder in the archive, or by the archive's name where each class has its own."""
    shards = [_without_top(path, shard) for path, shard in zip(paths, shards, strict=True)]
    while len({parts[0] for shard in shards for _, parts in shard}) == 1 and _depth(shards) > 2:
        shards = [_without_first(shard) for shard in shards]
    every = [(number, member, parts) for number, shard in enumerate(shards) for member, parts in shard]
    if _depth(shards) > 1:
        return [_Image(parts[0], "/".join(parts[1:]), number, member) for number, member, parts in every]
    stray = next(member.name for _, member, parts in every if len(parts) == 1)
    if any(len(parts) > 1 for _, _, parts in every):
        raise UserError(f"has {stray} outside of the class folders", file=where, key=ROOT_KEY)
    if len(paths) < 2 or _counted(paths):
        raise UserError(
            "does not define the classes of its images: expected CLASS/NAME.jpg, or KEY.jpg with KEY.cls; "
            f"found {stray}",
            file=where,
            key=ROOT_KEY,
        )
    return [_Image(paths[number].stem, parts[0], number, member) for number, member, parts in every]


def _without_top(path: Path, shard: _Shard) -> _Shard:
    """Without a top folder that is called like the split or the archive, if all images are in it."""
    while _depth([shard]) > 2 and len({parts[0] for _, parts in shard}) == 1:
        if shard[0][1][0] not in (*_SPLITS, path.stem):
            break
        shard = _without_first(shard)
    return shard


def _without_first(shard: _Shard) -> _Shard:
    return [(member, parts[1:]) for member, parts in shard]


def _depth(shards: Sequence[_Shard]) -> int:
    """The least number of parts of a path, the file name included."""
    return min((len(parts) for shard in shards for _, parts in shard), default=0)


def _counted(paths: Sequence[Path]) -> bool:
    """Whether the archives are numbered, and so are shards rather than classes."""
    numbers = sorted(int(found[1]) for path in paths if (found := re.search(r"(\d+)\D*$", path.stem)))
    return len(numbers) == len(paths) and numbers == list(range(numbers[0], numbers[0] + len(paths)))
