"""Times a drag of `ecvae serve --compute` as a client sees it, over a real port: one request, one picture.

    python benchmarks/serve.py [--checkpoint face128] [--requests 100] [--rounds 5]

A drag sends z, both faces' landmarks and the photo's crop at fine_size, and reads raw pixels; its landmarks change at
every request. Rounds alternate between the kinds of request. Standard output has a Markdown table; messages are on
standard error.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RAW = "application/octet-stream"


def main() -> None:
    """Starts a server, measures, prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoint", default="face128")
    parser.add_argument("--requests", type=int, default=100, help="per kind and round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    from ecvae_jax import load_model, load_portraits

    faces = load_portraits(load_model(options.checkpoint), ["rendered:test:0,24"])
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "index.html").write_text("<!doctype html>")
        command = [sys.executable, "-m", "ecvae_jax", "serve", folder, "--compute", "--port", "0"]
        started = time.perf_counter()
        with subprocess.Popen(
            [*command, "--checkpoint", options.checkpoint], stdout=subprocess.PIPE, text=True
        ) as server:
            try:
                assert server.stdout is not None
                port = int(re.findall(r":(\d+)/", server.stdout.readline())[0])
                print(f"ready after {time.perf_counter() - started:.1f} s", file=sys.stderr)
                times = measure(port, faces, options.requests, options.rounds)
            finally:
                server.terminate()
    print(f"{options.checkpoint}, {os.cpu_count()} cores, {platform.processor() or platform.machine()}, ", end="")
    print(f"{options.rounds} rounds of {options.requests} requests; load {os.getloadavg()[0]:.1f} at the end\n")
    print("| request | fastest, ms | median | 95th percentile | medians of the rounds |\n|---|---|---|---|---|")
    for name, rounds in times.items():
        values = np.concatenate(rounds)
        spread = f"{min(map(np.median, rounds)):.1f} to {max(map(np.median, rounds)):.1f}"
        cells = f"{values.min():.1f} | {np.median(values):.1f} | {np.percentile(values, 95):.1f} | {spread}"
        print(f"| {name} | {cells} |")


def measure(port: int, faces: Any, requests: int, rounds: int) -> dict[str, list[np.ndarray]]:
    """Returns the milliseconds of each request, by kind and round."""
    from ecvae_jax.data.faces import load_faces

    connection = http.client.HTTPConnection("127.0.0.1", port)

    def post(path: str, body: dict[str, Any]) -> bytes:
        headers = {"Content-Type": "application/json", "Accept": RAW}
        connection.request("POST", f"/api/{path}", json.dumps(body), headers)
        answer = connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise SystemExit(f"api/{path}: {answer.status} {data[:300]!r}")
        return data

    def packed(pixels: np.ndarray) -> str:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        return base64.b64encode(stream.getvalue()).decode()

    connection.request("GET", "/api/model")
    side = json.loads(connection.getresponse().read())["fine_size"]
    image, own = packed(faces.images[0]), faces.landmarks[0].tolist()
    fine = packed(load_faces("rendered", "test").image(0, side))
    z = json.loads(post("encode", {"image": image, "landmarks": own}))["z"]
    kinds: dict[str, tuple[str, dict[str, Any], str]] = {
        "draw": ("draw", {"z": z}, "landmarks"),
        "draw, z moved": ("draw", {"z": z, "own_landmarks": own}, "landmarks"),
        "draw, z moved, own pixels": ("draw", {"z": z, "own_landmarks": own, "image": image}, "landmarks"),
        f"the same at {side} px (a drag)": ("draw", {"z": z, "own_landmarks": own, "fine": fine}, "landmarks"),
        "transfer": ("transfer", {"image": image, "landmarks": own}, "target_landmarks"),
    }
    times: dict[str, list[np.ndarray]] = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, (path, body, moving) in kinds.items():
            taken = np.empty(requests)
            for number, along in enumerate(np.linspace(0, 1, requests)):
                face = (1 - along) * faces.landmarks[0] + along * faces.landmarks[1]
                before = time.perf_counter()
                post(path, {**body, moving: face.tolist()})
                taken[number] = 1e3 * (time.perf_counter() - before)
            times[name].append(taken)
    return times


if __name__ == "__main__":
    main()
