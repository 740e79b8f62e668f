"""The models that travel with the package load like any other, stay within their budget, and see."""

import pytest
import torch
from safetensors import safe_open

from datamodules.files import sha256_of
from datamodules.pen import load_pen_config, pen_frames
from pl_distill.assets import shipped_models
from pl_distill.commands.parsing import recipes_folder
from pl_distill.models.prompts import choose_prompt, compute_prompts, load_prompts
from pl_distill.models.sam3 import load_preprocessing, load_sam3, load_sam3_config, meta_sam3
from pl_distill.models.sam3_source import weight_files
from pl_distill.streaming import StreamingTracker

NAME = "pen_teacher"
UNSEEN = 1_000_500


@pytest.fixture(scope="module")
def folder():
    return shipped_models()[NAME]


def test_the_pens_teacher_is_small_and_has_its_card(folder):
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 20e6
    card = (folder / "README.md").read_text()
    stages = [f"{NAME}/{part}{stage}.yaml" for part in ("", "longer/") for stage in ("detector", "tracker")]
    for recipe in (*stages, "sam3/pen.yaml"):
        assert f"- `{recipe}`, SHA-256 {sha256_of(recipes_folder() / recipe)}" in card
    assert "| day |" in card
    assert "cow" in card


def test_it_is_what_its_recipe_describes_and_has_no_geometry_encoder(folder):
    shapes = {name: tuple(tensor.shape) for name, tensor in meta_sam3(load_sam3_config("pen")).state_dict().items()}
    ours = {name: tuple(tensor.shape) for name, tensor in load_sam3(NAME, text_encoder=True).state_dict().items()}
    assert ours == {name: shape for name, shape in shapes.items() if "geometry_encoder" not in name}
    assert not [name for name in weight_files(folder) if "geometry_encoder" in name]
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118


def test_stored_words_are_those_of_its_text_encoder():
    stored = load_prompts(NAME)
    assert sorted(stored) == ["feeder", "pig", "toy"]
    for prompt in compute_prompts(NAME, ["pig", "toy"]):
        change = (prompt.embedding - stored[prompt.word].embedding).abs().max()
        assert change < 0.02  # of values up to 4: the encoder was rounded to float16


def test_it_finds_the_animals_of_a_pen_that_it_never_saw():
    tracker = StreamingTracker(load_sam3(NAME), choose_prompt(load_prompts(NAME), "pig"), load_preprocessing(NAME))
    frames = pen_frames(load_pen_config("day"), seed=UNSEEN, frames=3)
    found = [len(tracker.update(frame.image, frame.index / 6)) for frame in frames]
    assert all(6 <= count <= 10 for count in found)  # of eight
