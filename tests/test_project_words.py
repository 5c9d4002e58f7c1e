"""The words of the project: text and names use the field's terms, not the phrases banned here."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = (".", ".ci", "benchmarks", "configs", "docs", "ecvae_jax", "launch", "tests", "tools")
BANNED = ("told", "goes on", "go on", "going on", "gone on", "broken off", "anew", "whoever", "nobody", "no number",
          "so many", "as it is")  # fmt: skip
# Names count as text, so an underscore separates words; a phrase may go over the end of a line, also of a comment's.
GAP = r"(?:[ _]|[ #]*\n[ #]*)"
PATTERN = re.compile("|".join(rf"(?<![a-z]){GAP.join(words.split())}(?![a-z])" for words in BANNED), re.IGNORECASE)


def text_files() -> list[Path]:
    """Returns every file of code, text and settings in the project but this one."""
    found = {
        path
        for folder in FOLDERS
        for pattern in ("*.py", "*.md", "*.sh", "*.sbatch", "*.yaml", "*.toml", "*.cff", "Dockerfile*", "run")
        for path in ((ROOT / folder).glob(pattern) if folder == "." else (ROOT / folder).rglob(pattern))
        if path.is_file()
    }
    return sorted(found - {Path(__file__)})


def test_no_file_has_a_banned_word() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}: {' '.join(match[0].split())}"
        for path in text_files()
        for text in [path.read_text()]
        for match in PATTERN.finditer(text)
    ]
    assert not found, "banned words (design.md, Words):\n" + "\n".join(found)


def test_the_pattern_finds_words_and_spares_parts_of_others() -> None:
    assert PATTERN.search("as it was told.")
    assert PATTERN.search("the training goes\n    # on")
    assert PATTERN.search("def test_a_training_goes_on() -> None:")
    assert not PATTERN.search("a panew retolding, no numbers missing, categories")
