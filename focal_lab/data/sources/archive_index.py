"""Where in a tar or zip each picture lies, so that it can be read without unpacking."""

import json
import os
import posixpath
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from hashlib import blake2b
from io import RawIOBase
from pathlib import Path, PurePosixPath
from time import perf_counter
from typing import BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from focal_lab.data.loading.list_files import JUNK, LeftOut, is_image, is_junk
from focal_lab.errors import UserError

SUFFIXES = (".tar", ".zip")
# a second time reads of the archive's own size; a cache file is worth its place where that took longer
_WORTH_KEEPING = 2.0  # s
_VERSION = 2
_LINKS = 40  # that are followed from one to the next, as Linux does
_LOCAL_HEADER = struct.Struct(
    "<26xHH"
)  # lengths of name and extra field, behind what the directory says, too
_ENCRYPTED = 0x1


class Member(NamedTuple):
    """A picture or label file in an archive.

    Attributes:
        name: its path in the archive.
        offset: of its first byte.
        size: bytes that are stored.
        packed: whether these are deflated.
        number: what a label file says; -1 for pictures.
    """

    name: str
    offset: int
    size: int
    packed: bool = False
    number: int = -1


@dataclass(frozen=True)
class Index:
    """The members of an archive that are pictures or class labels, in their order, M of them.

    Attributes:
        names: their paths, UTF-8, a zero between them, uint8.
        offsets: int64, shape (M,).
        sizes: int64, shape (M,).
        packed: bool, shape (M,).
        numbers: int64, shape (M,).
        left: what else is in it, as JSON, uint8.
    """

    names: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    packed: NDArray[np.bool_]
    numbers: NDArray[np.int64]
    left: NDArray[np.uint8]

    @property
    def left_out(self) -> LeftOut:
        """What is in the archive beside the members."""
        found = LeftOut()
        found.kinds = {
            kind: (count, first) for kind, (count, first) in json.loads(self.left.tobytes()).items()
        }
        return found

    def members(self) -> Iterator[Member]:
        """One after the other."""
        names = self.names.tobytes().decode("utf-8", "surrogateescape").split("\0") if len(self.names) else []
        columns = (self.offsets.tolist(), self.sizes.tolist(), self.packed.tolist(), self.numbers.tolist())
        yield from map(Member, names, *columns)


def index_archive(path: Path) -> Index:
    """What is in an archive; kept in the user's cache folder where it takes long to find out.

    Raises:
        UserError: it is missing, damaged, encrypted, or compressed as a whole.
    """
    kept = _cache_file(path)
    found = _load(kept)
    if found is None:
        start = perf_counter()
        found = _indexed(path)
        if perf_counter() - start > _WORTH_KEEPING:
            _save(kept, found)
    return found


def _indexed(path: Path) -> Index:
    try:
        with open(path, "rb") as stream:
            content = _Content(stream)
            if path.suffix.lower() == ".zip":
                _read_zip(content, stream)
            else:
                _read_tar(content, stream)
            members = list(content.members())
    except UserError as error:
        raise UserError(error.message, file=path) from error
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError) as error:
        raise UserError(
            f"is damaged, cut off or no {path.suffix[1:].lower()} ({error})", file=path
        ) from error
    names = "\0".join(member.name for member in members).encode("utf-8", "surrogateescape")
    return Index(
        np.frombuffer(names, np.uint8),
        np.array([member.offset for member in members], np.int64),
        np.array([member.size for member in members], np.int64),
        np.array([member.packed for member in members], bool),
        np.array([member.number for member in members], np.int64),
        np.frombuffer(json.dumps(content.left.kinds).encode(), np.uint8),
    )


class _Content:
    """What an archive holds, as it would lie unpacked: links lead somewhere, and the last of a name counts.

    Args:
        stream: the archive.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.files: dict[str, Member] = {}
        self.links: dict[str, str] = {}
        self.left = LeftOut()

    def add(self, member: Member) -> None:
        """A file, of any kind: images may be links to files of any name."""
        self._replace(member.name)
        self.files[member.name] = member

    def link(self, name: str, target: str) -> None:
        """A link to a path in the archive."""
        self._replace(name)
        self.links[name] = _clean(target)

    def members(self) -> Iterator[Member]:
        """Images and labels, in their order, those behind links last."""
        linked = [(name, self._resolved(target)) for name, target in self.links.items()]
        targets = {target for _, target in linked}
        for member in self.files.values():
            if member.name not in targets or _wanted(member.name):
                yield from self._wanted(member)
        for name, target in linked:
            if target in self.files:
                yield from self._wanted(self.files[target]._replace(name=name))
                continue
            below = [member for file, member in self.files.items() if file.startswith(f"{target}/")]
            for member in below:
                yield from self._wanted(member._replace(name=name + member.name[len(target) :]))
            if not below:
                self.left.add("links to nothing in the archive", name)

    def _wanted(self, member: Member) -> Iterator[Member]:
        if any(map(is_junk, member.name.split("/"))):
            self.left.add(JUNK, member.name)
        elif not _wanted(member.name):
            self.left.add_file(member.name)
        elif _is_label(member.name):
            self.stream.seek(member.offset)
            content = self.stream.read(member.size)
            content = zlib.decompress(content, -zlib.MAX_WBITS) if member.packed else content
            yield member._replace(number=_number(member.name, content))
        else:
            yield member

    def _replace(self, name: str) -> None:
        if self.files.pop(name, None) or self.links.pop(name, None):
            self.left.add("members replaced by later ones of the same name", name)

    def _resolved(self, path: str, followed: int = 0) -> str:
        """The path behind links, also those of folders in it."""
        parts = path.split("/")
        for end in range(1, len(parts) + 1):
            target = self.links.get("/".join(parts[:end]))
            if target is not None and followed < _LINKS:
                return self._resolved("/".join([target, *parts[end:]]), followed + 1)
        return path


def _read_tar(content: _Content, stream: BinaryIO, start: int = 0, folder: str = "") -> None:
    """A tar, those that follow it in the file, and those in it: ImageNet's own has one for each class."""
    place = 0
    while place >= 0:
        stream.seek(place)
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            while (entry := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # else it keeps all that it has read
                _read_entry(content, stream, entry, start, folder)
            stream.seek(archive.offset)
        if stream.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it has no end")  # tarfile is content with a part of a header
        place = _after_zeros(stream)


def _read_entry(content: _Content, stream: BinaryIO, entry: tarfile.TarInfo, start: int, folder: str) -> None:
    name, offset = _clean(folder + entry.name), start + entry.offset_data
    if entry.issym():
        content.link(name, f"{posixpath.dirname(name)}/{entry.linkname}")
    elif entry.islnk():
        content.link(name, folder + entry.linkname)
    elif entry.issparse():
        content.left.add("sparse files", name)
    elif not entry.isfile():
        return
    elif PurePosixPath(name).suffix.lower() == ".tar" and not is_junk(PurePosixPath(name).name):
        inner = cast(BinaryIO, _Window(stream, entry.offset_data, entry.size))
        _read_tar(content, inner, offset, f"{PurePosixPath(name).with_suffix('')}/")
    else:
        content.add(Member(name, offset, entry.size))


def _after_zeros(stream: BinaryIO) -> int:
    """Where something follows the zeros at a tar's end, as after `cat one.tar two.tar`; -1 for nothing."""
    while block := stream.read(tarfile.BLOCKSIZE):
        if block.count(0) < len(block):
            return stream.tell() - len(block)
    return -1


def _read_zip(content: _Content, stream: BinaryIO) -> None:
    with zipfile.ZipFile(stream) as archive:
        for entry in archive.infolist():
            path = entry.filename.replace("\\", "/")  # as some programs of Windows write it
            name = _clean(path)
            if path.endswith("/"):
                continue
            needed = _wanted(name) and not any(map(is_junk, name.split("/")))
            if needed and entry.flag_bits & _ENCRYPTED:
                raise UserError("is encrypted (unpack it)")
            if needed and entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise UserError(f"packs {entry.filename} in a rare way (make it anew with zip -0)")
            if stat.S_ISLNK(entry.external_attr >> 16) and not entry.flag_bits & _ENCRYPTED:
                target = archive.read(entry).decode("utf-8", "surrogateescape")
                content.link(name, f"{posixpath.dirname(name)}/{target}")
                continue
            stream.seek(entry.header_offset)
            lengths = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
            offset = entry.header_offset + _LOCAL_HEADER.size + sum(lengths)
            packed = entry.compress_type == zipfile.ZIP_DEFLATED
            content.add(Member(name, offset, entry.compress_size, packed))


def _clean(name: str) -> str:
    """The path below the archive's folder, without dots and slashes that mean nothing."""
    return posixpath.normpath(f"/{name}").lstrip("/")


def _wanted(name: str) -> bool:
    return is_image(name) or _is_label(name)


def _is_label(name: str) -> bool:
    return name.lower().endswith(".cls")


def _number(name: str, content: bytes) -> int:
    text = content.decode("utf-8-sig", "replace").strip()
    if not (text.isascii() and text.isdigit()):
        raise UserError(f"{name} says {text[:20]!r}, and not the number of a class")
    return int(text)


class _Window(RawIOBase):
    """A part of a file as a file of its own."""

    def __init__(self, stream: BinaryIO, start: int, size: int) -> None:
        self._stream, self._start, self._size, self._place = stream, start, size, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = base + offset
        return self._place

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._place)
        self._stream.seek(self._start + self._place)
        content = self._stream.read(left if size < 0 else min(size, left))
        self._place += len(content)
        return content


def _cache_file(path: Path) -> Path:
    """Named by the archive's place, size and time: another one has another name."""
    try:
        state = path.stat()
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", file=path) from error
    told = f"{_VERSION} {path.resolve()} {state.st_size} {state.st_mtime_ns}"
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return folder / "focal-lab" / "archives" / f"{blake2b(told.encode(), digest_size=16).hexdigest()}.npz"


def _load(kept: Path) -> Index | None:
    try:
        with np.load(kept, allow_pickle=False) as arrays:
            return Index(*(arrays[field.name] for field in fields(Index)))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # not there, or cut off
        return None


def _save(kept: Path, index: Index) -> None:
    temporary = kept.with_suffix(f".{os.getpid()}.npz")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(temporary, **{field.name: getattr(index, field.name) for field in fields(Index)})
        os.replace(temporary, kept)
    except OSError:  # no room, or no folder to write to: it is found out again
        temporary.unlink(missing_ok=True)
