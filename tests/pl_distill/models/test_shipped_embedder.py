"""The pen's embedder and behaviour head travel with the package: small, with cards, and better than chance."""

import numpy as np
import pytest

from datamodules.files import sha256_of
from datamodules.pen import load_pen_config, pen_frames
from pl_distill.assets import shipped_models
from pl_distill.commands.parsing import recipes_folder
from pl_distill.models.behaviour_head import MODEL_TYPE, load_behaviour
from pl_distill.models.dinov3 import FAMILY
from pl_distill.models.embedder_load import load_embedder
from pl_distill.monitor import Monitor

UNSEEN = 1_000_700


@pytest.mark.parametrize(
    ("kind", "name", "recipes", "megabytes"),
    [
        (tuple(FAMILY), "pen_embedder", ["embedder/pen.yaml"], 8),
        ((MODEL_TYPE,), "pen_behaviour", ["behaviour/pen.yaml", "behaviour/tracks.yaml"], 2),
    ],
)
def test_shipped_models_are_small_and_have_their_card(kind, name, recipes, megabytes):
    folder = shipped_models(*kind)[name]
    assert sum(path.stat().st_size for path in folder.iterdir()) <= megabytes * 1e6
    card = (folder / "README.md").read_text()
    assert all(sha256_of(recipes_folder() / recipe) in card for recipe in recipes)
    assert "## Limits" in card


def test_a_sam3_is_not_taken_for_an_embedder():
    assert "pen_embedder" not in shipped_models()
    assert "pen_teacher" not in shipped_models(*FAMILY)


def test_the_embedder_tells_unseen_animals_apart_on_another_day():
    embedder, config = load_embedder(), load_pen_config("day")
    seen = {}
    for day in ("a", "b"):
        names, vectors = [], []
        for frame in pen_frames(config, seed=UNSEEN, frames=8, every=36, clip=day, day=day):
            found = embedder.describe_animals(frame.image, frame.boxes_xyxy, frame.masks)
            names += [frame.names[row] for row in found.rows]
            vectors.append(found.embeddings.numpy())
        seen[day] = np.array(names), np.concatenate(vectors)
    nearest = (seen["b"][1] @ seen["a"][1].T).argmax(1)
    right = (seen["a"][0][nearest] == seen["b"][0]).mean()
    assert right > 0.5  # of eight animals; standardised pixels without any training give a third


def test_the_head_belongs_to_the_embedder():
    Monitor(load_embedder(), load_behaviour())
