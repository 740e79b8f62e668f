"""`pl-distill export`: the graph gives what the network gives, or is not written."""

import re

import pytest
import torch

from datamodules.pen import load_pen_config, pen_frames
from pl_distill.cli import main
from pl_distill.deploy import onnx_parity
from pl_distill.deploy.onnx_graph import open_graph
from pl_distill.deploy.onnx_networks import LEVEL_NAMES, behaviour_inputs
from pl_distill.models.behaviour_head import BehaviourModel, TemporalHead, load_behaviour, save_behaviour
from pl_distill.models.embedder_load import load_embedder
from pl_distill.models.prompts import load_prompts
from pl_distill.models.sam3 import load_preprocessing, load_sam3, write_random_sam3
from tests.pl_distill.commands.test_package import make_student

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    teacher = write_random_sam3("tiny", folder / "teacher", seed=0)
    return make_student("necks", teacher, folder / "student")


def cosines(text: str, names: tuple[str, ...]) -> dict[str, float]:
    """Read the cosine of each output from what the verb printed."""
    rows = [line.split() for line in text.splitlines()]
    return {row[0]: float(row[3]) for row in rows if row and row[0] in names}


@pytest.mark.parametrize(("precision", "cosine"), [("fp32", 0.99999), ("int8", 0.5), ("int8-static", 0.5)])
def test_an_exported_student_gives_its_levels_and_masks(student, tmp_path, capsys, precision, cosine):
    path = tmp_path / "student.onnx"
    arguments = ["export", "--model", str(student), "--out", str(path), "--precision", precision, "--frames=2"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    found = cosines(text, LEVEL_NAMES)
    assert set(found) == set(LEVEL_NAMES)
    assert min(found.values()) >= cosine
    assert "index tables int64" not in text
    assert [entry.name for entry in tmp_path.iterdir()] == ["student.onnx"]


def test_the_shipped_student_finds_the_same_animals_in_half_precision(tmp_path, capsys):
    words = ["--model=pen_student", "--out", str(tmp_path / "student.onnx"), "--precision=fp16", "--frames=2"]
    assert main(["export", *words]) == 0
    text = capsys.readouterr().out
    assert min(cosines(text, LEVEL_NAMES).values()) >= 0.9999
    read = re.search(r"mask IoU through the real heads ([\d.]+), largest change of a score ([\d.]+), 2 pictures", text)
    assert read is not None
    assert float(read[1]) >= 0.999
    assert float(read[2]) <= 0.005


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--what=embedder", "--model=pen_embedder", "--prompt=cow"], "--prompt: is given with --what embedder"),
        (
            ["--what=embedder", "--model=pen_embedder", "--teacher=pen_teacher"],
            "--teacher: is given with --what embedder",
        ),
        (["--model=pen_student", "--embedder=mine"], "--embedder: is given with --what student"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(tmp_path, capsys, options, said):
    assert main(["export", *options, "--out", str(tmp_path / "x.onnx")]) == 1
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_graph_that_disagrees_is_not_written(student, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(onnx_parity.LEAST_COSINE, "int8", 1.1)  # nothing reaches it
    path = tmp_path / "student.onnx"
    arguments = ["export", "--model", str(student), "--out", str(path), "--precision=int8", "--frames=1"]
    assert main(arguments) == 1
    assert "expected at least 1.1 in int8" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert main([*arguments, "--keep_failing=true"]) == 0
    assert path.is_file()


def test_masks_and_scores_behind_another_encoder_are_others(monkeypatch):
    sam3, other, prompt = load_sam3("pen_teacher"), load_sam3("pen_teacher"), load_prompts("pen_teacher")["pig"]
    preprocessing = load_preprocessing("pen_teacher")
    (frame,) = pen_frames(load_pen_config("day"), seed=1_000_602, frames=1)
    pictures = [preprocessing(frame.image)[None]]
    assert onnx_parity.heads_agreement(sam3, other, prompt, pictures) == onnx_parity.HeadsAgreement(1.0, 0.0)
    with torch.no_grad():
        for weight in other.detector_model.vision_encoder.neck.parameters():
            weight.mul_(1 + torch.randn(weight.shape, generator=torch.manual_seed(0)))
    changed = onnx_parity.heads_agreement(sam3, other, prompt, pictures)
    assert changed.mask_iou < 0.9
    assert changed.score_change > 0.1
    monkeypatch.setattr(onnx_parity, "BEST", 1)
    assert onnx_parity.heads_agreement(sam3, other, prompt, pictures).score_change == changed.score_change  # of all


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_shipped_embedder_gives_its_embeddings(tmp_path, capsys, precision):
    path = tmp_path / "embedder.onnx"
    words = ["--what=embedder", "--model=pen_embedder", f"--precision={precision}", "--frames=2"]
    assert main(["export", *words, "--out", str(path)]) == 0
    text = capsys.readouterr().out
    assert min(cosines(text, ("embeddings", "features")).values()) >= 0.999
    assert "similarity of two crops 0.0" in text
    embedder = load_embedder("pen_embedder")
    crops = torch.randint(0, 256, (5, 3, embedder.image_size, embedder.image_size), dtype=torch.uint8)
    embeddings, features = open_graph(path)((crops.float() / 255,))  # another number than it was traced with
    ours, described = embedder.describe(crops)
    tolerance = {"fp32": 1e-4, "fp16": 2e-2}[precision]
    torch.testing.assert_close(embeddings, ours, atol=tolerance, rtol=0)
    torch.testing.assert_close(features, described, atol=10 * tolerance, rtol=tolerance)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("fp16", 5e-2)])
def test_the_shipped_behaviour_head_gives_its_logits(tmp_path, capsys, precision, tolerance):
    path = tmp_path / "behaviour.onnx"
    words = ["--what=behaviour", "--model=pen_behaviour", f"--precision={precision}", "--frames=2"]
    assert main(["export", *words, "--out", str(path)]) == 0
    text = capsys.readouterr().out
    assert cosines(text, ("logits",))["logits"] >= 0.999
    assert "windows with the same behaviour" in text
    behaviour = load_behaviour("pen_behaviour")
    windows = behaviour_inputs(behaviour, load_embedder("pen_embedder"), seed=1_000_001, frames=1)
    assert any(not present.all() for _, _, present in windows)  # what nobody saw is left out in both
    for values in windows:
        with torch.inference_mode():
            torch.testing.assert_close(open_graph(path)(values)[0], behaviour.head(*values), atol=tolerance, rtol=0)


def test_a_behaviour_head_wants_its_own_embedder(tmp_path, capsys):
    window = load_behaviour("pen_behaviour").window
    head = TemporalHead(6, 2, window, hidden=8)
    arguments = {"features": 6, "classes": 2, "hidden": 8}
    model = BehaviourModel(head, "temporal", ("walk", "sleep"), window, 6.0, "another", {}, arguments)
    save_behaviour(tmp_path / "head", model)
    words = ["--what=behaviour", "--model", str(tmp_path / "head"), "--out", str(tmp_path / "head.onnx")]
    assert main(["export", *words]) == 1
    assert "trained on the features of another embedder (another)" in capsys.readouterr().err
