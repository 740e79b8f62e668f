from types import SimpleNamespace

import numpy as np
import pytest
import torch

from datamodules.preprocessing import Preprocessing
from pl_distill.evaluation.words import Labelled, score_words
from pl_distill.models.prompts import PromptEmbedding, load_prompts
from pl_distill.models.sam3 import load_preprocessing, load_sam3, write_random_sam3

WORDS = ("pig", "toy", "cow")


class Known:
    """A detector that finds one box for the words 1 and 2, with the score that their embedding holds."""

    def get_vision_features(self, images):
        return images

    def __call__(self, *, vision_embeds, text_embeds, attention_mask):
        score = text_embeds.pooler_output.mean()
        return SimpleNamespace(
            pred_logits=torch.stack([torch.logit(score), torch.tensor(-9.0)])[None],
            presence_logits=torch.full((1, 1), 20.0),
            pred_boxes=torch.tensor([[[0.25, 0.5, 0.5, 1.0], [0.0, 0.0, 0.1, 0.1]]]),
        )


def prompt(word, score):
    return PromptEmbedding(word, torch.full((1, 32, 4), score), torch.ones(1, 32, dtype=torch.long))


def picture(**boxes):
    return Labelled(np.zeros((20, 40, 3), np.uint8), boxes)


def test_words_by_hand():
    right = [[10, 10, 20, 20]]  # 0.25, 0.5, 0.5, 1 of 40 x 20
    pictures = [picture(pig=right), picture(pig=[[30, 0, 40, 10]]), picture(toy=right), picture()]
    prompts = [prompt("pig", 0.9), prompt("toy", 0.8), prompt("cow", 0.6), prompt("sun", 0.4)]
    model = SimpleNamespace(detector_model=Known())
    scores = score_words(model, prompts, pictures, Preprocessing(size=8), present=["pig", "toy"], threshold=0.5)
    assert scores.pictures == 4
    assert scores.false_alarms == {"cow": 100.0, "sun": 0.0}
    # equal scores in all four pictures: pig's one hit comes first, one of its two objects is never found
    assert scores.ap50["pig"] == pytest.approx(50)
    assert scores.ap50["toy"] == pytest.approx(100 / 3)  # two misses before the hit


def test_a_real_model_answers(tmp_path):
    folder = write_random_sam3("tiny", tmp_path / "sam3", seed=0, words=WORDS)
    stored = load_prompts(folder)
    model, prompts = load_sam3(folder), [stored[word] for word in WORDS]
    pictures = [picture(pig=[[10, 10, 20, 20]])]
    scores = score_words(model, prompts, pictures, load_preprocessing(folder), present=WORDS[:2], threshold=0.5)
    assert 0 <= scores.ap50["pig"] <= 100
    assert np.isnan(scores.ap50["toy"])
    assert scores.false_alarms["cow"] in (0.0, 100.0)
