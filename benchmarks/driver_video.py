"""Renders a driver video of a head that does not exist: still, smile, still, talk, still, turn and nod, still.

    python -m benchmarks.driver_video OUT.mp4 [--person 205] [--noise 4] [--fps 30]

The camera is fixed and every frame has sensor noise. Beside the video, OUT.npz holds the exact landmarks (pixels).
Needs the extras `render` and `video`, and the head assets (docs/heads.md).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import av
import numpy as np

from tools.render_heads import hair as hairdressing
from tools.render_heads import person as people
from tools.render_heads import strands
from tools.render_heads.assets import find_assets
from tools.render_heads.camera import Pose, frame_landmarks, turn
from tools.render_heads.identity import draw_identity
from tools.render_heads.views import MARGIN, View

SIZE = 320
ACTS = (  # seconds, what moves in them: an expression, or degrees of yaw and pitch
    (1.5, {}),
    (1.5, {"smile": 1.0}),
    (1.0, {}),
    (1.5, {"laugh": 0.9}),
    (1.0, {}),
    (2.0, {"yaw": 25.0, "pitch": 8.0}),
    (1.0, {}),
)


def acts(fps: float) -> list[dict[str, float]]:
    """Returns what each frame shows; a movement rises and falls as a raised cosine."""
    frames = []
    for seconds, moved in ACTS:
        count = round(seconds * fps)
        rise = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(count) / count)
        swing = np.sin(2 * np.pi * np.arange(count) / count)
        frames += [
            {name: value * float(swing[i] if name in ("yaw", "pitch") else rise[i]) for name, value in moved.items()}
            for i in range(count)
        ]
    return frames


def main() -> None:
    """Renders the video."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--person", type=int, default=205)
    parser.add_argument("--noise", type=float, default=4.0)
    parser.add_argument("--fps", type=int, default=30)
    options = parser.parse_args()
    studio = people.Studio(find_assets(None), SIZE, 0)
    rng = np.random.default_rng([0, options.person])
    person = draw_identity(rng, studio.root, studio.mesh)
    style = hairdressing.STYLES[hairdressing.draw_style(rng, person.male, person.ancestry["african"], person.age)]
    sheet = strands.make_sheet(style, rng, studio.mesh, person.shape)
    scalp = hairdressing.scalp_coverage(style, studio.mesh)
    look = studio._looks(rng, person)[0]
    gaze = np.array([0.0, 0.0, 1.0])
    rest = studio.landmarks.points(person.shape, gaze, person.brow_thickness)
    rest = turn(rest, Pose(0.0, 0.0, 0.0), studio.landmarks.raw(studio.mesh.rest))
    crop = frame_landmarks(rest, look.group.distance, MARGIN * 1.25, 1.0, (0.0, 0.0))
    people.frame_landmarks = lambda *_: crop  # one camera for all frames
    noise, landmarks = np.random.default_rng(1), []
    with av.open(str(options.out), "w") as container:
        stream = container.add_stream("libx264", rate=options.fps, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"
        for frame in acts(options.fps):
            expression = {name: value for name, value in frame.items() if name not in ("yaw", "pitch")}
            pose = Pose(frame.get("yaw", 0.0), frame.get("pitch", 0.0), 0.0)
            view = View(pose, expression or {"neutral": 1.0}, gaze, 1.0, (0.0, 0.0))
            scene, points = studio._scene(person, style, sheet, scalp, look, view)
            pixels = studio.renderer.draw(scene) + noise.normal(0, options.noise, (SIZE, SIZE, 3))
            picture = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            landmarks.append(points * SIZE)
        container.mux(stream.encode(None))
    np.savez(options.out.with_suffix(".npz"), landmarks=np.stack(landmarks).astype(np.float32))


if __name__ == "__main__":
    main()
