"""A SAM 3 to be trained: from scratch by a configuration, or from the weights of one that exists.

What differs from `load_sam3`: the text encoder stays, tokenizer and processor come along, and `save_sam3` writes a
folder that `load_sam3`, `load_preprocessing` and `load_prompts` read like any other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Sam3VideoModel, Sam3VideoProcessor

from datamodules.files import atomic_directory
from pl_distill.assets import shipped_models
from pl_distill.errors import CheckpointError
from pl_distill.models.prompts import PROMPTS_FILE, TOKENS, embed_words, load_prompts, save_prompts
from pl_distill.models.sam3_config import load_sam3_config, shipped_configs
from pl_distill.models.sam3_initialise import initialise_detector
from pl_distill.models.sam3_load import load_sam3
from pl_distill.models.sam3_random import randomise, sam3_processor
from pl_distill.models.sam3_source import check_source, quiet_transformers


@dataclass(frozen=True)
class TrainableSam3:
    """A model with what turns words and pictures into its input.

    Args:
        model: `transformers.Sam3VideoModel` without geometry encoder, in float32.
        processor: `transformers.Sam3VideoProcessor`.
    """

    model: Any
    processor: Any

    def tokenize(self, words: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Map N words to token ids and attention mask, (N, 32) each."""
        tokens = self.processor.tokenizer(
            list(words), return_tensors="pt", padding="max_length", max_length=TOKENS, truncation=True
        )
        return tokens.input_ids, tokens.attention_mask


def open_sam3(source: str, *, attention: str = "sdpa") -> TrainableSam3:
    """Build or load a model for training.

    Args:
        source: To start from scratch, a shipped configuration (``pen``) or a YAML file; to go on, a folder or
            hub name.
        attention: `transformers`' implementation; "eager" is faster on CPUs for hundreds of tokens, not for thousands.

    Raises:
        ConfigError: The configuration is none.
        CheckpointError: The folder is no SAM 3 with text encoder and processor.
    """
    if source in shipped_configs() or source.endswith((".yaml", ".yml")):
        config = load_sam3_config(source)
        model: Any = Sam3VideoModel(config)
        detector = {name: tensor.clone() for name, tensor in model.detector_model.state_dict().items()}
        randomise(model)
        model.detector_model.load_state_dict(detector)
        initialise_detector(model.detector_model)
        processor: Any = sam3_processor(config)
    else:
        model = load_sam3(source, text_encoder=True)
        try:
            processor = Sam3VideoProcessor.from_pretrained(check_source(source))
        except (OSError, ValueError) as error:
            raise CheckpointError(
                source,
                "has no processor",
                "tokenizer and image processor beside the weights",
                "Copy their files from the model's origin.",
            ) from error
    model.detector_model.geometry_encoder = None  # for box prompts, which nothing here gives
    with quiet_transformers():
        model.set_attn_implementation(attention)
    return TrainableSam3(model, processor)


def stored_words(source: str) -> list[str]:
    """Return the words whose embeddings lie beside a model, sorted; none for a configuration or a hub name.

    Raises:
        CheckpointError: The file of words is damaged.
    """
    folder = Path(shipped_models().get(source, source))
    if source in shipped_configs() or not (folder / PROMPTS_FILE).is_file():
        return []
    return sorted(load_prompts(folder))


def save_sam3(opened: TrainableSam3, folder: Path, words: Sequence[str], *, dtype: torch.dtype = torch.float32) -> Path:
    """Write model, processor and the embeddings of some words; the folder is replaced as a whole.

    Args:
        opened: The model, on any device; it is left as it is.
        folder: Where to.
        words: Whose embeddings are stored.
        dtype: Of the stored weights.
    """
    with atomic_directory(folder, replace=True) as temporary:
        weights = {name: tensor.detach().to("cpu", dtype) for name, tensor in opened.model.state_dict().items()}
        with quiet_transformers():
            opened.model.save_pretrained(temporary, state_dict=weights)
            opened.processor.save_pretrained(temporary)
        save_prompts(temporary, embed_words(opened.model, opened.processor.tokenizer, words))
    return folder
