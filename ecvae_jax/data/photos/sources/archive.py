"""Photos in a zip or tar archive, read without unpacking it to disk."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from ecvae_jax.data.errors import DataError, one_line
from ecvae_jax.data.photos.photo import PHOTO_SUFFIXES, BadPhotoError
from ecvae_jax.data.photos.sources.folder import named_photos, not_a_photo
from ecvae_jax.data.photos.sources.source import Content, Loaded, Source

_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_LARGEST_TABLE = 512.0
"""MB of a landmark table: 400,000 faces of 98 points."""


def is_archive(path: Path) -> bool:
    """Returns whether a file has an archive's suffix."""
    return path.name.lower().endswith(_SUFFIXES)


def open_archive(path: Path, identity: str, max_megabytes: float = 64.0) -> Source:
    """Returns the photos of an archive: a zip in name order, a tar in its stored order.

    Args:
        path: the archive.
        identity: the identity rule, or "auto".
        max_megabytes: a larger member is not unpacked.

    Raises:
        DataError: the archive is damaged or has no photo.
    """
    is_zip = path.suffix.lower() == ".zip"
    special: dict[str, str] = {}
    try:
        members = _zip_members(path) if is_zip else _tar_members(path, special)
    except (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, ValueError) as error:
        raise DataError(f"archive {path} cannot be read: {one_line(error)}") from None
    stamps = {name: stamp for name, stamp in members.items() if PurePosixPath(name).suffix.lower() in PHOTO_SUFFIXES}
    if not stamps:
        raise DataError(f"archive {path}: no photo among its {len(members)} files (known suffixes: .jpg, .png, …)")
    skipped = [(name, not_a_photo(PurePosixPath(name).suffix)) for name in members if name not in stamps]
    skipped += [(name, reason) for name, reason in special.items() if name not in members]
    photos, fact = named_photos(stamps, identity)
    names = list(stamps)

    def load(wanted: list[str], max_megabytes: float) -> Iterator[Loaded]:
        if is_zip:
            return _read_zip(path, wanted, max_megabytes)
        return _read_tar(path, {name: _offset(members[name]) for name in wanted}, max_megabytes)

    def read(wanted: Sequence[str]) -> dict[str, bytes | DataError]:
        chosen = set(wanted)
        ordered = [name for name in members if name in chosen]
        contents = (loaded.content for loaded in load(ordered, _LARGEST_TABLE))
        return {name: DataError(f"archive {path}: {name}: {special[name]}") for name in chosen - set(ordered)} | {
            name: content if isinstance(content, bytes) else DataError(f"archive {path}: {name}: {content}")
            for name, content in zip(ordered, contents, strict=True)
        }

    return Source(
        path.name, photos, lambda start: load(names[start:], max_megabytes), None, sorted(skipped), [fact], read
    )


def _zip_members(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        # Of two members with one name the last one counts, as for unpackers.
        return dict(sorted({info.filename: f"{info.file_size} {info.CRC}" for info in infos}.items()))


def _tar_members(path: Path, special: dict[str, str]) -> dict[str, str]:
    """Returns the stamps of the files by name, in the order of their data; puts links and devices into `special`."""
    found: dict[str, str] = {}
    with tarfile.open(path, "r:*") as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if member.isfile():
                found.pop(name, None)  # of two members with one name the last one counts, as for unpackers
                found[name] = f"{member.size} {member.mtime} {member.offset_data}"
            elif not member.isdir():
                kind = "a link" if member.issym() or member.islnk() else "a device or pipe"
                special[name] = f"{kind} in the archive: not followed"
    return found


def _offset(stamp: str) -> int:
    return int(stamp.split()[2])


def _read_zip(path: Path, names: list[str], max_megabytes: float) -> Iterator[Loaded]:
    with zipfile.ZipFile(path) as archive:
        for name in names:
            yield Loaded(_zip_content(archive, name, max_megabytes))


def _zip_content(archive: zipfile.ZipFile, name: str, max_megabytes: float) -> Content:
    size = archive.getinfo(name).file_size
    if size > max_megabytes * 1e6:
        return _too_large(size, max_megabytes)
    try:
        with archive.open(name) as stream:  # no more than stated: a header may lie
            return stream.read(size)
    except RuntimeError:  # zipfile's error for a missing password
        return BadPhotoError("encrypted: the archive needs a password")
    except Exception as error:  # zlib, lzma, bz2 and zipfile each raise their own types
        return BadPhotoError(f"damaged: {one_line(error)}")


def _read_tar(path: Path, offsets: dict[str, int], max_megabytes: float) -> Iterator[Loaded]:
    """Yields members in archive order: seeking back in a compressed archive restarts from its beginning."""
    read = 0
    with tarfile.open(path, "r:*") as archive:
        try:
            for member in archive:
                name = member.name.removeprefix("./")
                if not member.isfile() or offsets.get(name) != member.offset_data:
                    continue
                if member.size > max_megabytes * 1e6:
                    content: Content = _too_large(member.size, max_megabytes)
                else:
                    stream = archive.extractfile(member)
                    content = stream.read() if stream else b""
                read += 1
                yield Loaded(content)
        except (OSError, EOFError, tarfile.TarError) as error:
            reason = one_line(error)
            for _ in range(len(offsets) - read):
                yield Loaded(BadPhotoError(f"damaged: {reason}"))


def _too_large(size: int, max_megabytes: float) -> BadPhotoError:
    return BadPhotoError(f"too large: {size / 1e6:.1f} MB in the archive, at most {max_megabytes:g} (max_megabytes)")
