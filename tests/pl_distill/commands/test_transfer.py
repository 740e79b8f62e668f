"""`pl-distill transfer` and `release` from the command line, on tiny pens and a SAM 3 with random weights."""

import json
import os
import re
import shutil
from contextlib import contextmanager

import pytest
import yaml

from datamodules.pen import EVALUATION_SEED, draw_pen, load_pen_config, simulate
from pl_distill.cli import main
from pl_distill.commands.transfer import DOMAINS
from pl_distill.evaluation.tuning import write_variant
from pl_distill.models.sam3 import load_sam3, write_random_sam3

pytestmark = pytest.mark.smoke

CARD = {
    "name": "A pig finder", "summary": "Finds pigs.", "data": "Drawn.", "training": "None.", "animal": "pig",
    "absent_words": ["cow"], "recipes": ["pen_teacher/detector.yaml"], "limits": ["Knows nothing."],
}  # fmt: skip


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Two tiny domains, scored in two processes."""
    root = tmp_path_factory.mktemp("transfer")
    model = write_random_sam3("tiny", root / "sam3", seed=0)
    domains = []
    for name, straw in (("near", 70), ("far", 700)):
        recipe = root / f"{name}.yaml"
        recipe.write_text(f"domain: {name}\nwidth: 128\nheight: 72\nnum_animals: 2\nstraw_per_m2: {straw}\n")
        domains.append(str(recipe))
    words = ["transfer", "--model", str(model), "--out", str(root / "out"), f"--domains=[{','.join(domains)}]"]
    words += ["--clips=2", "--frames=3"]
    with (root / "stderr").open("wb") as file, shown_on(file):
        assert main(words) == 0
    return root, model, words


@contextmanager
def shown_on(file):
    """Send what this process and its children show on stderr to a file."""
    kept = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def test_the_bars_of_two_processes_lie_below_each_other(scored):
    shown = (scored[0] / "stderr").read_bytes().decode()  # with \r as it is
    second_line = re.findall(r"\n\r([^\r\n]*)\x1b\[A", shown)  # down, the bar, and up again
    assert any("model: " in line and "frame/s" in line for line in second_line), shown


def test_every_domain_is_drawn_with_unseen_herds_and_scored(scored):
    root, _, _ = scored
    rows = json.loads((root / "out" / "transfer.json").read_text())["rows"]
    assert [(row["domain"], row["clips"]) for row in rows] == [("near", 2), ("far", 2)]
    for domain in ("near", "far"):
        seeds = [
            json.loads(path.read_text())["seed"]
            for path in sorted((root / "out" / domain).glob("clips/*/*/scene.json"))
        ]
        assert seeds == [1_000_000, 1_000_001]


def test_a_second_run_replays_nothing(scored, capfd):
    root, _, words = scored
    before = (root / "out" / "transfer.json").read_bytes()
    tracks = {path: path.stat().st_mtime_ns for path in root.glob("out/*/tracks/model/*.txt")}
    assert len(tracks) == 8  # boxes and masks of four clips
    assert main([*words, "--jobs=1"]) == 0
    assert {path: path.stat().st_mtime_ns for path in root.glob("out/*/tracks/model/*.txt")} == tracks
    assert (root / "out" / "transfer.json").read_bytes() == before
    assert capfd.readouterr().out.count("model: 2 of 2 clips are reused from an earlier run") == 2  # of each domain


def test_clips_of_another_transfer_are_not_streamed_again(scored, tmp_path, capfd):
    root, _, words = scored
    out = tmp_path / "out"
    replaced = [str(out) if word == str(root / "out") else word for word in words]
    assert main([*replaced, "--jobs=1", "--replays", str(root / "out")]) == 0
    assert (out / "transfer.json").read_bytes() == (root / "out" / "transfer.json").read_bytes()
    told = [f"model: 2 of 2 clips are taken from {root / 'out' / domain}" for domain in ("near", "far")]
    shown = capfd.readouterr().out
    assert [shown.count(line) for line in told] == [1, 1]
    assert main([*replaced, "--replays", str(tmp_path)]) == 1
    assert f"--replays: {tmp_path} has none of near, far" in capfd.readouterr().err


def test_fewer_clips_than_an_earlier_run_drew_are_scored(scored, tmp_path):
    root, _, words = scored
    out = shutil.copytree(root / "out", tmp_path / "out")
    assert main([str(out) if word == str(root / "out") else word for word in words] + ["--clips=1", "--jobs=1"]) == 0
    rows = json.loads((out / "transfer.json").read_text())["rows"]
    assert [(row["domain"], row["clips"]) for row in rows] == [("near", 1), ("far", 1)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--frames=4"], "--frames: is 4, and 2026_03_01/000000 in {clips} has 3 frames, expected 3."),
        (["--frames=4", "--clips=1"], "Give another --out, or --frames 3."),
        (["--seed=7"], "--seed: is 7, and 2026_03_01/000000 in {clips} is of --seed 0, expected 0."),
        (["--domains=[{other}]"], "--domains: draws near otherwise than 2026_03_01/000000 in {clips}"),
        (["--clips=3"], "nowhere: is not there"),  # the same clips and one more: what is asked for next
    ],
)
def test_clips_of_an_earlier_run_are_never_drawn_over(tmp_path, capsys, options, message):
    recipe, other, out = tmp_path / "near.yaml", tmp_path / "other.yaml", tmp_path / "out"
    recipe.write_text("domain: near\nwidth: 128\nheight: 72\nnum_animals: 2\nstraw_per_m2: 70\n")
    other.write_text(recipe.read_text().replace("70", "90"))
    clips = out / "near" / "clips"
    for number, day in enumerate(("2026_03_01", "2026_03_02")):
        config, seed = load_pen_config(str(recipe)), EVALUATION_SEED + number
        draw_pen(clips, config, days=[day], clips_per_day=1, frames_per_clip=3, seed=seed)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    words = ["transfer", "--model=nowhere", f"--out={out}", f"--domains=[{recipe}]", "--clips=2", "--frames=3"]
    assert main([*words, *(option.format(other=other) for option in options)]) == 1
    assert message.format(clips=clips) in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_the_card_of_a_release_shows_scores_and_words(scored, capsys):
    root, model, _ = scored
    card = root / "card.yaml"
    card.write_text(yaml.safe_dump(CARD))
    out = root / "model"
    assert (
        main(["release", "--source", str(model), "--out", str(out), "--card", str(card), f"--scores=[{root / 'out'}]"])
        == 0
    )
    text = (out / "README.md").read_text()
    assert "| near |" in text
    assert "| far |" in text
    assert "| clips x frames |" in text
    assert "Identities are SAM 3's own: no animal is recognised by its looks." in text
    assert "cow " in text
    assert "AP50 of words on 2 pictures" in text  # the first frame of either clip
    assert f"model     {out}" in capsys.readouterr().out
    load_sam3(out)


def test_false_alarms_are_detections_not_the_starts_of_tracks_and_scores_of_other_models_are_refused(scored, capsys):
    root, model, _ = scored
    card = root / "thresholds.yaml"
    card.write_text(yaml.safe_dump(CARD))
    write_variant(model, root / "variant", {"score_threshold_detection": 1e-6, "new_det_thresh": 0.9})
    source, out = root / "variant", root / "detections"
    words = ["--source", str(source), "--out", str(out), "--card", str(card)]
    assert main(["release", *words, f"--scores=[{root / 'out'}]"]) == 1  # of the model with other thresholds
    assert f"--scores: has for near those of {model} (" in capsys.readouterr().err
    assert not out.exists()
    transfer = ["transfer", "--model", str(source), "--out", str(root / "of-variant"), "--clips=1", "--frames=1"]
    assert main([*transfer, f"--domains=[{root / 'near.yaml'}]", "--jobs=1"]) == 0
    assert main(["release", *words, f"--scores=[{root / 'of-variant'}]"]) == 0
    assert "a score above 1e-06, in percent: cow 100.0." in (out / "README.md").read_text()


def test_a_card_with_a_missing_key_is_refused_by_its_name(scored, capsys):
    root, model, _ = scored
    card = root / "bad.yaml"
    card.write_text(yaml.safe_dump({key: value for key, value in CARD.items() if key != "limits"}))
    assert main(["release", "--source", str(model), "--out", str(root / "other"), "--card", str(card)]) == 1
    assert "limits: is missing" in capsys.readouterr().err
    assert not (root / "other").exists()


def test_the_card_of_a_sam3_with_scores_must_name_its_animals(scored, capsys):
    root, model, _ = scored
    card = root / "nameless.yaml"
    card.write_text(yaml.safe_dump({key: value for key, value in CARD.items() if key != "animal"}))
    words = ["--source", str(model), "--out", str(root / "other"), "--card", str(card)]
    assert main(["release", *words, f"--scores=[{root / 'out'}]"]) == 1
    assert f"{card}, animal: is missing" in capsys.readouterr().err
    assert not (root / "other").exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--clips=0", "--clips: is 0"),
        ("--seed=1000000", "--seed: is 1000000"),
        ("--domains=[moon]", "not a shipped domain"),
        ("--domains=[]", "--domains: names none"),
        ("--domains=[day,dusk,day]", "--domains: names day, dusk, day"),
        ("--clips=1", "nowhere: is not there, expected a .ckpt of pl-distill fit"),
    ],
)
def test_what_cannot_be_drawn_or_scored_is_refused(tmp_path, capsys, option, message):
    assert main(["transfer", "--model", "nowhere", "--out", str(tmp_path / "out"), option]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_seed_is_the_same_herd_on_the_same_ways_unless_species_farm_or_size_differ(domain):
    """As the table and docs/evidence.md say of its pairs."""
    ways = []
    for name in ("day", domain):
        *_, state = simulate(load_pen_config(name), 1_000_001, 100, "clip")
        ways.append(state.poses)
    assert (ways[0] == ways[1]) == (domain not in ("crowded", "sheep", "farm-b"))


def test_every_shipped_domain_is_scored_by_default():
    from pl_distill.commands.parsing import recipes_folder

    assert set(DOMAINS) == {path.stem for path in (recipes_folder() / "pen").glob("*.yaml")}
