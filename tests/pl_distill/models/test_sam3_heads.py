import pytest
import torch

from pl_distill.errors import ConfigError
from pl_distill.models.prompts import choose_prompt, load_prompts
from pl_distill.models.sam3 import load_necks, load_sam3, trunk_map
from pl_distill.models.sam3_heads import load_heads, overlap


def test_the_heads_see_in_a_pyramid_what_the_whole_detector_sees_in_the_picture(teacher):
    model, images = load_sam3(teacher), torch.randn(2, 3, 112, 112)
    prompt = choose_prompt(load_prompts(teacher), "pig")
    with torch.no_grad():
        levels = load_necks(teacher)(trunk_map(model, images)).detector
        vision = model.detector_model.get_vision_features(pixel_values=images)
        text = type("Text", (), {"pooler_output": prompt.embedding.expand(2, -1, -1)})
        whole = model.detector_model(
            vision_embeds=vision, text_embeds=text, attention_mask=prompt.attention_mask.expand(2, -1)
        )
    heads = load_heads(teacher, "pig")
    torch.testing.assert_close(heads(levels), whole.semantic_seg.squeeze(1).sigmoid(), rtol=1e-4, atol=1e-5)
    assert heads(levels).shape == (2, 32, 32)
    assert not any(parameter.requires_grad for parameter in heads.parameters())
    assert sum(1 for name in heads.state_dict() if "vision_encoder" in name) == 0


def test_an_unknown_word_is_refused(teacher):
    with pytest.raises(ConfigError, match="stored words"):
        load_heads(teacher, "zeppelin")


def test_overlap_by_hand():
    student = torch.tensor([[[1.0, 0.0]], [[0.5, 0.5]]])
    teacher = torch.tensor([[[1.0, 1.0]], [[0.5, 0.5]]])
    assert overlap(student, teacher).tolist() == pytest.approx([0.5, 1.0])
    assert overlap(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2)).item() == 0
