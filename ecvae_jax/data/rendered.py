"""The embedded heads: rendered people who do not exist, so that training needs no download.

240 people with 24 views each at 128 px, exact 98 landmarks, CC0. Each person has two appearance groups of twelve views;
the first view of a group is near frontal and neutral. `tools/render_heads` generates them; `rendered_records/README.md`
lists their assets.
"""

from __future__ import annotations

from pathlib import Path

from ecvae_jax.data.errors import DataError


def rendered_directory() -> Path:
    """Returns the records folder of the embedded heads.

    Raises:
        DataError: the package was installed without its data files.
    """
    folder = Path(__file__).parent / "rendered_records"
    if not (folder / "dataset_info.json").is_file():
        raise DataError(
            f"rendered heads: {folder} holds no records; install the package with its data files, "
            "or render them again with launch/render_heads.sh"
        )
    return folder
