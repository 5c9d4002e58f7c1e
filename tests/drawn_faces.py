"""Drawn faces for the data tests, with landmarks that fit the drawing roughly; no photo of a person."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ecvae_jax.data.records import FaceRecord, write_records


def draw_face(size: int = 160, shift: float = 0.0, skin: tuple[int, int, int] = (215, 170, 140)) -> Image.Image:
    """Returns a drawn face that dlib's detector finds, `shift` percent of the side right of the center."""
    image = Image.new("RGB", (size, size), (120, 140, 160))
    canvas = ImageDraw.Draw(image)
    unit = size / 100

    def ellipse(x: float, y: float, rx: float, ry: float, color: tuple[int, int, int]) -> None:
        x += shift
        canvas.ellipse([(x - rx) * unit, (y - ry) * unit, (x + rx) * unit, (y + ry) * unit], fill=color)

    ellipse(50, 46, 30, 38, (60, 40, 30))
    ellipse(50, 52, 25, 34, skin)
    for x in (39, 61):
        ellipse(x, 46, 7, 4.5, (170, 125, 100))
        ellipse(x, 46, 5, 2.6, (240, 240, 235))
        ellipse(x, 46, 2.4, 2.4, (50, 35, 30))
        brow = [((x + shift + dx) * unit, y * unit) for dx, y in ((-7, 39), (0, 36.5), (7, 39))]
        canvas.line(brow, fill=(60, 40, 30), width=max(1, int(2.2 * unit)))
    nose = [((x + shift) * unit, y * unit) for x, y in ((48, 46), (45, 60), (55, 60), (52, 46))]
    canvas.polygon(nose, fill=(195, 148, 120))
    ellipse(50, 61, 5.5, 2, (150, 100, 85))
    ellipse(50, 72, 10, 3.6, (165, 75, 75))
    mouth = [((x + shift) * unit, 72 * unit) for x in (40, 60)]
    canvas.line(mouth, fill=(90, 40, 40), width=max(1, int(unit)))
    return image.filter(ImageFilter.GaussianBlur(0.8 * unit))


def face_landmarks(size: int = 160, shift: float = 0.0, points: int = 68) -> np.ndarray:
    """Returns the landmarks of the drawn face in the scheme of 68 or 98, in pixels: (points, 2) float32."""

    def ring(x: float, y: float, rx: float, ry: float, degrees: np.ndarray | list[int]) -> list[tuple[float, float]]:
        """Points of an ellipse; 0° is right, 90° down."""
        return [(x + rx * np.cos(a), y + ry * np.sin(a)) for a in np.radians(degrees)]

    dense = points == 98
    contour = ring(50, 52, 25, 34, np.linspace(195, -15, 33 if dense else 17))
    brows = [[(x + dx, y) for dx, y in ((-7, 39), (-3.5, 37), (0, 35.9), (3.5, 37), (7, 39))] for x in (39, 61)]
    lower = [[(x + dx, y) for dx, y in ((7, 40), (3.5, 38.5), (0, 37.5), (-3.5, 38.5))] for x in (39, 61)]
    nose = [(50, y) for y in (46, 50, 54, 58)] + [(x, 61) for x in (45, 47.5, 50, 52.5, 55)]
    lids = [180, 225, 270, 315, 0, 45, 90, 135] if dense else [180, 240, 300, 0, 60, 120]
    eyes = ring(39, 46, 5, 2.6, lids) + ring(61, 46, 5, 2.6, lids)
    lips = ring(50, 72, 10, 3.6, np.arange(180, 540, 30)) + ring(50, 72, 7, 1.2, np.arange(180, 540, 45))
    loops = brows[0] + lower[0] + [*reversed([(100 - x, y) for x, y in brows[0]])] + lower[1][::-1]
    parts = contour + (loops if dense else brows[0] + brows[1]) + nose + eyes + lips
    parts += [(39, 46), (61, 46)] if dense else []
    outline = np.add(parts, [shift, 0])
    assert outline.shape == (points, 2)
    return (outline * size / 100).astype(np.float32)


def write_landmarks(file: Path, rows: dict[str, np.ndarray]) -> None:
    """Writes a landmark CSV in the users' format."""
    points = len(next(iter(rows.values())))
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "comment", *(f"{axis}{i}" for i in range(points) for axis in "xy")])
        for name, landmarks in rows.items():
            writer.writerow([name, "drawn", *(f"{v:.2f}" for v in landmarks.reshape(-1))])


def make_photos(folder: Path, people: int = 6, shots: int = 2, size: int = 64) -> dict[str, np.ndarray]:
    """Writes NAME_0001.png, … of `people` drawn people with landmarks68.csv, and returns the landmarks."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = {}
    for person in range(people):
        for shot in range(shots):
            name = f"Person{chr(65 + person)}_{shot + 1:04d}.png"
            shift = 4.0 * shot - 2.0
            draw_face(size, shift, (150 + 15 * person, 170, 140)).save(folder / name)
            rows[name] = face_landmarks(size, shift)
    write_landmarks(folder / "landmarks68.csv", rows)
    return rows


def make_records(folder: Path, count: int = 23, group_size: int = 3, size: int = 32, points: int = 68) -> Path:
    """Writes records whose split `train` has `count` faces in groups of `group_size`.

    The mean of the red channel of face i is 8 · i, green is bright on the left, blue is noise; landmark 0 is
    (i / 1000, 0.5).
    """
    import io

    def record(i: int) -> FaceRecord:
        pixels = np.zeros((size, size, 3), np.uint8)
        pixels[..., 0] = 8 * i
        pixels[:, : size // 2, 1] = 200
        pixels[..., 2] = np.random.default_rng(i).integers(0, 256, (size, size))
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=100, subsampling=0)
        landmarks = np.random.default_rng(i).uniform(0, 1, (points, 2)).astype(np.float32)
        landmarks[0] = (i / 1000, 0.5)
        group = f"group {i // group_size}"
        return FaceRecord(stream.getvalue(), landmarks, group, group, f"face {i}", {"index": i})

    metadata = {"points": points, "image_size": size, "source": "drawn", "detector": "none", "margin": 1.5}
    splits = {"train": [record(i) for i in range(count)], "test": [record(30)]}
    write_records(folder, splits, metadata)
    return folder
