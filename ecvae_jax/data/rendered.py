"""The embedded heads: rendered people who do not exist, so that training works without downloading a photo.

240 people with 24 views each at 128 pixels, exact 98 landmarks, CC0. `heads` is the generator; `rendered_records` holds
what it made, and the README there says from what.
"""

from __future__ import annotations

from pathlib import Path

from ecvae_jax.data.errors import DataError

LICENCE = "CC0-1.0"
PEOPLE = {"train": 200, "validation": 20, "test": 20}
"""People in each split; nobody is in two."""
VIEWS = 24
"""Pictures of a person: two appearance groups of twelve, the first view of each near frontal and neutral."""


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
