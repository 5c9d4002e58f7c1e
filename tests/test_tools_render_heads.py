"""The generator of the embedded heads. Tests skip without its assets or a renderer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("moderngl", reason="the generator needs the extra `render`")

from tools.render_heads import bake, camera, expression
from tools.render_heads.assets import AssetsNotFoundError, assets_version, find_assets
from tools.render_heads.film import Film

ROOT = Path(__file__).resolve().parent.parent
angles = st.tuples(st.floats(-45, 45), st.floats(-20, 20), st.floats(-12, 12))


@pytest.fixture(scope="module")
def root() -> Path:
    try:
        return find_assets()
    except AssetsNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def renderer(root: Path) -> str:
    pytest.importorskip("glcontext", reason="the renderer needs the extra `render`")
    shown = run_in_process(f"print(bake.renderer_name(Path({str(root)!r})))", check=False)
    if shown.returncode:
        pytest.skip(f"no renderer: {shown.stderr.strip().splitlines()[-1]}")
    return shown.stdout.strip()


def run_in_process(code: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs code in another process at the repository root: TensorFlow crashes when loaded after Mesa's LLVM."""
    code = f"from pathlib import Path; from tools.render_heads import bake\n{code}"
    return subprocess.run([sys.executable, "-c", code], check=check, capture_output=True, text=True, cwd=ROOT)


def test_missing_assets_are_named_in_one_line(tmp_path: Path):
    with pytest.raises(AssetsNotFoundError, match=r"has no mpfb2/3dobjs/base\.obj") as caught:
        find_assets(tmp_path)
    assert "\n" not in str(caught.value)
    assert bake.main(["--out", str(tmp_path / "out"), "--assets", str(tmp_path)]) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ("--people 5-3", "must be numbers and ranges"), ("--people a", "must be numbers and ranges"),
        ("--people 1-3,2", "names a person twice"), ("--size 0", "from 16 to 1024"), ("--size 9e3", "from 16 to 1024"),
        ("--quality 200", "from 1 to 95"), ("--workers 0", "from 1 to 256"), ("--seed -1", "from 0 to"),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused_in_one_line(words: str, rule: str, tmp_path: Path, capsys):
    with pytest.raises(SystemExit) as stop:
        bake.main(["--out", str(tmp_path / "out"), *words.split()])
    assert stop.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert rule in last
    assert words.split()[1] in last
    assert not (tmp_path / "out").exists()


@given(angles, st.floats(0.9, 1.1), st.floats(-0.05, 0.05))
@settings(max_examples=30, deadline=None)
def test_the_frame_is_the_scaled_box_of_the_points(pose, scale, shift):
    rng = np.random.default_rng(0)
    rest = rng.uniform([-0.7, 6.2, 0.6], [0.7, 7.5, 1.6], (98, 3))
    turned = camera.turn(rest, camera.Pose(*pose), rest)
    crop = camera.frame_landmarks(turned, 12.0, 1.7, scale, (shift, -shift))
    seen = crop.project(turned)
    low, high = seen.min(0), seen.max(0)
    assert (high - low).max() == pytest.approx(1 / (1.7 * scale))
    # the frame moves right and down, so the points move left and up
    np.testing.assert_allclose((low + high) / 2, [0.5 - shift, 0.5 - shift], atol=1e-9)


def test_the_projection_of_landmarks_is_the_one_that_draws():
    crop = camera.Crop(12.0, (0.01, -0.02), 0.11)
    points = np.random.default_rng(1).uniform([-1, 5.5, -1], [1, 8.5, 1.5], (50, 3))
    clip = np.c_[points, np.ones(50)] @ crop.clip_matrix().T
    device = clip[:, :2] / clip[:, 3:]
    np.testing.assert_allclose(crop.project(points), np.c_[0.5 + device[:, 0] / 2, 0.5 - device[:, 1] / 2], atol=1e-9)
    assert (np.abs(clip[:, 2] / clip[:, 3]) < 1).all()


@pytest.mark.parametrize(("pose", "axis", "sign"), [((20, 0, 0), 0, 1), ((0, 15, 0), 1, 1)])
def test_a_positive_angle_moves_the_nose_right_or_up(pose, axis, sign):
    nose = np.array([[0.0, 7.0, 1.7]])
    moved = camera.turn(nose, camera.Pose(*pose), nose) - nose
    assert np.sign(moved[0, axis]) == sign
    assert abs(moved[0, axis]) > 0.2


def test_a_positive_roll_turns_the_head_clockwise():
    crown = np.array([[0.0, 8.4, 0.5]])
    assert camera.turn(crown, camera.Pose(0, 0, 10), crown)[0, 0] > 0.2


@given(st.dictionaries(st.sampled_from(sorted(expression.EXPRESSIONS)), st.floats(0, 1.5), min_size=1, max_size=4))
def test_mixed_units_stay_between_0_and_1(parts):
    assert all(0 <= weight <= 1 for weight in expression.mix(parts).values())


def test_a_mixture_depends_on_the_generator_alone():
    first, second = (expression.draw_mixture(np.random.default_rng(5)) for _ in range(2))
    assert first == second
    assert 2 <= len(first) <= 3


@pytest.fixture(scope="module")
def head(root: Path):
    from tools.render_heads.expression import FaceUnits
    from tools.render_heads.landmarks import LandmarkMap
    from tools.render_heads.mesh import load_head_mesh

    mesh = load_head_mesh(root)
    landmarks = LandmarkMap(mesh)
    return mesh, landmarks, FaceUnits(root, mesh, landmarks)


@pytest.mark.slow  # every shape of the lids
def test_closed_lids_meet_and_do_not_pass_each_other(root: Path, head):
    from tools.render_heads.identity import draw_identity
    from tools.render_heads.landmarks import LID_PAIRS

    mesh, landmarks, units = head
    for number in range(4):
        shape = draw_identity(np.random.default_rng([0, number]), root, mesh).shape
        for name, sides in (("closed", ("Left", "Right")), ("wink", ("Right",))):
            points = landmarks.raw(units.apply(shape, expression.mix({name: 1.0})))
            open_points = landmarks.raw(shape)
            for side in sides:
                gaps = [points[u, 1] - points[lo, 1] for u, lo in LID_PAIRS[side]]
                before = [open_points[u, 1] - open_points[lo, 1] for u, lo in LID_PAIRS[side]]
                assert min(gaps) > -1e-4
                assert max(gaps) < 0.5 * max(before)


def test_unknown_face_units_are_named(head):
    mesh, _, units = head
    with pytest.raises(ValueError, match="smileTwice"):
        units.apply(mesh.rest, {"smileTwice": 1.0})


def test_the_head_at_rest_is_symmetric_and_so_are_its_landmarks(head):
    from ecvae_jax.structure.scheme import get_scheme

    mesh, landmarks, _ = head
    points = landmarks.points(mesh.rest, np.array([0.0, 0.0, 1.0]), 1.0)
    mirrored = points[list(get_scheme(98).mirror)] * np.array([-1.0, 1.0, 1.0])
    np.testing.assert_allclose(points, mirrored, atol=0.02)


def test_normals_are_unit_and_point_outwards(head):
    mesh, _, _ = head
    normals = mesh.normals(mesh.rest)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1.0, atol=1e-6)
    nose = np.argmax(mesh.rest[:, 2] * (mesh.rest[:, 1] > 6.5) * (mesh.rest[:, 1] < 7.2))
    assert normals[nose, 2] > 0.5


@pytest.mark.slow
def test_the_same_seed_writes_the_same_bytes(root: Path, renderer: str, tmp_path: Path):
    studio = f"bake.Studio(Path({str(root)!r}))"
    for name in ("first", "second"):
        run_in_process(f"bake.bake({studio}, Path({str(tmp_path / name)!r}), [0, 220], workers=1)")
    files = sorted(p.relative_to(tmp_path / "first") for p in (tmp_path / "first").rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(tmp_path / "second") for p in (tmp_path / "second").rglob("*") if p.is_file())
    for file in files:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes(), file


@pytest.mark.slow
def test_one_person_is_rendered_again_as_embedded(root: Path, renderer: str, tmp_path: Path):
    from ecvae_jax.data.faces import load_faces

    faces = load_faces("rendered", "test")
    made_with = faces.metadata["renderer"], faces.metadata["assets"]
    if faces.metadata["renderer"] != renderer or assets_version(root) not in faces.metadata["assets"]:
        pytest.skip(f"the embedded heads were made with {made_with}, here is {renderer}, {assets_version(root)}")
    number = 223
    indices = [i for i, identity in enumerate(faces.identities) if identity == f"head{number:03d}"]
    out = tmp_path / "again"
    studio = f"bake.Studio(Path({str(root)!r}), {faces.metadata['seed']})"
    run_in_process(f"bake.bake({studio}, Path({str(out)!r}), [{number}], workers=1)")
    again = load_faces(out, "test")
    assert again.names == [faces.names[i] for i in indices]
    # Not byte for byte: another Pillow, SciPy or CPU under the same renderer rounds differently.
    np.testing.assert_allclose(again.landmarks, faces.landmarks[indices], atol=1e-4)
    assert np.abs(again.images(range(len(again))).astype(int) - faces.images(indices)).mean() < 1.0
    assert [set(tags) for tags in again.tags] == [set(faces.tags[i]) for i in indices]
    for key in ("hair", "eyes", "glasses", "beard", "expression", "yaw"):
        assert [tags[key] for tags in again.tags] == [faces.tags[i][key] for i in indices]
    assert set(again.metadata) == set(faces.metadata)


def test_a_neutral_camera_changes_nothing_and_others_change_what_they_name():
    image = np.random.default_rng(0).integers(40, 200, (32, 32, 3), np.uint8)
    rng = np.random.default_rng(1)
    assert np.array_equal(Film().develop(image, rng), image)
    assert Film(exposure=1.2).develop(image, rng).mean() > image.mean() + 10
    red = Film(balance=(1.2, 1.0, 1.0)).develop(image, rng).astype(int) - image
    assert red[..., 0].min() > 0
    assert np.abs(red[..., 1:]).max() <= 1
    gray = Film(saturation=0.0).develop(image, rng)
    assert np.ptp(gray.astype(int), axis=2).max() <= 1
    assert Film(blur=60.0).develop(image, rng).std() < 0.5 * image.std()
    flat = np.full((64, 64, 3), 128, np.uint8)
    assert Film(noise=0.02).develop(flat, rng).std() == pytest.approx(0.02 * 255, rel=0.1)


@pytest.mark.slow
def test_wild_heads_are_the_same_people_in_other_light_and_size(root: Path, renderer: str, tmp_path: Path):
    from ecvae_jax.data.faces import load_faces

    studio, people, out = f"bake.Studio(Path({str(root)!r}), size=96, quality=90, wild=True)", [7, 223, 240], tmp_path
    run_in_process(f"bake.bake({studio}, Path({str(out / 'wild')!r}), {people}, workers=1)")
    faces = load_faces(out / "wild", "train")
    assert sorted(set(faces.identities)) == ["head007", "head240"]
    assert sorted(set(load_faces(out / "wild", "test").identities)) == ["head223"]
    assert faces.images([0]).shape == (1, 96, 96, 3)
    embedded = load_faces("rendered", "train")
    before = embedded.tags[embedded.identities.index("head007")]
    for key in ("hair", "eyes", "beard", "sex", "age", "ancestry"):
        assert faces.tags[0][key] == before[key]
    assert faces.tags[0]["light"] != before["light"]
    assert not set(faces.names) & set(embedded.names)  # pairs are made within a sitting
    made_by = "`bash launch/render_heads.sh OUT --size 96 --quality 90 --wild --people 7,223,240`"
    assert made_by in (out / "wild" / "README.md").read_text()


@pytest.mark.slow
def test_a_contact_sheet_has_a_row_for_each_person(root: Path, renderer: str, tmp_path: Path):
    file = tmp_path / "sheets" / "heads.png"
    arguments = ["--sheet", str(file), "--people", "1,3", "--landmarks", "--assets", str(root)]
    run_in_process(f"assert bake.main({arguments!r}) == 0")
    assert Image.open(file).size == (12 * 128, 2 * 128)
