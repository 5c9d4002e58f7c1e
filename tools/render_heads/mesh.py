"""The drawn part of the base mesh: head, neck, shoulders, eyes, teeth, tongue and upper lashes."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from scipy.spatial import KDTree

from tools.render_heads import assets

SKIN, EYE_LEFT, EYE_RIGHT, TEETH, TONGUE, LASHES = range(6)
"""Part of a vertex; the shader uses these numbers."""

_PARTS = {
    "body": SKIN,
    "helper-l-eye": EYE_LEFT,
    "helper-r-eye": EYE_RIGHT,
    "helper-upper-teeth": TEETH,
    "helper-lower-teeth": TEETH,
    "helper-tongue": TONGUE,
    "helper-l-eyelashes-2": LASHES,
    "helper-r-eyelashes-2": LASHES,
}
_LOWEST, _WIDEST = 3.6, 2.6  # the body is cut below the shoulders and across the upper arms
_FINE_STEPS, _COARSE_STEPS = 3, 14  # smoothing steps for creases and for hollows


@dataclass(frozen=True)
class HeadMesh:
    """The drawn mesh at rest. `m` vertices move; the `r` drawn ones repeat some at texture seams."""

    rest: Float[np.ndarray, "m 3"]
    faces: Int[np.ndarray, "f 3"]
    part: Int[np.ndarray, " m"]
    drawn_vertex: Int[np.ndarray, " r"]
    drawn_texture: Float[np.ndarray, "r 2"]
    drawn_part: Int[np.ndarray, " r"]
    drawn_faces: Int[np.ndarray, "f 3"]
    index_of: Int[np.ndarray, " v"]
    """Index among the `m` vertices of each vertex of the full base mesh; -1 if not drawn."""
    lash: Int[np.ndarray, " l"]
    """The vertices of the lashes."""
    lash_root: Int[np.ndarray, " l"]
    """The skin vertex nearest to each lash vertex."""
    gather: sparse.csr_matrix
    smooth: sparse.csr_matrix

    def normals(self, positions: Float[np.ndarray, "m 3"]) -> Float[np.ndarray, "m 3"]:
        """Returns unit vertex normals: the area-weighted means of the adjacent faces."""
        corner = positions[self.faces]
        summed = self.gather @ np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
        return summed / (np.linalg.norm(summed, axis=1, keepdims=True) + 1e-12)

    def cavity(
        self, positions: Float[np.ndarray, "m 3"], normals: Float[np.ndarray, "m 3"]
    ) -> Float[np.ndarray, "m 2"]:
        """Returns each vertex's depth below its smoothed surroundings, decimeters: fine creases, wide hollows.

        It depends on identity and expression, so the fold beside a smiling mouth darkens.
        """
        fine = positions
        for _ in range(_FINE_STEPS):
            fine = self.smooth @ fine
        coarse = fine
        for _ in range(_COARSE_STEPS):
            coarse = self.smooth @ coarse
        depth = [((level - positions) * normals).sum(1) for level in (fine, coarse)]
        return self.smooth @ np.stack(depth, 1)

    def shorten_lashes(self, positions: Float[np.ndarray, "m 3"]) -> Float[np.ndarray, "m 3"]:
        """Returns the head with lashes of natural length; those of the base mesh are twice as long."""
        shorter = positions.copy()
        shorter[self.lash] = positions[self.lash_root] + 0.45 * (positions[self.lash] - positions[self.lash_root])
        return shorter

    def dense(self, indices: Int[np.ndarray, " n"], deltas: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "m 3"]:
        """Returns a target of the full mesh as one displacement per vertex of this mesh."""
        moved = np.zeros_like(self.rest)
        index = self.index_of[indices]
        moved[index[index >= 0]] = deltas[index >= 0]
        return moved


@functools.lru_cache(maxsize=2)
def load_head_mesh(root: Path) -> HeadMesh:
    """Returns the drawn part of the base mesh below `root` (the folder of `assets.find_assets`)."""
    base = assets.load_base_mesh(root)
    part = np.array([_PARTS.get(group, -1) for group in base.groups])
    corner = base.vertices[base.faces]
    inside = (corner[..., 1].min(1) > _LOWEST) & (np.abs(corner[..., 0]).max(1) < _WIDEST)
    chosen = (part >= 0) & ((part != SKIN) | inside)
    faces, face_texture, part = base.faces[chosen], base.face_texture[chosen], part[chosen]

    used = np.unique(faces)
    index_of = np.full(len(base.vertices), -1)
    index_of[used] = np.arange(len(used))
    faces = index_of[faces]
    vertex_part = np.zeros(len(used), int)
    vertex_part[faces] = part[:, None]

    corners = np.stack([faces.ravel(), face_texture.ravel(), np.repeat(part, 3)], 1)
    drawn, inverse = np.unique(corners, axis=0, return_inverse=True)

    count, ones = len(used), np.ones(3 * len(faces))
    gather = sparse.csr_matrix((ones, (faces.ravel(), np.repeat(np.arange(len(faces)), 3))), (count, len(faces)))
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    pairs = np.concatenate([pairs, pairs[:, ::-1]])
    linked = sparse.csr_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), (count, count))
    linked.data[:] = 1.0
    linked = linked + sparse.identity(count)
    smooth = sparse.csr_matrix(sparse.diags(1.0 / np.asarray(linked.sum(1)).ravel()) @ linked)
    rest = base.vertices[used]
    lash, skin = np.flatnonzero(vertex_part == LASHES), np.flatnonzero(vertex_part == SKIN)
    _, nearest = KDTree(rest[skin]).query(rest[lash])
    return HeadMesh(
        rest=rest,
        lash=lash,
        lash_root=skin[nearest],
        faces=faces,
        part=vertex_part,
        drawn_vertex=drawn[:, 0],
        drawn_texture=base.texture[drawn[:, 1]],
        drawn_part=drawn[:, 2],
        drawn_faces=inverse.reshape(-1, 3),
        index_of=index_of,
        gather=gather,
        smooth=smooth,
    )
