"""Where photos come from: a folder, a list, an archive, a MultiPIE tree, a tensorflow-datasets set, a video."""

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
    """Returns what is in a source, in the order in which it will be prepared.

    Args:
        source: a folder, searched to any depth; a .txt file with a photo's path in each line; a zip or tar archive;
            `multipie:DIR` with session??/multiview/SUBJECT/… below DIR; `tfds:NAME` with NAME as tensorflow-datasets
            has it, `tfds:NAME:SPLIT` for one split; `video:FILE`, or `video:DIR` for all videos below it.
        options: identity rule, MultiPIE filters, frame step; none: the defaults.

    Raises:
        DataError: there is no such source, no photo in it, or an option does not fit it.
        MissingExtraError: what reads it is not installed.
    """
    options = options or PrepareConfig()
    kind, _, rest = source.partition(":")
    if kind != "multipie" and options.filters:
        name = next(iter(options.filters))
        raise DataError(f"{name}={options.filters[name]!r}: only multipie:DIR knows of it; leave it out for {source!r}")
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
        return open_archive(path, options.identity)
    return open_folder(_folder(source, source), options.identity)


def _folder(source: str, path: str) -> Path:
    root = Path(path)
    if not root.is_dir():
        where = "a file of a kind that is not known" if root.is_file() else "no such folder or file"
        raise DataError(f"source {source!r}: {where}; give {_KINDS}")
    return root
