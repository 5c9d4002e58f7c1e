"""Photos in a zip or tar archive, read without unpacking it to disk."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ecvae_jax.data.errors import DataError, one_line
from ecvae_jax.data.photos.photo import PHOTO_SUFFIXES, BadPhotoError
from ecvae_jax.data.photos.sources.folder import named_photos, not_a_photo
from ecvae_jax.data.photos.sources.source import Content, Loaded, Source

_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_LARGEST = 512 * 2**20
"""Bytes; a larger member is a mistake or an attempt to exhaust memory."""


def is_archive(path: Path) -> bool:
    """Returns whether a file has an archive's suffix."""
    return path.name.lower().endswith(_SUFFIXES)


def open_archive(path: Path, identity: str) -> Source:
    """Returns the photos of an archive: a zip in name order, a tar in its stored order.

    Raises:
        DataError: the archive is damaged or has no photo.
    """
    try:
        members = _zip_members(path) if path.suffix.lower() == ".zip" else _tar_members(path)
    except (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, ValueError) as error:
        raise DataError(f"archive {path} cannot be read: {one_line(error)}") from None
    stamps = {name: stamp for name, stamp in members.items() if PurePosixPath(name).suffix.lower() in PHOTO_SUFFIXES}
    if not stamps:
        raise DataError(f"archive {path}: no photo among its {len(members)} files (known suffixes: .jpg, .png, …)")
    skipped = [(name, not_a_photo(PurePosixPath(name).suffix)) for name in members if name not in stamps]
    photos, fact = named_photos(stamps, identity)
    names = list(stamps)
    read = _read_zip if path.suffix.lower() == ".zip" else _read_tar
    return Source(path.name, photos, lambda start: read(path, names[start:]), None, sorted(skipped), [fact])


def _zip_members(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        # Of two members with one name the last one counts, as for unpackers.
        return dict(sorted({info.filename: f"{info.file_size} {info.CRC}" for info in infos}.items()))


def _tar_members(path: Path) -> dict[str, str]:
    with tarfile.open(path, "r:*") as archive:
        return {
            member.name.removeprefix("./"): f"{member.size} {member.mtime} {member.offset_data}"
            for member in archive
            if member.isfile()
        }


def _read_zip(path: Path, names: list[str]) -> Iterator[Loaded]:
    with zipfile.ZipFile(path) as archive:
        for name in names:
            yield Loaded(_zip_content(archive, name))


def _zip_content(archive: zipfile.ZipFile, name: str) -> Content:
    size = archive.getinfo(name).file_size
    if size > _LARGEST:
        return _too_large(size)
    try:
        return archive.read(name)
    except RuntimeError:  # zipfile's error for a missing password
        return BadPhotoError("encrypted: the archive needs a password")
    except Exception as error:  # zlib, lzma, bz2 and zipfile each raise their own types
        return BadPhotoError(f"damaged: {one_line(error)}")


def _read_tar(path: Path, names: list[str]) -> Iterator[Loaded]:
    """Yields members in archive order: seeking back in a compressed archive restarts from its beginning."""
    wanted, read = set(names), 0
    with tarfile.open(path, "r:*") as archive:
        try:
            for member in archive:
                name = member.name.removeprefix("./")
                if not member.isfile() or name not in wanted:
                    continue
                if member.size > _LARGEST:
                    content: Content = _too_large(member.size)
                else:
                    stream = archive.extractfile(member)
                    content = stream.read() if stream else b""
                wanted.discard(name)
                read += 1
                yield Loaded(content)
        except (OSError, EOFError, tarfile.TarError) as error:
            reason = one_line(error)
            for _ in range(len(names) - read):
                yield Loaded(BadPhotoError(f"damaged: {reason}"))


def _too_large(size: int) -> BadPhotoError:
    return BadPhotoError(f"too large: {size / 2**20:.0f} MB in the archive, at most {_LARGEST // 2**20}")
