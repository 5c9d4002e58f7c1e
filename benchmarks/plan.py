"""Prints the scaling table of docs/measurements/tpu.md: the paper's configuration on 8, 64 and 256 chips.

    python benchmarks/plan.py [--generation v5e] [--weak 32] [--strong 256] [--out plans] [--at bound]

Runs `ecvae plan configs/paper_256.py --json` for each row in sequence. A row takes about two CPU minutes and 3 GB.
Weak scaling fixes the images a chip, strong scaling the images in all. The folder --out keeps the JSON files. A row
with a file there is not compiled again. Needs the extra tpu.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

CHIPS = (8, 64, 256)
SHAPES = {2: ("2x4", "8x8", "16x16"), 3: ("2x2x2", "4x4x4", "4x8x8")}
AXES = {"v4": 3, "v5e": 2, "v5p": 3, "v6e": 2}
CONFIG = Path(__file__).parent.parent / "configs" / "paper_256.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generation", default="v5e", choices=AXES)
    parser.add_argument("--weak", type=int, default=32, help="images a chip")
    parser.add_argument("--strong", type=int, default=256, help="images over all chips")
    parser.add_argument("--out", type=Path, default=Path("plans"), help="folder of the plans")
    parser.add_argument("--at", default="bound", choices=["bound", "expected"], help="full peak, or the assumed share")
    options = parser.parse_args()
    print("| chips | images a step | a chip | memory a chip, GiB | all-reduces a step | chip's own work, ms | "
          "all-reduces, ms | images/s | own work's share | of linear from 8 |")  # fmt: skip
    print("|---" * 10 + "|")
    for name, per_chip in (("weak", lambda chips: options.weak), ("strong", lambda chips: options.strong // chips)):
        print(f"| **{name}** |" + " |" * 9)
        first = None
        for chips, shape in zip(CHIPS, SHAPES[AXES[options.generation]], strict=True):
            plan = make(options.out, f"{options.generation}:{shape}", per_chip(chips))
            speed = plan["prediction"][options.at]["images_per_second"]
            first = first or speed / chips
            print(row(plan, options.at, speed / chips / first))


def make(out: Path, topology: str, per_chip: int) -> dict[str, Any]:
    """Returns a plan as JSON, from its file in `out` if it exists."""
    file = out / f"{topology.replace(':', '-')}-{per_chip}.json"
    if not file.is_file():
        command = [sys.executable, "-m", "ecvae_jax", "plan", str(CONFIG), "--topology", topology,
                   "--batch-per-chip", str(per_chip), "--json", str(file)]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.loads(file.read_text())


def row(plan: dict[str, Any], at: str, linear: float) -> str:
    """Returns one row of the table."""
    step, times = plan["programs"]["step"], plan["prediction"][at]["programs"]["step"]
    sizes = ", ".join(size(one["bytes"]) for one in step["collectives"])
    own = times["step"] - times["collective"]
    cells = [f"{plan['chips']}", f"{plan['batch_size']:,}", f"{plan['batch_per_chip']}",
             f"{step['memory'] / 2**30:.2f}", f"{len(step['collectives'])}: {sizes}", f"{own * 1e3:.2f}",
             f"{times['collective'] * 1e3:.2f}", f"{plan['prediction'][at]['images_per_second']:,.0f}",
             f"{times['scaling']:.1%}", f"{linear:.1%}"]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def size(count: int) -> str:
    """Returns bytes as text, in B or MB."""
    return f"{count} B" if count < 1000 else f"{count / 1e6:.1f} MB"


if __name__ == "__main__":
    main()
