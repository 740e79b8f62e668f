"""Whether words find what they mean and nothing else: average precision of boxes by word, false alarms of absent words.

Single pictures, no tracking: what the detector of a SAM 3 says before any track exists.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torchvision.ops import box_iou
from transformers.modeling_outputs import BaseModelOutputWithPooling

from datamodules.clip import Image
from datamodules.preprocessing import Preprocessing
from pl_distill.evaluation.average_precision import BoxScores
from pl_distill.models.prompts import PromptEmbedding


@dataclass(frozen=True)
class Labelled:
    """A picture with everything in it that the words mean.

    Args:
        image: RGB.
        boxes_xyxy: By word, (N, 4) in pixels; a word that is left out is in no way present.
    """

    image: Image
    boxes_xyxy: Mapping[str, Any]


@dataclass(frozen=True)
class WordScores:
    """Percentages, 0-100.

    Args:
        ap50: By word that means something, average precision of its boxes at IoU 0.5; NaN where none was to be found.
        false_alarms: By word that means nothing, part of pictures in which it gave a detection.
        pictures: How many pictures were looked at.
        threshold: What a score of 0-1 has to exceed to count as a detection.
    """

    ap50: Mapping[str, float]
    false_alarms: Mapping[str, float]
    pictures: int
    threshold: float


@torch.no_grad()
def score_words(
    model: Any,
    prompts: Sequence[PromptEmbedding],
    pictures: Iterable[Labelled],
    preprocessing: Preprocessing,
    *,
    present: Sequence[str],
    threshold: float,
) -> WordScores:
    """Ask every picture for every word.

    Args:
        model: A `Sam3VideoModel`, as `load_sam3` gives it.
        prompts: The words' embeddings.
        pictures: What to look at.
        preprocessing: The model's.
        present: Those of the words that mean something; the others are absent from every picture.
        threshold: What a score has to exceed, as a detection of the stream does, to make an absent word's false alarm.
    """
    detector = model.detector_model
    scores = {prompt.word: BoxScores() for prompt in prompts if prompt.word in present}
    alarms = {prompt.word: 0 for prompt in prompts if prompt.word not in present}
    count = 0
    for picture in pictures:
        count += 1
        height, width = picture.image.shape[:2]
        vision = detector.get_vision_features(preprocessing(picture.image)[None])
        for prompt in prompts:
            found = detector(
                vision_embeds=vision,
                text_embeds=BaseModelOutputWithPooling(pooler_output=prompt.embedding),
                attention_mask=prompt.attention_mask,
            )
            score = (found.pred_logits[0].sigmoid() * found.presence_logits[0].sigmoid()).double().numpy()
            if prompt.word in alarms:
                alarms[prompt.word] += int(score.max() > threshold)
                continue
            truth = torch.as_tensor(np.asarray(picture.boxes_xyxy.get(prompt.word, np.zeros((0, 4))), np.float32))
            size = torch.tensor([width, height, width, height])
            overlaps = box_iou(found.pred_boxes[0].float() * size, truth.view(-1, 4))
            scores[prompt.word].add(score, overlaps.double().numpy())
    return WordScores(
        {word: counted.average_precision() for word, counted in scores.items()},
        {word: 100 * number / max(count, 1) for word, number in alarms.items()},
        count,
        threshold,
    )
