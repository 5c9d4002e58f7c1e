"""What `import ecvae_jax` promises is there, and the README's example of it runs."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from PIL import Image

import ecvae_jax

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "ecvae_jax").rglob("*.md")),
]


PUBLIC = [name for name in dir(ecvae_jax) if not name.startswith("_") and name not in sys.modules["ecvae_jax"].__dict__]


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_is_there(name: str) -> None:
    assert getattr(ecvae_jax, name).__doc__


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ecvae_jax.nothing


@pytest.mark.slow  # test_wheel.py runs it too
def test_the_example_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    code = code.replace("anna.jpg", "rendered:test:0").replace("smile.jpg", "rendered:test:49")
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (128, 128)


def test_the_readme_stays_one_page() -> None:
    assert len(README.read_bytes()) <= 7000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_to_files_and_headings(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if link.startswith("http"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in headings(target), f"{page.name} links to {link}"


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    lines = (line.lstrip("#").strip().lower() for line in page.read_text().splitlines() if line.startswith("#"))
    return {re.sub(r"[^\w\- ]", "", line).replace(" ", "-") for line in lines}


def test_the_walks_name_files_that_exist() -> None:
    section = (ROOT / "CONTRIBUTING.md").read_text().partition("## The way of a face")[2].partition("\n## ")[0]
    named = set(re.findall(r"[\w/]+\.py", section))
    package = [str(path.relative_to(ROOT)) for path in (ROOT / "ecvae_jax").rglob("*.py")]
    assert len(named) > 60
    missing = {name for name in named - {"benchmarks/walks.py"} if not any(f.endswith(f"/{name}") for f in package)}
    assert not missing
