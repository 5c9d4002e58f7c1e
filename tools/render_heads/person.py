"""The images of one person, from a seed and a number: identity, two sittings, twelve views in each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from tools.render_heads import glasses as eyewear
from tools.render_heads import hair as hairdressing
from tools.render_heads import strands
from tools.render_heads.camera import Pose, frame_landmarks, turn
from tools.render_heads.expression import FaceUnits, mix
from tools.render_heads.identity import Identity, draw_identity
from tools.render_heads.landmarks import LandmarkMap
from tools.render_heads.mesh import EYE_LEFT, EYE_RIGHT, HeadMesh, load_head_mesh
from tools.render_heads.render import Renderer, Scene
from tools.render_heads.views import GROUPS, MARGIN, Group, View, draw_group, draw_views, draw_wild_group

_BEARD_NUMBER = {"none": 0, "stubble": 1, "moustache": 2, "goatee": 3, "full": 4, "chin strap": 5}
_GLASSES_SHARE = 0.18
_LANDMARK_STEPS = 4096  # 1/32 of a pixel at 128: rounded landmarks take half the space


@dataclass(frozen=True)
class Picture:
    """One rendered view."""

    image: UInt8[np.ndarray, "h w 3"]
    landmarks: Float[np.ndarray, "98 2"]
    identity: str
    group: str
    name: str
    tags: dict[str, Any]


@dataclass(frozen=True)
class _Look:
    """Properties of the person that vary between sittings."""

    group: Group
    glasses: eyewear.Glasses | None
    frame: eyewear.Mesh | None
    lenses: eyewear.Mesh | None
    beard_density: float


class Studio:
    """Everything loaded once: mesh, face units, landmark table, OpenGL."""

    def __init__(self, root: Path, size: int, seed: int, wild: bool = False) -> None:
        """Loads the assets below `root` (see `assets.find_assets`) and opens the renderer.

        `wild` sittings have the light and cameras of `views.draw_wild_group`. The people are the same.
        """
        self.root, self.seed, self.wild = root, seed, wild
        self.mesh: HeadMesh = load_head_mesh(root)
        self.landmarks = LandmarkMap(self.mesh)
        self.units = FaceUnits(root, self.mesh, self.landmarks)
        self.renderer = Renderer(root, self.mesh, size)

    def pictures(self, number: int) -> Iterator[Picture]:
        """Yields all views of one person, in order: a pure function of (seed, number)."""
        rng = np.random.default_rng([self.seed, number])
        person = draw_identity(rng, self.root, self.mesh)
        style_name = hairdressing.draw_style(rng, person.male, person.ancestry["african"], person.age)
        style = hairdressing.STYLES[style_name]
        sheet = strands.make_sheet(style, rng, self.mesh, person.shape)
        scalp = hairdressing.scalp_coverage(style, self.mesh)
        looks = self._looks(rng, person)
        for index, look in enumerate(looks):
            group = f"{number:03d}{('cd' if self.wild else 'ab')[index]}"
            film, grain = look.group.film, np.random.default_rng([self.seed, number, index])
            for k, view in enumerate(draw_views(rng)):
                scene, points = self._scene(person, style, sheet, scalp, look, view)
                tags = {
                    "yaw": view.pose.yaw,
                    "pitch": view.pose.pitch,
                    "roll": view.pose.roll,
                    "expression": view.expression,
                    **look.group.tags,
                    "hair": {"style": style_name, "colour": person.hair_name},
                    "eyes": person.iris_name,
                    "glasses": None if look.glasses is None else f"{look.glasses.shape}, {look.glasses.color}",
                    "beard": person.beard,
                    "sex": "male" if person.male else "female",
                    "age": person.age,
                    "ancestry": person.ancestry,
                    "framing": {"scale": round(view.scale, 4), "shift": [round(x, 4) for x in view.shift]},
                    "seed": [self.seed, number],
                }
                yield Picture(
                    image=film.develop(self.renderer.draw(scene), grain),
                    landmarks=(np.round(points * _LANDMARK_STEPS) / _LANDMARK_STEPS).astype(np.float32),
                    identity=f"head{number:03d}",
                    group=f"head{group}",
                    name=f"head{group}{k:02d}",
                    tags=tags,
                )

    def _looks(self, rng: np.random.Generator, person: Identity) -> list[_Look]:
        neutral = self.landmarks.points(person.shape, np.array([0.0, 0.0, 1.0]), person.brow_thickness)
        wears = bool(rng.random() < _GLASSES_SHARE)
        pair = eyewear.draw_glasses(rng)
        density = float(rng.uniform(0.65, 1.0)) * (0.55 if person.beard == "stubble" else 1.0)
        looks = []
        for index in range(GROUPS):
            # glasses may be taken off in the second sitting
            worn = pair if wears and (index == 0 or rng.random() < 0.6) else None
            frame, lenses = eyewear.fit(pair, neutral, person.shape) if worn is not None else (None, None)
            beard = float(np.clip(density * (1.0 if index == 0 else rng.uniform(0.75, 1.15)), 0, 1))
            draw = draw_wild_group if self.wild else draw_group
            looks.append(_Look(draw(rng), worn, frame, lenses, beard))
        return looks

    def _scene(
        self,
        person: Identity,
        style: hairdressing.HairStyle,
        sheet: strands.HairSheet | None,
        scalp: np.ndarray,
        look: _Look,
        view: View,
    ) -> tuple[Scene, np.ndarray]:
        mesh, group, pose = self.mesh, look.group, view.pose
        shape = self.units.apply(person.shape, mix(view.expression))
        normals = mesh.normals(shape)
        points = self.landmarks.points(shape, view.gaze, person.brow_thickness)
        # the skull moves the skin at all landmarks, including the lowest jaw points
        rest_points = self.landmarks.raw(mesh.rest)
        turned_points = turn(points, pose, rest_points)
        crop = frame_landmarks(turned_points, group.distance, MARGIN, view.scale, view.shift)
        if sheet is not None:
            at_rest = _hair_rest(sheet.positions)
            sheet = dataclasses.replace(
                sheet,
                positions=turn(sheet.positions, pose, at_rest),
                normals=turn(sheet.normals, pose, at_rest, directions=True),
                tangents=turn(sheet.tangents, pose, at_rest, directions=True),
            )
        scene = Scene(
            positions=turn(mesh.shorten_lashes(shape), pose, mesh.rest),
            normals=turn(normals, pose, mesh.rest, directions=True),
            cavity=mesh.cavity(shape, normals),
            scalp=scalp,
            crop=crop,
            center=turn(np.array([[0.0, 7.2, 0.5]]), pose, np.array([[0.0, 7.2, 0.5]]))[0],
            hair=sheet,
            hair_layers=style.layers if sheet is not None else 0,
            frame=_turn_mesh(look.frame, pose),
            lenses=_turn_mesh(look.lenses, pose),
            beard_depth=0.07 * look.beard_density if person.beard not in ("none", "stubble") else 0.0,
            uniforms=self._uniforms(person, style, look, view),
        )
        return scene, crop.project(turned_points)

    def _uniforms(self, person: Identity, style: hairdressing.HairStyle, look: _Look, view: View) -> dict[str, Any]:
        group = look.group
        glasses = look.glasses
        return {
            **person.paint,
            "skin": person.skin,
            "lips": person.lips,
            "hair": person.hair,
            "iris": person.iris,
            "makeup": person.skin * np.array([0.55, 0.42, 0.5]),
            "eye_left": self.landmarks.eye_center(EYE_LEFT),
            "eye_right": self.landmarks.eye_center(EYE_RIGHT),
            "gaze": view.gaze,
            "brow_thickness": person.brow_thickness,
            "scalp_paint": style.paint,
            "curl": style.curl,
            "beard": _BEARD_NUMBER[person.beard],
            "beard_density": look.beard_density,
            "cloth": group.cloth,
            "collar": group.collar,
            "key_direction": group.key_direction,
            "key_color": group.key_color,
            "rim_direction": group.rim_direction,
            "rim_color": group.rim_color,
            "sky": group.sky,
            "ground": group.ground,
            "softness": group.softness,
            "tint": glasses.tint if glasses is not None else np.zeros(3),
            "lens_tint": np.full(3, 0.02),
            "lens_alpha": glasses.shaded if glasses is not None else 0.0,
            **group.background_uniforms,
        }


def _hair_rest(positions: np.ndarray) -> np.ndarray:
    """Returns rest positions for rotating hair: hair on the skull moves with it, ends move with the shoulders."""
    return positions * np.array([1.0, 1.0, 0.0]) + np.array([0.0, 0.35, 0.0])


def _turn_mesh(mesh: eyewear.Mesh | None, pose: Pose) -> eyewear.Mesh | None:
    if mesh is None:
        return None
    skull = np.full_like(mesh.positions, 8.0)
    return eyewear.Mesh(turn(mesh.positions, pose, skull), turn(mesh.normals, pose, skull, directions=True), mesh.faces)
