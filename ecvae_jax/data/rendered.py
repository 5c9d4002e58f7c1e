"""The embedded heads: rendered people who do not exist, so that training needs no download.

240 people with 24 views each at 128 px, exact 98 landmarks, CC0. `tools/render_heads` generates them;
`rendered_records/README.md` lists their assets.
"""

from __future__ import annotations

from pathlib import Path

from ecvae_jax.data.errors import DataError

LICENSE = "CC0-1.0"
PEOPLE = {"train": 200, "validation": 20, "test": 20}
"""People in each split; splits share no person."""
VIEWS = 24
"""Images per person: two appearance groups of twelve, the first view of each near frontal and neutral."""


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
