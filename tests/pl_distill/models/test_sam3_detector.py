"""The detector with all its layers against `Sam3Model.forward`, and the words that it is given."""

import pytest
import torch

from pl_distill.errors import CheckpointError, ConfigError
from pl_distill.models.prompts import load_prompts
from pl_distill.models.sam3 import load_preprocessing, load_sam3
from pl_distill.models.sam3_detector import detect
from pl_distill.models.sam3_training import open_sam3, save_sam3


@pytest.fixture(scope="module")
def opened(teacher):
    return open_sam3(str(teacher))


def test_the_last_layer_is_that_of_transformers(opened):
    detector = opened.model.detector_model
    images = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    input_ids, attention_mask = opened.tokenize(["pig", "toy", "pig"])
    image_index = torch.tensor([0, 0, 1])
    with torch.no_grad():
        ours = detect(detector, images, input_ids, attention_mask, image_index, torch.tensor([True, False, True]))
        for number, image in enumerate(image_index.tolist()):
            theirs = detector(
                pixel_values=images[image : image + 1],
                input_ids=input_ids[number : number + 1],
                attention_mask=attention_mask[number : number + 1],
            )
            torch.testing.assert_close(ours.logits[-1, number], theirs.pred_logits[0], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(ours.boxes[-1, number], theirs.pred_boxes[0], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(
                ours.presence_logits[-1, number], theirs.presence_logits[0, 0], atol=1e-4, rtol=1e-4
            )
            if number != 1:  # masks were wanted for the first and the third prompt
                row = number // 2
                torch.testing.assert_close(ours.masks[row], theirs.pred_masks[0], atol=1e-3, rtol=1e-3)
                torch.testing.assert_close(ours.semantic[row], theirs.semantic_seg[0, 0], atol=1e-3, rtol=1e-3)
    assert ours.logits.shape == (2, 3, 10)
    assert ours.masks.shape == (2, 10, 32, 32)
    assert ours.float().masks.dtype == torch.float32


def test_words_become_tokens_of_the_length_that_deployment_uses(opened):
    input_ids, attention_mask = opened.tokenize(["pig", "a feeder"])
    assert input_ids.shape == attention_mask.shape == (2, 32)
    assert attention_mask.sum(1).tolist() == [3, 9]  # start, pig, end; start, a, six letters, end


def test_what_is_saved_loads_with_strict_keys_and_the_same_numbers(opened, tmp_path):
    folder = save_sam3(opened, tmp_path / "sam3", ["pig", "toy"])
    assert folder == save_sam3(opened, folder, ["pig", "toy"])  # replaced as a whole
    loaded, again = load_sam3(folder), open_sam3(str(folder))
    assert load_preprocessing(folder).size == 112
    assert sorted(load_prompts(folder)) == ["pig", "toy"]
    wanted = opened.model.state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in loaded.state_dict().items())
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in again.model.state_dict().items())
    half = load_sam3(save_sam3(opened, folder, ["pig"], dtype=torch.float16))
    assert next(half.parameters()).dtype == torch.float32  # stored in half, loaded as asked


def test_a_configuration_starts_from_scratch_and_depends_on_the_seed():
    torch.manual_seed(1)
    first = open_sam3("tiny").model.state_dict()
    torch.manual_seed(1)
    second = open_sam3("tiny").model.state_dict()
    torch.manual_seed(2)
    third = open_sam3("tiny").model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], third[name]) for name in first)
    assert not any("geometry_encoder" in name for name in first)


@pytest.mark.parametrize(("source", "error"), [("no/such/folder/x", CheckpointError), ("nothing.yaml", ConfigError)])
def test_a_wrong_source_is_named(source, error):
    with pytest.raises(error, match=r"nothing\.yaml|no/such"):
        open_sam3(source)
