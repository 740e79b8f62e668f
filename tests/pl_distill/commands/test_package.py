"""`pl-distill package` and what runs from the bundle alone."""

import json
import re
import shutil

import numpy as np
import pytest
from safetensors import safe_open

from datamodules.video_writer import VideoWriter
from pl_distill.cli import main
from pl_distill.errors import CheckpointError
from pl_distill.evaluation.models import ModelSource, open_model, plan_model, plan_models
from pl_distill.models.bundle import verify_bundle
from pl_distill.models.sam3 import load_necks, write_random_sam3
from pl_distill.models.tinyvit_dual import TinyViTDualPyramid
from pl_distill.models.tinyvit_fpn import TinyViTFPN
from tests.pl_distill.commands.test_track import picture

SIZES = {"embed_dims": [16] * 4, "depths": [1] * 4, "num_heads": [1] * 4, "window_sizes": [2, 8, 4, 2], "body_size": 64}
COMMON = {"body": "tiny_vit_5m_224", "grid": 8, "fpn_channels": 16, "norm_groups": 4, **SIZES}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_random_sam3("tiny", tmp_path_factory.mktemp("sam3") / "teacher", seed=0)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "pen.mp4"
    with VideoWriter(path, fps=6, width=64, height=48) as writer:
        for number in range(3):
            writer.write(picture(number))
    return path


def make_student(kind, teacher, folder, trunk_sha256=None):
    if kind == "pyramids":
        necks = load_necks(teacher)
        channels = necks.detector_neck.config.fpn_hidden_size
        student = TinyViTDualPyramid(out_channels=channels, tower_depths=[1, 1, 1], **COMMON)
    else:
        student = TinyViTFPN(out_channels=32, **COMMON)
        if kind == "necks":
            necks = load_necks(teacher)
            student.attach_necks(necks.detector_neck, necks.tracker_neck)
    student.save_pretrained(folder, str(teacher), trunk_sha256)
    return folder


@pytest.mark.parametrize("kind", ["necks", "without necks", "pyramids"])
def test_a_bundle_tracks_like_the_student_when_the_teacher_is_gone(kind, teacher, video, tmp_path):
    kept = tmp_path / "teacher"
    shutil.copytree(teacher, kept)
    student, bundle = make_student(kind, kept, tmp_path / "student"), tmp_path / "bundle"
    options = ["--annotated=false", "--device=cpu"]
    assert main(["track", str(video), "--model", str(student), "--out", str(tmp_path / "before"), *options]) == 0
    assert main(["package", "--model", str(student), "--out", str(bundle)]) == 0
    shutil.rmtree(kept)
    shutil.rmtree(student)
    assert main(["track", str(video), "--model", str(bundle), "--out", str(tmp_path / "after"), *options]) == 0
    before, after = (np.loadtxt(tmp_path / name / "tracks.txt", delimiter=",", ndmin=2) for name in ("before", "after"))
    assert len(before) > 0
    # of one process, but sums of floats hang on where in memory they lie: a last digit of what is written may differ
    np.testing.assert_allclose(after, before, atol=2e-3)
    masks = [
        [json.loads(line) for line in (tmp_path / name / "masks.jsonl").read_text().splitlines()]
        for name in ("before", "after")
    ]
    for one, other in zip(*masks, strict=True):
        assert {**one, "score": pytest.approx(one["score"], abs=2e-3)} == other


@pytest.fixture(scope="module")
def bundle(teacher, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    student = make_student("necks", teacher, folder / "student")
    assert main(["package", "--model", str(student), "--out", str(folder / "bundle"), "--prompts=[pig]"]) == 0
    return folder / "bundle"


def test_trunk_and_text_encoder_stay_behind(bundle):
    with safe_open(bundle / "model.safetensors", framework="pt") as file:
        parts = {key.split(".")[0] + "." + key.split(".")[1] for key in file.keys()}  # noqa: SIM118
    assert not any("vision_encoder" in part or "text" in part or "geometry" in part for part in parts)
    content = json.loads((bundle / "bundle.json").read_text())
    assert (content["words"], content["notes"]) == (["pig"], [])
    assert set(content["files"]) == {path.name for path in bundle.iterdir()} - {"bundle.json"}
    assert {"README.md", "LICENCES.md"} <= set(content["files"])


def test_a_bundle_without_one_of_its_files_is_refused_by_its_name(bundle, video, tmp_path, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(bundle, broken)
    (broken / "prompts.safetensors").unlink()
    assert main(["track", str(video), "--model", str(broken), "--out", str(tmp_path / "out")]) == 1
    assert "prompts.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_path_out_of_the_bundle_is_not_followed(bundle, video, tmp_path, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(bundle, broken)
    content = json.loads((broken / "bundle.json").read_text())
    content["files"]["../secret"] = "0"
    (broken / "bundle.json").write_text(json.dumps(content))
    (tmp_path / "secret").write_text("x")
    assert main(["track", str(video), "--model", str(broken), "--out", str(tmp_path / "out")]) == 1
    assert "is not there" in capsys.readouterr().err


def test_a_bundle_that_changed_on_its_way_is_refused(bundle, video, tmp_path, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(bundle, broken)
    content = bytearray((broken / "student.safetensors").read_bytes())
    content[-1] ^= 1  # in a weight: the file opens as before
    (broken / "student.safetensors").write_bytes(content)
    assert main(["track", str(video), "--model", str(broken), "--out", str(tmp_path / "out")]) == 1
    assert "student.safetensors: has another SHA-256" in capsys.readouterr().err


def test_a_bundle_with_the_heads_of_another_teacher_says_so_wherever_it_runs(teacher, video, tmp_path, capsys):
    student = make_student("necks", teacher, tmp_path / "student", "f" * 64)
    assert main(["package", "--model", str(student), "--out", str(tmp_path / "bundle")]) == 0
    note = f"The student learned from another trunk (ffffffffffff) than that of {teacher}: "
    assert f"note: {note}" in capsys.readouterr().out
    options = ["--annotated=false", "--device=cpu", "--max_frames=1", "--out", str(tmp_path / "out")]
    assert main(["track", str(video), "--model", str(tmp_path / "bundle"), *options]) == 0
    assert f"note: {note}" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "run.json").read_text())["notes"][0].startswith(note)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("{", "is not JSON"),
        ("[" * 200_000, "is not JSON"),
        ("[]", "holds a list"),
        ('{"schema": 1}', "has no SHA-256 of config.json, model.safetensors, prompts.safetensors, student.json, "),
        ('{"schema": 1, "files": ["config.json"]}', "has no SHA-256 of config.json"),
        ('{"schema": 1, "files": {}}', "has no SHA-256 of config.json"),
        ('{"schema": 1, "files": {"config.json": "0"}}', "has no SHA-256 of model.safetensors"),
    ],
)
def test_a_damaged_description_is_refused(tmp_path, content, found):
    (tmp_path / "bundle.json").write_text(content)
    with pytest.raises(CheckpointError, match=re.escape(f"bundle.json: {found}")):
        verify_bundle(tmp_path)


@pytest.mark.parametrize("notes", [None, 5, "hello", [1]])
def test_notes_that_are_no_texts_are_refused(bundle, tmp_path, notes):
    broken = tmp_path / "broken"
    shutil.copytree(bundle, broken)
    content = json.loads((broken / "bundle.json").read_text())
    (broken / "bundle.json").write_text(json.dumps({**content, "notes": notes}))
    with pytest.raises(CheckpointError, match=r"bundle\.json: has notes .*, expected a list of texts"):
        verify_bundle(broken)


@pytest.mark.parametrize("name", ["preprocessor_config.json", "adapter_config.json", "model.safetensors.index.json"])
def test_a_file_that_no_hash_covers_is_refused_by_its_name(bundle, tmp_path, name):
    broken = tmp_path / "broken"
    shutil.copytree(bundle, broken)
    (broken / name).write_text("{}")
    with pytest.raises(CheckpointError, match=rf"{re.escape(name)}: is not named in bundle\.json"):
        open_model(plan_model(str(broken), None), "pig", "cpu")


def test_what_a_mac_leaves_in_a_copy_does_not_matter(bundle, tmp_path):
    copied = tmp_path / "copied"
    shutil.copytree(bundle, copied)
    for name in (".DS_Store", "._config.json"):
        (copied / name).write_bytes(b"x")
    assert verify_bundle(copied) == verify_bundle(bundle)


def test_a_bundle_without_its_description_is_no_student(bundle, video, tmp_path, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(bundle, broken)
    (broken / "bundle.json").unlink()
    assert main(["track", str(video), "--model", str(broken), "--out", str(tmp_path / "out")]) == 1
    assert "lacks bundle.json, expected a whole bundle. Copy the whole folder." in capsys.readouterr().err


def test_no_code_that_a_changed_bundle_names_is_imported(bundle, tmp_path, monkeypatch):
    broken = tmp_path / "broken"
    shutil.copytree(bundle, broken)
    content = json.loads((broken / "student.json").read_text())
    (broken / "student.json").write_text(json.dumps({**content, "class_path": "stranger.Network"}))
    (tmp_path / "stranger.py").write_text("raise AssertionError('was imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CheckpointError, match=r"student\.json: has another SHA-256"):
        open_model(plan_model(str(broken), None), "pig", "cpu")


@pytest.mark.parametrize("verb", ["track", "export"])
def test_a_bundle_takes_no_teacher(bundle, teacher, video, tmp_path, capsys, verb):
    words = ["--video", str(video)] if verb == "track" else []
    assert main([verb, *words, "--model", str(bundle), "--teacher", str(teacher), "--out", str(tmp_path / "out")]) == 1
    assert "a bundle, which has its heads" in capsys.readouterr().err


def test_a_bundle_is_compared_with_its_teacher(bundle, teacher):
    assert plan_models(str(bundle), str(teacher)) == [
        ModelSource("teacher", str(teacher)),
        ModelSource("student", str(bundle), str(bundle)),
    ]


def test_a_licence_beside_the_teacher_goes_along_and_none_is_a_warning(teacher, tmp_path, capsys):
    licensed = tmp_path / "teacher"
    shutil.copytree(teacher, licensed)
    (licensed / "LICENSE").write_text("Take it.")
    for origin, name in ((teacher, "without"), (licensed, "with")):
        student = make_student("necks", origin, tmp_path / f"student {name}")
        assert main(["package", "--model", str(student), "--out", str(tmp_path / name)]) == 0
        assert ("no LICENSE lies beside" in capsys.readouterr().err) is (name == "without")
    assert (tmp_path / "with" / "LICENSE").read_text() == "Take it."


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_bundle_runs_in_half_precision(bundle, video, tmp_path, precision):
    options = ["--precision", precision, "--annotated=false", "--device=cpu", "--max_frames=2"]
    assert main(["track", str(video), "--model", str(bundle), "--out", str(tmp_path / "out"), *options]) == 0


def test_what_is_no_student_and_what_exists_are_refused(bundle, teacher, tmp_path, capsys):
    assert main(["package", "--model", str(teacher), "--out", str(tmp_path / "new")]) == 1
    assert "is no student" in capsys.readouterr().err
    for name in ("pen_studnet", str(tmp_path / "studnet"), "runs/studnet"):
        assert main(["package", "--model", name, "--out", str(tmp_path / "new")]) == 1
        said = capsys.readouterr().err
        assert f"error: {name}: does not exist, expected a student's folder" in said
        assert "pen_student" in said
    assert main(["package", "--model", "pen_teacher", "--out", str(tmp_path / "new")]) == 1
    assert "is 'pen_teacher', which is no student" in capsys.readouterr().err
    student = make_student("necks", teacher, tmp_path / "student")
    assert main(["package", "--model", str(student), "--out", str(bundle)]) == 1
    assert "is not empty" in capsys.readouterr().err
    assert main(["package", "--model", str(student), "--out", str(tmp_path / "new"), "--prompts=[cow]"]) == 1
    assert "cow" in capsys.readouterr().err
    assert main(["package", "--model", str(student), "--out", str(tmp_path / "new"), "--prompts=[]"]) == 1
    assert "--prompts: is empty" in capsys.readouterr().err
    assert main(["package", "--model", str(bundle), "--out", str(tmp_path / "new")]) == 1
    assert "a bundle already" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
