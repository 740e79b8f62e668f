import hashlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from datamodules.pen import PenConfig, draw_pen
from pl_distill.cli import main
from pl_distill.commands.release import CardText, _ask_words, recognisers_of
from pl_distill.errors import CheckpointError, ConfigError
from pl_distill.evaluation.model_card import ModelCard, write_model, write_student
from pl_distill.evaluation.words import WordScores
from pl_distill.models.prompts import load_prompts
from pl_distill.models.sam3 import load_preprocessing, load_sam3, write_random_sam3
from pl_distill.models.sam3_training import open_sam3, save_sam3
from pl_distill.models.student_io import load_student
from tests.pl_distill.evaluation.conftest import small_student


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return write_random_sam3("tiny", tmp_path_factory.mktemp("card") / "sam3", seed=0)


@pytest.fixture
def card(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("seed_everything: 0\n")
    words = WordScores({"pig": 97.54}, {"cow": 0.5}, 200, 0.3)
    return ModelCard(
        "A pig finder",
        "Finds pigs.",
        "Drawn.",
        "Hours.",
        {"teacher/recipe.yaml": recipe},
        {},
        words,
        ["Sees no horses."],
    )


def test_the_card_says_what_was_made_from_what(card):
    text = card.text()
    assert text.startswith("# A pig finder\n\nFinds pigs.\n")
    assert f"- `teacher/recipe.yaml`, SHA-256 {hashlib.sha256(b'seed_everything: 0' + bytes([10])).hexdigest()}" in text
    assert "AP50 of words on 200 pictures: pig 97.5." in text
    assert "words for nothing give a detection, that is a score above 0.3, in percent: cow 0.5." in text
    assert text.endswith("## Limits\n\n- Sees no horses.\n")
    assert "## Scores" not in text


def result_of(*frames):
    """Scores of clips of so many judged frames."""
    overall = SimpleNamespace(mota=91.25, idf1=None, id_switches=7, scored_frames=sum(frames))
    clips = {str(n): SimpleNamespace(scores=SimpleNamespace(scored_frames=one)) for n, one in enumerate(frames)}
    return SimpleNamespace(overall=overall, mask_overlap=82.04, clips=clips)


def test_every_domain_has_a_row_with_the_clips_that_it_is_of(card):
    scores = {"day": result_of(300, 300), "dusk": result_of(80, 80, 79)}
    lines = replace(card, scores=scores, recognisers=dict.fromkeys(scores)).text().splitlines()
    assert "| day | 91.2 | - | 82.0 | 7 | 2 x 300 |" in lines
    assert "| dusk | 91.2 | - | 82.0 | 7 | 3 x 79 to 80 |" in lines
    assert "Rows compare where their clips x frames are the same." in "\n".join(lines)
    assert "Rows compare" not in replace(card, scores={"day": result_of(300, 300)}).text()


def test_a_reader_knows_whose_the_boxes_are_and_which_rows_compare(card):
    scores = {"day": result_of(300), "dusk": result_of(300)}
    plain = replace(card, scores=scores)
    assert "A track's box" not in plain.text()
    one = replace(plain, fused=frozenset({"day"})).text()
    assert "A track's box is the mean of that around its mask and of the detection's in day." in one
    assert "Rows compare where their boxes are the same." in one
    both = replace(plain, fused=frozenset(scores)).text()
    assert "of the detection's." in both
    assert "Rows compare" not in both


def test_words_of_which_no_picture_shows_anything_have_no_number(card):
    words = WordScores({"pig": 97.54, "toy": float("nan")}, {}, 200, 0.3)
    text = replace(card, words=words).text()
    assert "AP50 of words on 200 pictures: pig 97.5." in text
    assert "words for nothing" not in text


def test_words_are_asked_on_the_clips_that_were_scored_and_the_animal_is_one(tmp_path):
    days = ["2026_03_01", "2026_03_02"]
    draw_pen(tmp_path, PenConfig(domain="small", num_animals=2), days=days, clips_per_day=1, frames_per_clip=2, seed=3)
    text = CardText("", "", "", "", [], [], animal="pig", absent_words=["cow"])
    found = _ask_words("pen_teacher", "card.yaml", text, tmp_path, ["2026_03_01/000000"])
    assert found.pictures == 1
    assert set(found.false_alarms) == {"cow"}
    with pytest.raises(
        ConfigError, match=r"card\.yaml, animal: is 'sheep', expected a stored word \(feeder, pig, toy\)"
    ):
        _ask_words("pen_teacher", "card.yaml", replace(text, animal="sheep"), tmp_path, [])


@pytest.mark.parametrize(
    ("recognisers", "sentence"),
    [
        ((None, None), "Identities are SAM 3's own: no animal is recognised by its looks."),
        (("pen", "pen"), "Animals are recognised by their looks, by `pen`: identities are of tracker and embedder."),
        (
            ("pen", None),
            "Animals are recognised by their looks in day, by `pen`: identities are of tracker and embedder; elsewhere "
            "they are SAM 3's own.",
        ),
    ],
)
def test_a_reader_knows_whose_the_identities_are(card, recognisers, sentence):
    scores = {"day": result_of(80), "dusk": result_of(80)}
    text = replace(card, scores=scores, recognisers=dict(zip(scores, recognisers, strict=True))).text()
    assert sentence in text.splitlines()


def test_what_recognised_animals_is_read_from_the_settings_of_the_evaluation():
    policies = {"day": {"appearance": {"embedder": "pen_embedder"}}, "dusk": {"appearance": None}, "old": {}}
    results = {name: SimpleNamespace(settings=SimpleNamespace(policy=policy)) for name, policy in policies.items()}
    assert recognisers_of(results) == {"day": "pen_embedder", "dusk": None, "old": None}


@pytest.mark.parametrize("name", ["pen_student", "pen_teacher"])
def test_the_shipped_cards_say_it_too(name):
    text = Path(f"pl_distill/assets/{name}/README.md").read_text()
    assert "| data | MOTA | IDF1 | mask overlap | identity switches | clips x frames |" in text
    assert "Identities are SAM 3's own: no animal is recognised by its looks." in text


def test_weights_are_halved_and_load_like_any_other(trained, card, tmp_path):
    folder = write_model(trained, tmp_path / "model", card)
    before, after = load_sam3(trained).state_dict(), load_sam3(folder).state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor.half().float(), after[name]) for name, tensor in before.items())
    assert (folder / "model.safetensors").stat().st_size < 0.55 * (trained / "model.safetensors").stat().st_size
    assert load_preprocessing(folder) == load_preprocessing(trained)
    assert load_prompts(folder).keys() == load_prompts(trained).keys()
    assert (folder / "README.md").read_text() == card.text()


def test_a_weight_too_large_for_half_precision_is_named(trained, card, tmp_path):
    opened = open_sam3(str(trained))
    with torch.no_grad():
        opened.model.tracker_neck.fpn_layers[0].proj1.bias[0] = 1e5
    folder = save_sam3(opened, tmp_path / "large", ["pig"])
    with pytest.raises(CheckpointError, match=r"proj1\.bias.*1e\+05"):
        write_model(folder, tmp_path / "model", replace(card, words=None))
    assert not (tmp_path / "model").exists()


def test_a_student_of_more_steps_than_half_precision_counts_is_written(card, tmp_path):
    student = small_student()
    counters = {name for name, buffer in student.named_buffers() if name.endswith("num_batches_tracked")}
    for name in counters:
        student.get_buffer(name).fill_(70_000)
    student.save_pretrained(tmp_path / "student")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("of a SAM 3 that was released there before")
    folder = write_student(tmp_path / "student", tmp_path / "out", card)
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "student.json", "student.safetensors"]
    written = load_student(folder).state_dict()
    assert counters
    assert all(written[name] == 70_000 for name in counters)


def test_a_release_replaces_nothing_but_a_release(trained, tmp_path, capsys):
    """Whatever else lies there would be gone."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("keep")
    words = ["release", "--source", str(trained), "--out", str(out)]
    assert main(words) == 1
    assert f"error: --out {out}: holds what is no release (thesis.txt)" in capsys.readouterr().err
    assert (out / "thesis.txt").read_text() == "keep"
    assert main(["release", "--source", str(trained), "--out", str(trained)]) == 1, "an export has no card"
    (out / "thesis.txt").unlink()
    assert main(words) == 0
    assert main(words) == 0
    (out / "runs").mkdir()
    assert main(words) == 1
