"""Index of the images in a tar or zip file, so that they can be read without unpacking.

Own code rather than tarfile's and zipfile's readers: a worker process needs 25 bytes an image, and shares
nothing but the file.
"""

import json
import os
import posixpath
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from time import perf_counter
from typing import BinaryIO, NamedTuple, cast

from focal_lab.data.loading.list_files import JUNK, LeftOut, is_image, is_junk
from focal_lab.errors import UserError
from focal_lab.utils.atomic_files import write_atomic

SUFFIXES = (".tar", ".zip")
# seconds; an index that took longer is cached
_WORTH_KEEPING = 2.0
_VERSION = 3
_MOST_LINKS = 40  # followed in a row, as in Linux
_LOCAL_HEADER = struct.Struct("<26xHH")  # ends with the lengths of name and extra field
_ENCRYPTED = 0x1


class Member(NamedTuple):
    """An image or label file in an archive.

    Attributes:
        name: its path in the archive.
        offset: of its first byte.
        size: bytes that are stored.
        deflated: whether these are compressed.
        number: the class in a label file; -1 for images.
    """

    name: str
    offset: int
    size: int
    deflated: bool = False
    number: int = -1


def index_archive(path: Path) -> tuple[list[Member], LeftOut]:
    """The images and class labels in an archive, in their order, and what else is in it.

    The result is cached in the user's cache folder if it takes long.

    Raises:
        UserError: the archive is missing, damaged, encrypted, or compressed as a whole.
    """
    cached = _cache_file(path)
    with suppress(OSError, ValueError, KeyError, TypeError):  # missing or damaged
        stored = json.loads(cached.read_bytes())
        left = LeftOut()
        left.kinds = {kind: (count, first) for kind, (count, first) in stored["left"].items()}
        return [Member(*member) for member in stored["members"]], left
    start = perf_counter()
    members, left = _indexed(path)
    if perf_counter() - start > _WORTH_KEEPING:
        with suppress(OSError):  # no space, or no folder to write to
            write_atomic(cached, json.dumps({"members": members, "left": left.kinds}))
    return members, left


def _indexed(path: Path) -> tuple[list[Member], LeftOut]:
    try:
        with open(path, "rb") as stream:
            content = _Content(stream)
            (_read_zip if path.suffix.lower() == ".zip" else _read_tar)(content, stream)
            return list(content.members()), content.left
    except UserError as error:
        raise UserError(error.message, file=path) from error
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError) as error:
        kind = path.suffix[1:].lower()
        raise UserError(f"is damaged, cut off or not a {kind} ({error})", file=path) from error


class _Content:
    """An archive's content as if unpacked: links are followed, and the last member of a name counts."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.files: dict[str, Member] = {}
        self.links: dict[str, str] = {}
        self.left = LeftOut()

    def add(self, member: Member) -> None:
        """A file of any kind: images may be links to files of any name."""
        self._replace(member.name)
        self.files[member.name] = member

    def link(self, name: str, target: str) -> None:
        """A link to a path in the archive."""
        self._replace(name)
        self.links[name] = _clean(target)

    def members(self) -> Iterator[Member]:
        """Images and labels in their order, those behind links last."""
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
            content = zlib.decompress(content, -zlib.MAX_WBITS) if member.deflated else content
            yield member._replace(number=_number(member.name, content))
        else:
            yield member

    def _replace(self, name: str) -> None:
        if self.files.pop(name, None) or self.links.pop(name, None):
            self.left.add("members replaced by later ones of the same name", name)

    def _resolved(self, path: str, followed: int = 0) -> str:
        """The path behind links, including those of folders in it."""
        parts = path.split("/")
        for end in range(1, len(parts) + 1):
            target = self.links.get("/".join(parts[:end]))
            if target is not None and followed < _MOST_LINKS:
                return self._resolved("/".join([target, *parts[end:]]), followed + 1)
        return path


def _read_tar(content: _Content, stream: BinaryIO, start: int = 0, folder: str = "") -> None:
    """A tar, those after it in the file, and those in it: ImageNet's own holds one for each class."""
    place = 0
    while place >= 0:
        stream.seek(place)
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            while (entry := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # it would keep every entry
                _read_entry(content, archive, entry, start, folder)
            stream.seek(archive.offset)
        if stream.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it has no end")  # tarfile accepts a part of a header
        place = _after_zeros(stream)


def _read_entry(
    content: _Content, archive: tarfile.TarFile, entry: tarfile.TarInfo, start: int, folder: str
) -> None:
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
        inner = cast(BinaryIO, archive.extractfile(entry))
        _read_tar(content, inner, offset, f"{PurePosixPath(name).with_suffix('')}/")
    else:
        content.add(Member(name, offset, entry.size))


def _after_zeros(stream: BinaryIO) -> int:
    """Where something follows the zeros at a tar's end, as after `cat one.tar two.tar`; -1 for nowhere."""
    while block := stream.read(tarfile.BLOCKSIZE):
        if block.count(0) < len(block):
            return stream.tell() - len(block)
    return -1


def _read_zip(content: _Content, stream: BinaryIO) -> None:
    with zipfile.ZipFile(stream) as archive:
        for entry in archive.infolist():
            path = entry.filename.replace("\\", "/")  # as some Windows programs write it
            name = _clean(path)
            if path.endswith("/"):
                continue
            needed = _wanted(name) and not any(map(is_junk, name.split("/")))
            encrypted = entry.flag_bits & _ENCRYPTED
            if needed and encrypted:
                raise UserError("is encrypted (unpack it)")
            if needed and entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise UserError(f"{entry.filename} uses an unsupported compression (repack it with zip -0)")
            if stat.S_ISLNK(entry.external_attr >> 16) and not encrypted:
                target = archive.read(entry).decode("utf-8", "surrogateescape")
                content.link(name, f"{posixpath.dirname(name)}/{target}")
                continue
            stream.seek(entry.header_offset)
            lengths = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
            offset = entry.header_offset + _LOCAL_HEADER.size + sum(lengths)
            deflated = entry.compress_type == zipfile.ZIP_DEFLATED
            content.add(Member(name, offset, entry.compress_size, deflated))


def _clean(name: str) -> str:
    """The path below the archive's top, without `.`, `..` and repeated slashes."""
    return posixpath.normpath(f"/{name}").lstrip("/")


def _wanted(name: str) -> bool:
    return is_image(name) or _is_label(name)


def _is_label(name: str) -> bool:
    return name.lower().endswith(".cls")


def _number(name: str, content: bytes) -> int:
    text = content.decode("utf-8-sig", "replace").strip()
    if not (text.isascii() and text.isdigit()):
        raise UserError(f"{name} holds {text[:20]!r}, which is not the number of a class")
    return int(text)


def _cache_file(path: Path) -> Path:
    """Named by a hash of the archive's path, size and modification time."""
    try:
        state = path.stat()
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", file=path) from error
    text = f"{_VERSION} {path.resolve()} {state.st_size} {state.st_mtime_ns}"
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return folder / "focal-lab" / "archives" / f"{blake2b(text.encode(), digest_size=16).hexdigest()}.json"
