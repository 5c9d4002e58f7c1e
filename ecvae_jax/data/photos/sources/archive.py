"""Photos in a zip or tar archive, read without unpacking it to disk.

An archive is data of a stranger: the bytes of a member and of a header, and the number of members, are bounded.
"""

from __future__ import annotations

import stat
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from tarfile import EOFHeaderError, InvalidHeaderError, ReadError, TruncatedHeaderError  # pyright: ignore
from typing import Any, NamedTuple

from ecvae_jax.data.errors import DataError, one_line
from ecvae_jax.data.photos.photo import PHOTO_SUFFIXES, BadPhotoError
from ecvae_jax.data.photos.sources.folder import named_photos, not_a_photo
from ecvae_jax.data.photos.sources.source import (
    LARGEST_TABLE,
    Content,
    Loaded,
    Source,
    damage_fact,
    load_until_damage,
    until_damage,
)

_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_LARGEST_HEADER = 2**20
"""Bytes of one tar member's headers; tarfile reads a header into memory, whatever size it states."""
_PADDING = 20 * 2**10
"""Bytes after the end mark in which another archive would begin: writers fill up 10 kB."""
_MOST_MEMBERS = 5_000_000
_UNIX = 3
"""The system, in a zip, whose modes of files are known."""
_TAR_KINDS = {
    tarfile.LNKTYPE: "hard link to {}: not a photo of its own",
    tarfile.SYMTYPE: "symbolic link to {}: not followed",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a FIFO",
}


class _Member(NamedTuple):
    """A file of an archive: its stamp; its place in a tar; the reason why it is not read, or ""; its name in a zip."""

    stamp: str
    place: int = 0
    reason: str = ""
    stored: str = ""


def is_archive(path: Path) -> bool:
    """Returns whether a file has an archive's suffix."""
    return path.name.lower().endswith(_SUFFIXES)


def open_archive(path: Path, identity: str, max_megabytes: float = 64.0) -> Source:
    """Returns the photos of an archive: a zip in name order, a tar in its stored order.

    Of members with one name the last one counts, as for unpackers. The members before a tar's damaged end are kept. A
    member above `max_megabytes` is a bad photo, and is not read.

    Raises:
        DataError: no member can be read, or the archive has an oversized header or too many members, or has no photo.
    """
    damage: list[str] = []
    try:
        members, count = _zip_members(path) if _is_zip(path) else _tar_members(path, damage)
    except Exception as error:  # tarfile, zipfile and each decompressor raise their own types
        raise DataError(f"archive {path} cannot be read: {one_line(error)}") from None
    if damage and not members:
        raise DataError(f"archive {path} cannot be read: {damage[0]}")
    photos_of = {
        name: member
        for name, member in members.items()
        if PurePosixPath(name).suffix.lower() in PHOTO_SUFFIXES and not member.reason
    }
    if not photos_of:
        raise DataError(f"archive {path}: no photo among its {len(members)} files (known suffixes: .jpg, .png, …)")
    skipped = [
        (name, member.reason or not_a_photo(PurePosixPath(name).suffix))
        for name, member in members.items()
        if name not in photos_of
    ]
    photos, fact = named_photos({name: member.stamp for name, member in photos_of.items()}, identity)
    facts = [fact, *damage_fact(path.name, count, "files", damage)]
    if count > len(members):
        facts.append(f"{count - len(members)} files of {path.name} have the name of a later one, which counts")
    chosen, limit = list(photos_of.items()), int(max_megabytes * 1e6)
    load = _read_zip if _is_zip(path) else _read_tar

    def read(wanted: Sequence[str]) -> dict[str, bytes | DataError]:
        asked = {name: member for name, member in members.items() if name in set(wanted)}
        files = [(name, member) for name, member in asked.items() if not member.reason]
        contents = (loaded.content for loaded in load(path, files, LARGEST_TABLE))
        found: dict[str, bytes | DataError] = {
            name: content if isinstance(content, bytes) else DataError(f"archive {path}: {name}: {content}")
            for (name, _), content in zip(files, contents, strict=True)
        }
        reasons = {name: each.reason for name, each in asked.items() if each.reason}
        return found | {name: DataError(f"archive {path}: {name}: {reason}") for name, reason in reasons.items()}

    def load_from(start: int) -> Iterator[Loaded]:
        return load(path, chosen[start:], limit)

    return Source(path.name, photos, load_from, None, sorted(skipped), facts, read, inputs=(path,))


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip"


def _zip_members(path: Path) -> tuple[dict[str, _Member], int]:
    with zipfile.ZipFile(path) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
    members = {}
    for info in infos:
        is_link = info.create_system == _UNIX and stat.S_ISLNK(info.external_attr >> 16)
        name = info.filename.replace("\\", "/")  # of .NET before 4.6.1; ZIP itself has / only
        members[name] = _Member(
            f"{info.file_size} {info.CRC}",
            reason="symbolic link: not followed" if is_link else "",
            stored=info.filename,
        )
    return dict(sorted(members.items())), len(infos)


def _tar_members(path: Path, damage: list[str]) -> tuple[dict[str, _Member], int]:
    members: dict[str, _Member] = {}
    count = 0
    with _open_tar(path) as archive:
        for member in until_damage(_each(archive), damage):
            if member.isdir():
                continue
            count += 1
            if count > _MOST_MEMBERS:
                raise DataError(f"more than {_MOST_MEMBERS} files; split it")
            name = _tar_name(member)
            members.pop(name, None)  # the later one also has the later place, and reading goes forward only
            reason = "" if member.isfile() else _TAR_KINDS.get(member.type, "not a file").format(member.linkname)
            stamp = f"{member.size} {member.mtime} {member.offset_data}"
            members[name] = _Member(stamp, member.offset, reason)
    return members, count


def _read_zip(path: Path, members: list[tuple[str, _Member]], limit: int) -> Iterator[Loaded]:
    with zipfile.ZipFile(path) as archive:
        for _, member in members:
            yield Loaded(_zip_content(archive, member.stored, limit))


def _zip_content(archive: zipfile.ZipFile, name: str, limit: int) -> Content:
    size = archive.getinfo(name).file_size
    if size > limit:
        return _too_large(size, limit)
    try:
        return archive.read(name)
    except NotImplementedError as error:
        return BadPhotoError(f"unreadable: {one_line(error)}")
    except RuntimeError:  # zipfile's error for a missing password
        return BadPhotoError("encrypted: the archive needs a password")
    except Exception as error:  # zlib, lzma, bz2 and zipfile each raise their own types
        return BadPhotoError(f"damaged: {one_line(error)}")


def _read_tar(path: Path, members: list[tuple[str, _Member]], limit: int) -> Iterator[Loaded]:
    return load_until_damage(_tar_contents(path, {member.place for _, member in members}, limit), len(members), "file")


def _tar_contents(path: Path, places: set[int], limit: int) -> Iterator[Loaded]:
    """Yields members in archive order: seeking back in a compressed archive restarts from its beginning."""
    with _open_tar(path) as archive:
        for member in _each(archive):
            if member.offset not in places:
                continue
            stream = archive.extractfile(member) if member.size <= limit else None
            yield Loaded(_too_large(member.size, limit) if member.size > limit else stream.read() if stream else b"")


def _too_large(size: int, limit: int) -> BadPhotoError:
    return BadPhotoError(f"too large: {size / 1e6:.1f} MB in the archive, at most {limit / 1e6:g} (max_megabytes)")


def _tar_name(member: tarfile.TarInfo) -> str:
    return member.name.removeprefix("./")


def _open_tar(path: Path) -> tarfile.TarFile:
    return tarfile.open(path, "r:*", tarinfo=_BoundedInfo)


def _each(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yields the members; unlike tarfile's own iterator, it does not keep them in memory."""
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]
        yield member


class _BoundedInfo(tarfile.TarInfo):
    """A tar member whose headers are read only up to a limit: pax records, long names, maps of sparse files.

    tarfile takes a damaged header after the first member for the end of the archive, without a word; here it is damage.
    """

    @classmethod
    def fromtarfile(cls, tarfile: Any) -> Any:
        """Returns the next member.

        Raises:
            ReadError: its header is damaged, or files follow the archive's end mark.
        """
        try:
            member = super().fromtarfile(tarfile)
        except EOFHeaderError:
            if tarfile.fileobj.read(_PADDING).strip(b"\0"):
                raise ReadError("more follows its end mark; unpack it, or tar it again") from None
            raise
        except (InvalidHeaderError, TruncatedHeaderError) as error:
            if tarfile.offset == 0:
                raise
            raise ReadError(f"damaged header ({error})") from None
        if member.size < 0:
            raise ReadError(f"damaged header (a size of {member.size})")
        return member

    def _proc_member(self, tarfile: Any) -> Any:  # the method that tarfile names for subclasses to extend
        whole = tarfile.fileobj
        tarfile.fileobj = _Bounded(whole)
        try:
            return super()._proc_member(tarfile)  # type: ignore[misc]
        finally:
            tarfile.fileobj = whole


class _Bounded:
    """A file of which few bytes may be read."""

    def __init__(self, file: Any) -> None:
        self._file, self._left = file, _LARGEST_HEADER

    def read(self, size: int) -> bytes:
        self._left -= size
        if self._left < 0:
            raise DataError(f"a member's header exceeds {_LARGEST_HEADER // 2**20} MB")
        return self._file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
