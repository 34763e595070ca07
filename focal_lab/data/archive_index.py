"""Where in a tar or zip each picture lies, so that it can be read without unpacking."""

import os
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

from focal_lab.errors import UserError

SUFFIXES = (".tar", ".zip")
# torchvision's; importing it would take a reading process seconds
PICTURES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
# a second time reads of the archive's own size; a cache file is worth its place where that took longer
_WORTH_KEEPING = 2.0  # s
_VERSION = 1
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
        names: their paths, one a line, UTF-8, uint8.
        offsets: int64, shape (M,).
        sizes: int64, shape (M,).
        packed: bool, shape (M,).
        numbers: int64, shape (M,).
    """

    names: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    packed: NDArray[np.bool_]
    numbers: NDArray[np.int64]

    def members(self) -> Iterator[Member]:
        """One after the other."""
        names = self.names.tobytes().decode("utf-8", "surrogateescape").split("\n") if len(self.names) else []
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
            members = list(_zip_members(stream) if path.suffix == ".zip" else _tar_members(stream))
    except UserError as error:
        raise UserError(error.message, file=path) from error
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError) as error:
        raise UserError(f"is damaged, cut off or no {path.suffix[1:]} ({error})", file=path) from error
    names = "\n".join(member.name for member in members).encode("utf-8", "surrogateescape")
    return Index(
        np.frombuffer(names, np.uint8),
        np.array([member.offset for member in members], np.int64),
        np.array([member.size for member in members], np.int64),
        np.array([member.packed for member in members], bool),
        np.array([member.number for member in members], np.int64),
    )


def _tar_members(stream: BinaryIO, start: int = 0) -> Iterator[Member]:
    """Pictures and labels of a tar, and of the tars in it, as ImageNet's own has one for each class."""
    links: dict[str, str] = {}
    found: dict[str, Member] = {}
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        while (entry := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # else it keeps all that it has read
            if entry.islnk() and _wanted(entry.name):  # a file that tar has met before under another name
                links[entry.name] = entry.linkname
            if not entry.isfile():
                continue
            offset, suffix = start + entry.offset_data, PurePosixPath(entry.name).suffix.lower()
            if suffix == ".tar":
                inner = cast(BinaryIO, _Window(stream, entry.offset_data, entry.size))
                folder = PurePosixPath(entry.name).with_suffix("")
                for member in _tar_members(inner, offset):
                    yield member._replace(name=str(folder / member.name))
            elif _wanted(entry.name):
                content = archive.extractfile(entry).read() if suffix == ".cls" else b""  # type: ignore[union-attr]
                number = _number(entry.name, content)
                found[entry.name] = Member(entry.name, offset, entry.size, number=number)
        stream.seek(archive.offset)
        if stream.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it has no end")  # tarfile is content with a part of a header
    yield from found.values()  # the last one where a tar was appended to, as when it is unpacked
    yield from (found[to]._replace(name=name) for name, to in links.items() if to in found)


def _zip_members(stream: BinaryIO) -> Iterator[Member]:
    with zipfile.ZipFile(stream) as archive:
        for entry in archive.infolist():
            if entry.is_dir() or not _wanted(entry.filename):
                continue
            if entry.flag_bits & _ENCRYPTED:
                raise UserError("is encrypted (unpack it)")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise UserError(f"packs {entry.filename} in a rare way (make it anew with zip -0)")
            stream.seek(entry.header_offset)
            name, extra = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
            offset = entry.header_offset + _LOCAL_HEADER.size + name + extra
            content = archive.read(entry) if entry.filename.endswith(".cls") else b""
            packed = entry.compress_type == zipfile.ZIP_DEFLATED
            number = _number(entry.filename, content)
            yield Member(entry.filename, offset, entry.compress_size, packed, number)


def _wanted(name: str) -> bool:
    """Pictures and labels, but not what macOS puts beside them."""
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts if part != ".")
    return not hidden and "\n" not in name and path.suffix.lower() in (*PICTURES, ".cls")


def _number(name: str, content: bytes) -> int:
    if not name.endswith(".cls"):
        return -1
    text = content.decode("ascii", "replace").strip()
    if not text.isdigit():
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
