"""Write a whole SAM 3 with random weights into a folder, as `save_pretrained` would, for tests without a download.

transformers' own initialisation gives a model that is mute: many tracker parameters are zero, so memory does not reach
the output, and weights of 0.02 in a narrow network leave every query alike. Ours keeps the signal's size from layer to
layer (standard deviation 1/sqrt(fan-in)), separates the queries, and centres the scores of the first word on one drawn
picture, so that about half of the queries find something, in any seed.
"""

import math
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    CLIPTokenizer,
    Sam2VideoVideoProcessor,
    Sam3ImageProcessor,
    Sam3VideoConfig,
    Sam3VideoModel,
    Sam3VideoProcessor,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

from datamodules.files import atomic_directory
from pl_distill.errors import ConfigError
from pl_distill.models.prompts import embed_words, save_prompts
from pl_distill.models.sam3_config import Sam3Geometry, load_sam3_config
from pl_distill.models.sam3_initialise import drawn_picture
from pl_distill.models.sam3_source import quiet_transformers

WORDS = ("pig", "feeder", "toy")
OBJECT_SCORE_BIAS = 2.0  # most objects count as visible in most frames, some do not
PRESENCE_BIAS = 4.0  # the prompted thing is there
QUERY_STD = 3.0  # against about 1 of what the queries all read from text and picture


def write_random_sam3(
    config: str | Path | Sam3VideoConfig, folder: Path, *, seed: int, words: Sequence[str] = WORDS
) -> Path:
    """Write a random SAM 3: config, weights, image processor, tokenizer, prompts. The same seed gives the same bytes.

    Args:
        config: ``tiny``, ``pen``, ``real``, a YAML file, or a configuration.
        folder: Made by this function; appears whole or not at all.
        seed: Of every random number; the global generator is left alone.
        words: Whose embeddings are stored, lower-case letters and spaces; scores are centred for the first.

    Returns:
        `folder`, ready for `load_sam3`, `load_preprocessing` and `load_prompts`.

    Raises:
        ConfigError: The configuration is not one, or `folder` already holds something.
    """
    settings = config if isinstance(config, Sam3VideoConfig) else load_sam3_config(config)
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(folder, "is not empty", "a new folder", "Name another one or delete it.")
    with atomic_directory(folder, replace=False) as temporary:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = Sam3VideoModel(settings)
            randomise(model)
            processor = sam3_processor(settings)
            prompts = embed_words(model, processor.tokenizer, words)
            _centre_scores(model, prompts[0].embedding, prompts[0].attention_mask)
        with quiet_transformers():
            model.save_pretrained(temporary)
            processor.save_pretrained(temporary)
        save_prompts(temporary, prompts)
    return folder


@torch.no_grad()
def randomise(model: Any) -> None:
    """Fill every parameter of a `Sam3VideoModel` from the global generator so that every path has an influence."""
    for name, parameter in model.named_parameters():
        module, _, leaf = name.rpartition(".")
        if isinstance(model.get_submodule(module), nn.LayerNorm | nn.GroupNorm):
            continue  # ones and zeros are right for norms
        if leaf == "scale":
            parameter.fill_(1.0)  # the memory fuser's, which transformers zeroes whatever the configuration says
        elif isinstance(model.get_submodule(module), nn.Embedding) or parameter.ndim < 2 or _is_code(leaf):
            parameter.normal_(std=0.5 if parameter.ndim > 1 else 0.1)
        else:
            parameter.normal_(std=1 / math.sqrt(parameter[0].numel()))
    decoder = model.detector_model.detr_decoder
    decoder.query_embed.weight.normal_(std=QUERY_STD)
    decoder.reference_points.weight.normal_(std=1.0)
    decoder.presence_head.layer3.bias.fill_(PRESENCE_BIAS)
    model.tracker_model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(OBJECT_SCORE_BIAS)


def _is_code(leaf: str) -> bool:
    """Whether a parameter stands for itself (a token, a position code) and multiplies nothing."""
    return "embedding" in leaf or "encoding" in leaf or "pointer" in leaf


def sam3_processor(config: Sam3VideoConfig) -> Any:
    """Return the processor of a model with our letter tokenizer, made without a download."""
    geometry = Sam3Geometry.of(config)
    size = {"height": geometry.image_size, "width": geometry.image_size}
    mask_size = {"height": geometry.mask_size, "width": geometry.mask_size}
    half = [0.5, 0.5, 0.5]
    return Sam3VideoProcessor(
        image_processor=Sam3ImageProcessor(size=size, mask_size=mask_size),
        video_processor=Sam2VideoVideoProcessor(size=size, image_mean=half, image_std=half),
        tokenizer=letter_tokenizer(),
    )


def letter_tokenizer() -> CLIPTokenizer:
    """Return a tokenizer that spells every word but "pig", made without a download: 56 tokens."""
    letters = list(string.ascii_lowercase)
    tokens = [*letters, *(letter + "</w>" for letter in letters), "pi", "pig</w>", "<|startoftext|>", "<|endoftext|>"]
    merges = [("p", "i"), ("pi", "g</w>")]
    return CLIPTokenizer(vocab={token: index for index, token in enumerate(tokens)}, merges=merges)


@torch.no_grad()
def _centre_scores(model: Any, embedding: Tensor, attention_mask: Tensor) -> None:
    """Shift the scoring so that the queries' mean score on one drawn picture is one half."""
    projection = model.detector_model.dot_product_scoring.query_proj
    seen: list[Tensor] = []
    hook = projection.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    size = Sam3Geometry.of(model.config).image_size
    try:
        model.detector_model(
            pixel_values=drawn_picture(size),
            text_embeds=BaseModelOutputWithPooling(pooler_output=embedding),
            attention_mask=attention_mask,
        )
    finally:
        hook.remove()
    last_layer = seen[0][-1]  # (layers, B, queries, D) -> (B, queries, D)
    projection.bias.sub_(last_layer.mean(dim=(0, 1)))
