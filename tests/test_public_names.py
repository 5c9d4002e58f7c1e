"""What `import ecvae_jax` promises is there, and the README's example of it runs."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import ecvae_jax

README = Path(__file__).parent.parent / "README.md"


PUBLIC = [name for name in dir(ecvae_jax) if not name.startswith("_") and name not in sys.modules["ecvae_jax"].__dict__]


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_is_there(name: str) -> None:
    assert getattr(ecvae_jax, name).__doc__


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ecvae_jax.nothing


def test_the_example_of_the_readme_runs(tiny_workdir: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    code = code.replace("demo/run", str(tiny_workdir))
    names: dict = {}
    exec(code, names)
    assert names["grid"].shape == (2, 6, 32, 32, 3)
    assert names["more"].shape == (1, 8, 32, 32, 3)
