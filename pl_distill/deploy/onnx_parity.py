"""Whether a graph gives what the network gives that it was made from.

A graph that disagrees is not written: "PASSED" of a converter says that a file was built, not that it is right
(docs/deployment.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.errors import UserError
from pl_distill.deploy.onnx_graph import WEIGHT_BYTES, Exportable, Inputs, Precision, index_bits, open_graph
from pl_distill.evaluation.models import count_parameters

LEAST_COSINE = {"fp32": 0.9999, "fp16": 0.999}
LEAST_MASK_IOU = {"fp32": 0.999, "fp16": 0.99}
MOST_SCORE_CHANGE = {"fp32": 0.001, "fp16": 0.02}
MOST_DIFFERENCE = {"fp32": 1e-3, "fp16": 0.05}  # over the output's largest value: a cosine does not see its scale
"""What parity asks for; int8 is reported, not promised."""
BEST = 8  # queries of a picture, those with the highest scores
MOST_SIZE = 1.2  # times the weights, where all of them are of the precision's size


class ParityError(UserError):
    """An exported graph does not give what the network gives, or is not made as it should be."""


@dataclass(frozen=True)
class OutputParity:
    """One output of a graph against the eager network in float32.

    Args:
        name: Of the output.
        largest_difference: Of a value, over all inputs.
        relative_difference: The same over the output's largest value.
        cosine: Of each picture's or animal's output, the least of all.
    """

    name: str
    largest_difference: float
    relative_difference: float
    cosine: float


@dataclass(frozen=True)
class GraphFile:
    """How a graph lies on disk.

    Args:
        size_bytes: Of the file.
        weights_bytes: Of the network's parameters in its precision.
        index_bits: Widths of its tables of integers.
    """

    size_bytes: int
    weights_bytes: int
    index_bits: frozenset[int]

    @classmethod
    def of(cls, path: Path, what: Exportable, precision: Precision) -> "GraphFile":
        """Look at a file."""
        weights = count_parameters(what.network) * WEIGHT_BYTES[precision]
        return cls(path.stat().st_size, weights, frozenset(index_bits(path)))

    @property
    def ratio(self) -> float:
        """File over weights."""
        return self.size_bytes / self.weights_bytes

    def check(self, path: Path, precision: Precision) -> None:
        """Refuse what a device should not have to load.

        Raises:
            ParityError: Tables of int64, which TensorRT casts, or in fp32 and fp16 a file above `MOST_SIZE`.
        """
        fix = "Look at the graph; --keep_failing true writes it as it is."
        if 64 in self.index_bits:
            raise ParityError(path, "would hold tables of int64", "tables of int32", fix)
        if precision in LEAST_COSINE and self.ratio > MOST_SIZE:
            found = f"would be {self.size_bytes:,} bytes, {self.ratio:.2f} times the weights"
            raise ParityError(path, found, f"at most {MOST_SIZE} times", fix)


def compare(what: Exportable, path: Path, inputs: Sequence[Inputs]) -> list[OutputParity]:
    """Run inputs through the eager network in float32 and through a graph."""
    run, names = open_graph(path), what.outputs
    largest, scale, cosine = ([value] * len(names) for value in (0.0, 0.0, 1.0))
    with torch.inference_mode():
        for values in inputs:
            for number, (ours, theirs) in enumerate(zip(what(values), run(values), strict=True)):
                difference = float((ours - theirs).abs().max())
                largest[number] = float(np.maximum(largest[number], difference))  # keeps NaN, as `max` does not
                scale[number] = max(scale[number], float(ours.abs().max()))
                angles = F.cosine_similarity(ours.double().flatten(1), theirs.double().flatten(1))
                cosine[number] = float(np.minimum(cosine[number], float(angles.min())))
    relative = [difference / max(size, 1e-30) for difference, size in zip(largest, scale, strict=True)]
    return [OutputParity(*figures) for figures in zip(names, largest, relative, cosine, strict=True)]


@dataclass(frozen=True)
class HeadsAgreement:
    """What the real heads make of a graph's levels against what they make of the network's.

    Args:
        mask_iou: Mean over masks that are not empty in both, 0 to 1; NaN where all are.
        score_change: Of a query, 0 to 1, the largest; one that the network thinks nothing of may be a false detection.
    """

    mask_iou: float
    score_change: float

    def __str__(self) -> str:
        return f"{self.mask_iou:.5f}, largest change of a score {self.score_change:.5f}"


@torch.inference_mode()
def heads_agreement(sam3: Any, exported: Any, prompt: Any, pictures: Sequence[Tensor]) -> HeadsAgreement:
    """Compare all queries' scores behind both encoders, and the masks of each picture's `BEST` in the eager model.

    Args:
        sam3: With the eager encoder.
        exported: The same with an `OnnxVision`.
        prompt: A `PromptEmbedding`.
        pictures: Each (1, 3, S, S).
    """
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    ious, changes = [], []
    for picture in pictures:
        masks, scores, order = [], [], None
        for model in (sam3, exported):
            detector = model.detector_model
            output = detector(
                vision_embeds=detector.get_vision_features(pixel_values=picture),
                text_embeds=BaseModelOutputWithPooling(pooler_output=prompt.embedding),
                attention_mask=prompt.attention_mask,
            )
            if order is None:
                order = output.pred_logits[0].topk(min(BEST, output.pred_logits.shape[1])).indices
            masks.append(output.pred_masks[0][order] > 0)
            scores.append(output.pred_logits[0].sigmoid() * output.presence_logits[0].sigmoid())
        both, either = (masks[0] & masks[1]).flatten(1).sum(1), (masks[0] | masks[1]).flatten(1).sum(1)
        drawn = either > 0
        ious += (both[drawn] / either[drawn]).tolist()
        changes.append(float((scores[0] - scores[1]).abs().max()))
    return HeadsAgreement(float(np.mean(ious)) if ious else float("nan"), float(np.max(changes)))


@torch.inference_mode()
def similarity_change(what: Exportable, path: Path, inputs: Sequence[Inputs]) -> float:
    """Return by how much an embedder's graph changes the similarity of two crops at most: what a pool compares."""
    run = open_graph(path)
    ours = torch.cat([what(values)[0] for values in inputs])
    theirs = torch.cat([run(values)[0] for values in inputs])
    return float((ours @ ours.T - theirs @ theirs.T).abs().max())


@torch.inference_mode()
def same_class(what: Exportable, path: Path, inputs: Sequence[Inputs]) -> float:
    """Return the share of windows, 0-1, to which a head and its graph give the same class."""
    run = open_graph(path)
    same = [what(values)[0].argmax(1) == run(values)[0].argmax(1) for values in inputs]
    return float(torch.cat(same).float().mean())


def check_parity(
    path: Path, precision: Precision, outputs: Sequence[OutputParity], heads: HeadsAgreement | None
) -> None:
    """Refuse a graph that does not give what it should.

    Raises:
        ParityError: An output, a mask or a score is worse than this precision promises, or an output is not finite.
    """
    least_cosine, least_iou = LEAST_COSINE.get(precision), LEAST_MASK_IOU.get(precision)
    fix = "Keep a higher precision, or look at the graph and give --keep_failing true."
    worst = min(outputs, key=lambda one: -1.0 if np.isnan(one.cosine) else one.cosine)
    if np.isnan(worst.cosine) or (least_cosine is not None and worst.cosine < least_cosine):
        found = f"gives {worst.name} with cosine {worst.cosine:.6f} to the network's"
        raise ParityError(path, found, f"at least {least_cosine or 0} in {precision}", fix)
    largest = max(outputs, key=lambda one: one.relative_difference)
    most = MOST_DIFFERENCE.get(precision, float("inf"))
    if largest.relative_difference > most:
        found = f"gives {largest.name} wrong by {largest.relative_difference:.4f} of its largest value"
        raise ParityError(path, found, f"at most {most} in {precision}", fix)
    if heads is None:
        return
    if least_iou is not None and heads.mask_iou < least_iou:
        found = f"gives masks whose mean IoU with the network's is {heads.mask_iou:.5f}"
        raise ParityError(path, found, f"at least {least_iou} in {precision}", fix)
    most = MOST_SCORE_CHANGE.get(precision, 1.0)
    if not heads.score_change <= most:
        found = f"changes the score of a detection by {heads.score_change:.5f}"
        raise ParityError(path, found, f"at most {most} in {precision}", fix)
