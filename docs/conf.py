"""Settings of the documentation's build, `bash launch/docs.sh`.

The source folder is the repository's root, so that links between README.md, docs/ and the cards in the package are the
same here and on a repository's page.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from reference_pages import fill_in, missing_names
from sphinx.application import Sphinx
from sphinx.util import logging

import ecvae_jax

project = "ecvae_jax"
author = "The ecvae_jax maintainers"
project_copyright = author
version = release = ecvae_jax.__version__

root_doc = "docs/index"
include_patterns = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/**.md",
    "ecvae_jax/pretrained/README.md",
    "ecvae_jax/data/rendered_records/README.md",
]
# Folders that the search for pages does not enter: environments and outputs may be large.
exclude_patterns = [".*", "benchmarks", "build", "demo", "dist", "launch", "records", "runs", "tests", "tools"]

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]

nb_execution_mode = os.environ.get("ECVAE_DOCS_NOTEBOOKS", "force")
"""No cache: each build runs the notebooks, and an error in a cell fails it. "off" skips them for a draft."""
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_timeout = 300
nb_execution_in_temp = True
nb_merge_streams = True

default_role = "code"  # docstrings have Markdown's single backticks
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Deviation", "notes_style")]

html_theme = "furo"
html_title = f"ecvae_jax {release}"
html_theme_options = {"navigation_with_keys": True}
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False


def _fill_in(app: Sphinx, page: str, source: list[str]) -> None:
    source[0] = fill_in(source[0])


def _check_names(app: Sphinx, env: object) -> None:
    documented = set(app.env.domains.python_domain.objects)
    for name in missing_names(documented):
        logging.getLogger(__name__).warning("docs/reference/api.md lacks %s, which is public", name)


def setup(app: Sphinx) -> None:
    """Adds the generated parts of the reference, and the check that it has every public name."""
    app.connect("source-read", _fill_in)
    app.connect("env-check-consistency", _check_names)
