"""Images of posed heads by OpenGL, in software (Mesa): one seed and renderer give the same bytes."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from tools.render_heads.camera import Crop
from tools.render_heads.glasses import Mesh
from tools.render_heads.mesh import SKIN, HeadMesh
from tools.render_heads.strands import HairSheet

_OVERSAMPLING, _SHADOW_SIZE = 2, 512
_MASKS = ("lips", "eyelids", "inside-mouth", "ears")
_BEARD_LAYERS = 4


@dataclass(frozen=True)
class Scene:
    """The content of one image, in world coordinates, and the shaders' uniforms by name."""

    positions: Float[np.ndarray, "m 3"]
    normals: Float[np.ndarray, "m 3"]
    cavity: Float[np.ndarray, "m 2"]
    scalp: Float[np.ndarray, " m"]
    crop: Crop
    center: Float[np.ndarray, " 3"]
    """The head's center, about which the shadow is computed."""
    hair: HairSheet | None = None
    hair_layers: int = 0
    frame: Mesh | None = None
    lenses: Mesh | None = None
    beard_depth: float = 0.0
    uniforms: dict[str, Any] = field(default_factory=dict)


class Renderer:
    """An OpenGL context with the shaders of this folder, for one drawn mesh and one image size."""

    def __init__(self, assets_root: Path, mesh: HeadMesh, size: int) -> None:
        """Opens a context without a window.

        Raises:
            ImportError: moderngl is not installed (the extra `render`).
            RuntimeError: no OpenGL context could be created.
        """
        os.environ.setdefault("LIBGL_ALWAYS_SOFTWARE", "1")
        try:
            import moderngl
        except ImportError as error:
            raise ImportError("rendering heads needs moderngl: pip install 'ecvae-jax[render]'") from error
        try:
            self._gl = moderngl.create_context(standalone=True, backend="egl")  # type: ignore[arg-type]
        except Exception as error:
            raise RuntimeError(f"no OpenGL ({error}): install Mesa, e.g. libegl1 and libgl1-mesa-dri") from error
        self._module, self._mesh, self.size = moderngl, mesh, size
        self.name = str(self._gl.info["GL_RENDERER"]) + ", " + str(self._gl.info["GL_VERSION"])
        side = size * _OVERSAMPLING
        self._drawn = self._gl.framebuffer(
            [self._gl.renderbuffer((side, side), 4)], self._gl.depth_renderbuffer((side, side))
        )
        self._shadow = self._gl.depth_texture((_SHADOW_SIZE, _SHADOW_SIZE))
        self._shadow.compare_func = "<="
        self._shadow.repeat_x = self._shadow.repeat_y = False
        self._shadow_target = self._gl.framebuffer(depth_attachment=self._shadow)
        self._programs = {
            name: self._program(name, fragment)
            for name, fragment in {
                "surface": ("noise", "light", "surface"),
                "hair": ("noise", "light", "hair"),
                "frame": ("light", "frame"),
                "background": ("noise", "background"),
                "depth": ("depth",),
            }.items()
        }
        self._make_head(assets_root)

    def draw(self, scene: Scene) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the image of a scene."""
        gl, vertex = self._gl, self._mesh.drawn_vertex
        moved = np.hstack([scene.positions, scene.normals, scene.cavity, scene.scalp[:, None]])[vertex]
        self._moved.write(np.ascontiguousarray(moved, np.float32).tobytes())
        to_light = _light_matrix(np.asarray(scene.uniforms["key_direction"]), scene.center)
        self._set(scene.uniforms)
        self._set({"clip": scene.crop.clip_matrix(), "camera": scene.crop.position, "to_light": to_light})
        self._set({"shadow_map": 1, "masks": 0, "shell": 0.0, "shell_depth": scene.beard_depth, "alpha": 1.0})

        hair = self._upload_hair(scene.hair) if scene.hair is not None else None
        frame = self._upload(scene.frame) if scene.frame is not None else None
        lenses = self._upload(scene.lenses) if scene.lenses is not None else None
        gl.enable(self._module.DEPTH_TEST)
        self._shadow_target.use()
        self._shadow_target.clear(depth=1.0)
        self._set({"clip": to_light}, "depth")
        self._head_depth.render()
        if hair is not None:
            hair[1].render()
        if frame is not None:
            frame[1].render()

        self._drawn.use()
        self._drawn.clear(0, 0, 0, 1)
        self._shadow.use(1)
        self._masks.use(0)
        gl.disable(self._module.DEPTH_TEST)
        self._background.render(self._module.TRIANGLE_STRIP)
        gl.enable(self._module.DEPTH_TEST)
        gl.enable(self._module.CULL_FACE)
        self._head.render()
        if scene.beard_depth > 0:
            for layer in range(1, _BEARD_LAYERS + 1):
                self._set({"shell": layer / _BEARD_LAYERS}, "surface")
                self._beard.render()
        gl.disable(self._module.CULL_FACE)
        if hair is not None:
            for layer in range(scene.hair_layers):
                self._set({"shell": layer / max(scene.hair_layers - 1, 1)}, "hair")
                hair[0].render()
        if frame is not None:
            frame[0].render()
        if lenses is not None:
            gl.enable(self._module.BLEND)
            self._set({"alpha": scene.uniforms["lens_alpha"], "tint": scene.uniforms["lens_tint"]}, "frame")
            lenses[0].render()
            gl.disable(self._module.BLEND)
        large = np.frombuffer(self._drawn.read(components=3, alignment=1), np.uint8)
        for buffers in (hair, frame, lenses):
            for item in buffers or ():
                item.release()
        blocks = large.reshape(self.size, _OVERSAMPLING, self.size, _OVERSAMPLING, 3).astype(np.uint32)
        summed = blocks.sum((1, 3)) + _OVERSAMPLING**2 // 2
        return np.ascontiguousarray((summed // _OVERSAMPLING**2).astype(np.uint8)[::-1])

    def _program(self, name: str, fragment: tuple[str, ...]):
        folder = resources.files("tools.render_heads").joinpath("shaders")

        def read(file: str) -> str:
            return folder.joinpath(file).read_text()

        parts = "".join(read(f"{part}.glsl") for part in fragment[:-1]) + read(f"{fragment[-1]}.frag")
        return self._gl.program(
            vertex_shader="#version 330\n" + read(f"{name}.vert"), fragment_shader="#version 330\n" + parts
        )

    def _set(self, values: dict[str, Any], only: str | None = None) -> None:
        for name, program in self._programs.items():
            if only is not None and name != only:
                continue
            for key, value in values.items():
                if key not in program:
                    continue
                uniform: Any = program[key]
                array = np.asarray(value)
                if array.ndim == 2 and array.shape == (4, 4):
                    uniform.write(np.ascontiguousarray(array.T, np.float32).tobytes())
                elif array.ndim == 2:
                    uniform.write(np.ascontiguousarray(array, np.float32).tobytes())
                elif array.ndim == 1:
                    uniform.value = tuple(float(x) for x in array)
                else:
                    uniform.value = value

    def _make_head(self, assets_root: Path) -> None:
        gl, mesh = self._gl, self._mesh
        count = len(mesh.drawn_vertex)
        self._moved = gl.buffer(reserve=count * 9 * 4)
        fixed = np.hstack([mesh.rest[mesh.drawn_vertex], mesh.drawn_texture, mesh.drawn_part[:, None]])
        fixed_buffer = gl.buffer(np.ascontiguousarray(fixed, np.float32).tobytes())
        index = gl.buffer(np.ascontiguousarray(mesh.drawn_faces, np.int32).tobytes())
        layout = [
            (self._moved, "3f 3f 2f 1f", "position", "normal", "cavity", "scalp"),
            (fixed_buffer, "3f 2f 1f", "rest", "uv", "part"),
        ]
        self._head = gl.vertex_array(self._programs["surface"], layout, index)
        bearded = _may_be_bearded(mesh)
        self._beard = gl.vertex_array(
            self._programs["surface"], layout, gl.buffer(np.ascontiguousarray(bearded, np.int32).tobytes())
        )
        self._head_depth = gl.vertex_array(self._programs["depth"], [(self._moved, "3f 24x", "position")], index)
        corners = gl.buffer(np.array([-1, -1, 1, -1, -1, 1, 1, 1], np.float32).tobytes())
        self._background = gl.vertex_array(self._programs["background"], [(corners, "2f", "corner")])
        channels = [
            np.asarray(Image.open(assets_root / f"mpfb2/textures/mpfb_{name}.jpg").convert("L")) for name in _MASKS
        ]
        stacked = np.ascontiguousarray(np.stack(channels, -1)[::-1])
        self._masks = gl.texture(stacked.shape[1::-1], 4, stacked.tobytes())
        self._masks.build_mipmaps()

    def _upload_hair(self, sheet: HairSheet):
        rows = np.hstack([sheet.positions, sheet.normals, sheet.tangents, sheet.strand])
        buffer = self._gl.buffer(np.ascontiguousarray(rows, np.float32).tobytes())
        index = self._gl.buffer(np.ascontiguousarray(sheet.faces, np.int32).tobytes())
        layout = [(buffer, "3f 3f 3f 4f", "position", "normal", "tangent", "strand")]
        drawn = self._gl.vertex_array(self._programs["hair"], layout, index)
        depth = self._gl.vertex_array(self._programs["depth"], [(buffer, "3f 40x", "position")], index)
        return drawn, depth, buffer, index

    def _upload(self, mesh: Mesh):
        buffer = self._gl.buffer(np.ascontiguousarray(np.hstack([mesh.positions, mesh.normals]), np.float32).tobytes())
        index = self._gl.buffer(np.ascontiguousarray(mesh.faces, np.int32).tobytes())
        layout = [(buffer, "3f 3f", "position", "normal")]
        drawn = self._gl.vertex_array(self._programs["frame"], layout, index)
        depth = self._gl.vertex_array(self._programs["depth"], [(buffer, "3f 12x", "position")], index)
        return drawn, depth, buffer, index


def _may_be_bearded(mesh: HeadMesh) -> np.ndarray:
    """Returns the drawn triangles that any beard of the shader can cover."""
    rest = mesh.rest[mesh.drawn_vertex]
    lower = (rest[:, 1] < 7.15) & (rest[:, 1] > 5.8) & (rest[:, 2] > 0.4) & (mesh.drawn_part == SKIN)
    return mesh.drawn_faces[lower[mesh.drawn_faces].all(1)]


def _light_matrix(direction: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Returns an orthographic view of the head from the light."""
    ahead = direction / np.linalg.norm(direction)
    right = np.cross([0.0, 1.0, 0.0], ahead)
    right /= np.linalg.norm(right)
    up = np.cross(ahead, right)
    half, deep = 1.9, 3.5
    view = np.stack([right / half, up / half, -ahead / deep])
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = view, -view @ center
    return matrix
