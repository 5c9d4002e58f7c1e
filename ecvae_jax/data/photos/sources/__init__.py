"""Sources of photos: a folder, a list, an archive, a MultiPIE tree, a tensorflow-datasets set, a video.

To add a source: write a module here with a function that returns a `Source`, and call it in `open_source`.
"""

from __future__ import annotations

from pathlib import Path

from ecvae_jax.data.errors import DataError
from ecvae_jax.data.photos.sources.archive import is_archive, open_archive
from ecvae_jax.data.photos.sources.folder import open_folder, open_list
from ecvae_jax.data.photos.sources.multipie import open_multipie
from ecvae_jax.data.photos.sources.source import Photo, Source
from ecvae_jax.data.prepare.options import PrepareConfig

__all__ = ["Photo", "Source", "open_source"]

_KINDS = "a folder of photos, a list (.txt), an archive (.zip, .tar, .tar.gz, …), multipie:DIR, tfds:NAME or video:FILE"


def open_source(source: str, options: PrepareConfig | None = None) -> Source:
    """Returns the photos of a source, in the order of preparation.

    Args:
        source: a folder, searched recursively; a .txt file with one photo path per line; a zip or tar archive;
            `multipie:DIR` with session??/multiview/SUBJECT/… below DIR; `tfds:NAME` or `tfds:NAME:SPLIT` with
            tensorflow-datasets' NAME; `video:FILE`, or `video:DIR` for all videos below it.
        options: identity rule, MultiPIE filters, frame step; None for the defaults.

    Raises:
        DataError: the source does not exist, has no photo, or an option does not apply to it.
        MissingExtraError: the library that reads it is not installed.
    """
    options = options or PrepareConfig()
    kind, _, rest = source.partition(":")
    if kind != "multipie" and options.filters:
        name = next(iter(options.filters))
        raise DataError(f"{name}={options.filters[name]!r}: applies only to multipie:DIR; remove it for {source!r}")
    if kind == "multipie":
        return open_multipie(_folder(source, rest), options)
    if kind == "tfds":
        from ecvae_jax.data.photos.sources.tfds import open_tfds

        return open_tfds(rest)
    if kind == "video":
        from ecvae_jax.data.photos.sources.video import open_video

        return open_video(Path(rest), options.frame_step)
    path = Path(source)
    if path.is_file() and path.suffix.lower() == ".txt":
        return open_list(path, options.identity)
    if path.is_file() and is_archive(path):
        return open_archive(path, options.identity, options.max_megabytes)
    return open_folder(_folder(source, source), options.identity)


def _folder(source: str, path: str) -> Path:
    root = Path(path)
    if not root.is_dir():
        where = "unknown kind of file" if root.is_file() else "no such folder or file"
        raise DataError(f"source {source!r}: {where}; give {_KINDS}")
    return root
