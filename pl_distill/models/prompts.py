"""Text prompts as stored embeddings, so that the deployed model needs neither text encoder nor tokenizer.

Source: transformers, `Sam3Model.get_text_features` and `Sam3VideoProcessor.add_text_prompt` (padded to 32 tokens; the
padding is kept, for cutting it changes the last bits). Of its output only `pooler_output` is read downstream, and that
is an attribute which ``items()`` does not list.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoTokenizer

from datamodules.files import atomic_path
from pl_distill.errors import CheckpointError, ConfigError
from pl_distill.models.sam3_load import load_config, load_sam3
from pl_distill.models.sam3_source import check_source, find_file

PROMPTS_FILE = "prompts.safetensors"
TOKENS = 32
_EMBEDDING, _MASK = ".pooler_output", ".attention_mask"


@dataclass(frozen=True, eq=False)
class PromptEmbedding:
    """What SAM 3's detector reads of a text.

    Args:
        word: The text, for people and for messages.
        embedding: Shape (1, 32, D), D the width of the detector.
        attention_mask: Shape (1, 32), int64, 1 for tokens of the text and 0 for padding.
    """

    word: str
    embedding: Tensor
    attention_mask: Tensor


def compute_prompts(source: str | Path, words: Sequence[str]) -> list[PromptEmbedding]:
    """Embed words with the text encoder and tokenizer of a model.

    Args:
        source: A folder or hub name that still has its text encoder.
        words: One prompt each; a phrase of several words is one prompt.

    Raises:
        CheckpointError: The source has no text encoder or no tokenizer.
        ConfigError: A prompt is longer than the encoder's 32 tokens.
    """
    model = load_sam3(source, text_encoder=True)
    try:
        tokenizer = AutoTokenizer.from_pretrained(check_source(source))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            source, "has no tokenizer", "the tokenizer's files beside the weights", "Copy them from the model's origin."
        ) from error
    return embed_words(model, tokenizer, words)


@torch.no_grad()
def embed_words(model: Any, tokenizer: Any, words: Sequence[str]) -> list[PromptEmbedding]:
    """Embed words with a model that has its text encoder, on any device, and the tokenizer that belongs to it.

    The embeddings come back on the CPU.
    """
    device = next(model.detector_model.text_encoder.parameters()).device
    prompts = []
    for word in words:
        tokens = tokenizer(word, return_tensors="pt", padding="max_length", max_length=TOKENS)
        count = tokens.input_ids.shape[1]
        if count > TOKENS:
            raise ConfigError("prompt", f"{word!r} has {count} tokens", f"at most {TOKENS}", "Shorten it.")
        features = model.detector_model.get_text_features(
            input_ids=tokens.input_ids.to(device), attention_mask=tokens.attention_mask.to(device), return_dict=True
        )
        prompts.append(PromptEmbedding(word, features.pooler_output.cpu(), tokens.attention_mask))
    return prompts


def save_prompts(folder: Path, prompts: Iterable[PromptEmbedding]) -> Path:
    """Write prompts into ``folder/prompts.safetensors``, in the place of what it held, and return its path."""
    tensors: dict[str, Tensor] = {}
    for prompt in prompts:
        tensors[prompt.word + _EMBEDDING] = prompt.embedding.detach().cpu().contiguous()
        tensors[prompt.word + _MASK] = prompt.attention_mask.cpu().contiguous()
    path = folder / PROMPTS_FILE
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"schema": "1"})
    return path


def load_prompts(source: str | Path) -> dict[str, PromptEmbedding]:
    """Read every stored prompt of a model.

    Raises:
        CheckpointError: The model has no prompt file, or it is damaged, or was made for a model of another width.
    """
    path = find_file(source, PROMPTS_FILE)
    if path is None:
        raise CheckpointError(
            source,
            f"has no {PROMPTS_FILE}",
            "the embeddings of its words",
            _how_to_store(source),
        )
    try:
        with safe_open(path, framework="pt") as file:
            words = sorted(key.removesuffix(_EMBEDDING) for key in file.keys() if key.endswith(_EMBEDDING))  # noqa: SIM118
            prompts = {
                word: PromptEmbedding(word, file.get_tensor(word + _EMBEDDING), file.get_tensor(word + _MASK))
                for word in words
            }
    except SafetensorError as error:
        raise CheckpointError(path, f"is damaged ({error})", "stored prompts", "Make the file again.") from error
    expected = (1, TOKENS, load_config(source).detector_config.detr_encoder_config.hidden_size), (1, TOKENS)
    for word, prompt in prompts.items():
        found = tuple(prompt.embedding.shape), tuple(prompt.attention_mask.shape)
        if found != expected:
            raise CheckpointError(
                path,
                f"holds {word!r} with an embedding {found[0]} and a mask {found[1]}",
                f"{expected[0]} and {expected[1]} for this model",
                "Store the prompts with this model's own text encoder.",
            )
    return prompts


def _how_to_store(source: str | Path) -> str:
    """Say how words get beside a model; one of the hub needs a folder of its own first."""
    if Path(source).is_dir():
        folder, before = str(source), "Make them once"
    else:
        folder = str(source).rpartition("/")[2]
        before = f"Run `hf download {source} --local-dir {folder}`, name {folder} instead, and make them once"
    call = f"save_prompts(Path({folder!r}), compute_prompts({folder!r}, ['pig']))"
    return f"{before} in Python, with pl_distill.models.prompts: {call}."


def choose_prompt(prompts: Mapping[str, PromptEmbedding], word: str) -> PromptEmbedding:
    """Return the prompt for a word.

    Raises:
        ConfigError: It is not stored; the message lists the words that are.
    """
    if word not in prompts:
        raise ConfigError(
            "prompt",
            f"is {word!r}",
            f"one of the stored words: {', '.join(sorted(prompts)) or 'none'}",
            "Choose one of them, or store this word's embedding beside the model.",
        )
    return prompts[word]
