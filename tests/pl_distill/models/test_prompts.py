import shutil
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import Sam3VideoProcessor

from pl_distill.errors import CheckpointError, ConfigError
from pl_distill.models.prompts import (
    PROMPTS_FILE,
    choose_prompt,
    compute_prompts,
    embed_words,
    load_prompts,
    save_prompts,
)
from pl_distill.models.sam3 import load_preprocessing, load_sam3
from pl_distill.models.sam3_training import open_sam3
from pl_distill.streaming import PruningPolicy, StreamingTracker


def pictures(count):
    numbers = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (40, 50, 3), generator=numbers, dtype=torch.uint8).numpy() for _ in range(count)]


def test_a_stored_prompt_gives_what_the_text_encoder_gives_bit_for_bit(teacher):
    processor, whole = Sam3VideoProcessor.from_pretrained(teacher), load_sam3(teacher, text_encoder=True)
    session = processor.init_video_session()
    processor.add_text_prompt(session, "pig")
    tracker = StreamingTracker(
        load_sam3(teacher), load_prompts(teacher)["pig"], load_preprocessing(teacher), PruningPolicy.as_transformers()
    )
    for index, picture in enumerate(pictures(4)):
        pixels = processor(images=picture, return_tensors="pt").pixel_values[0]
        output = whole(inference_session=session, frame=pixels, frame_idx=index)
        theirs = processor.postprocess_outputs(session, output, original_sizes=[[40, 50]])
        ours = tracker.update(picture, index)
        assert len(ours.ids) > 0
        assert list(ours.ids) == theirs["object_ids"].tolist()
        assert torch.equal(torch.from_numpy(ours.masks), theirs["masks"])


def test_prompts_survive_the_disk_bit_for_bit(teacher, tmp_path):
    words = ["pig", "a brown pig"]
    computed = compute_prompts(teacher, words)
    shutil.copy(teacher / "config.json", tmp_path)
    save_prompts(tmp_path, computed)
    stored = load_prompts(tmp_path)
    assert sorted(stored) == sorted(words)
    for prompt in computed:
        assert torch.equal(stored[prompt.word].embedding, prompt.embedding)
        assert torch.equal(stored[prompt.word].attention_mask, prompt.attention_mask)
    assert stored["pig"].embedding.shape == (1, 32, 128)
    assert int(stored["pig"].attention_mask.sum()) == 3  # start, pig, end: the padding is kept
    assert torch.equal(stored["pig"].embedding, load_prompts(teacher)["pig"].embedding)


def test_a_model_on_a_gpu_embeds_words_and_hands_them_over_on_the_cpu():
    opened = open_sam3("tiny")
    with FakeTensorMode(allow_non_fake_inputs=True):
        opened.model.detector_model.to("cuda")  # a training of the detector leaves the rest where it was
        (prompt,) = embed_words(opened.model, opened.processor.tokenizer, ["pig"])
        assert prompt.embedding.shape == (1, 32, 128)
        assert prompt.embedding.device.type == prompt.attention_mask.device.type == "cpu"


def test_an_unknown_word_lists_the_stored_ones(teacher):
    with pytest.raises(ConfigError, match="is 'sheep', expected one of the stored words: feeder, pig, toy"):
        choose_prompt(load_prompts(teacher), "sheep")


def test_a_prompt_that_is_too_long_is_refused(teacher):
    with pytest.raises(ConfigError, match="has 42 tokens, expected at most 32"):
        compute_prompts(teacher, ["q" * 40])


def test_the_hubs_sam3_has_no_prompts_and_the_error_says_how_it_gets_some(monkeypatch):
    monkeypatch.setattr("pl_distill.models.prompts.find_file", lambda *_: None)
    with pytest.raises(CheckpointError) as caught:
        load_prompts("facebook/sam3")
    for step in (
        "`hf download facebook/sam3 --local-dir sam3`",
        "name sam3 instead",
        "save_prompts(Path('sam3'), compute_prompts('sam3', ['pig']))",
    ):
        assert step in str(caught.value)


def test_a_model_without_prompts_or_with_a_damaged_file_is_refused(teacher, tmp_path):
    shutil.copy(teacher / "config.json", tmp_path)
    with pytest.raises(CheckpointError, match=r"has no prompts\.safetensors.* Make them once .*save_prompts\("):
        load_prompts(tmp_path)
    (tmp_path / PROMPTS_FILE).write_bytes(b"not safetensors")
    with pytest.raises(CheckpointError, match="is damaged"):
        load_prompts(tmp_path)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda one: replace(one, embedding=one.embedding[..., :5]), r"embedding \(1, 32, 5\) and a mask \(1, 32\)"),
        (lambda one: replace(one, embedding=one.embedding[:, :7]), r"embedding \(1, 7, 128\) and a mask \(1, 32\)"),
        (
            lambda one: replace(one, attention_mask=one.attention_mask[0]),
            r"embedding \(1, 32, 128\) and a mask \(32,\)",
        ),
    ],
)
def test_prompts_of_another_shape_are_refused(teacher, tmp_path, change, found):
    shutil.copy(teacher / "config.json", tmp_path)
    save_prompts(tmp_path, [change(load_prompts(teacher)["pig"])])
    with pytest.raises(CheckpointError, match=rf"holds 'pig' with an {found}, expected \(1, 32, 128\) and \(1, 32\)"):
        load_prompts(tmp_path)
