import hashlib

import pytest
import torch

from pl_distill.errors import ConfigError
from pl_distill.models.prompts import load_prompts
from pl_distill.models.sam3 import load_sam3_config, write_random_sam3
from pl_distill.models.sam3_random import letter_tokenizer


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(teacher, tmp_path):
    state = torch.get_rng_state()
    again = write_random_sam3(load_sam3_config("tiny"), tmp_path / "again", seed=0)
    other = write_random_sam3("tiny", tmp_path / "other", seed=1)
    assert hashes(teacher) == hashes(again)
    assert hashes(other)["model.safetensors"] != hashes(again)["model.safetensors"]
    assert torch.equal(torch.get_rng_state(), state)


def test_it_stores_prompts(teacher):
    assert set(load_prompts(teacher)) == {"pig", "feeder", "toy"}


def test_a_folder_with_something_in_it_is_not_overwritten(teacher):
    with pytest.raises(ConfigError, match="is not empty"):
        write_random_sam3("tiny", teacher, seed=0)


def test_a_failure_leaves_nothing_behind(tmp_path):
    with pytest.raises(ConfigError, match="at most 32"):
        write_random_sam3("tiny", tmp_path / "sam3", seed=0, words=["x" * 40])
    assert list(tmp_path.iterdir()) == []


def test_the_tokenizer_spells_words_and_knows_the_pig():
    tokenizer = letter_tokenizer()
    assert tokenizer.convert_ids_to_tokens(tokenizer("pig toy").input_ids) == [
        "<|startoftext|>",
        "pig</w>",
        "t",
        "o",
        "y</w>",
        "<|endoftext|>",
    ]
