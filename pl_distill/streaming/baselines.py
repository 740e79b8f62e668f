"""Simpler trackers on the same network, to show what streaming with memory and pruning is worth.

`StockTracker` is SAM 3 as transformers runs it: nothing is forgotten, no track ends. `DetectionTracker` has no memory
at all: it finds the animals anew in every frame and joins boxes that overlap, as SORT does without its motion model
(Bewley et al., arXiv 1602.00763).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_iou
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.sam3_video.modeling_sam3_video import Sam3VideoInferenceSession
from transformers.utils import logging as transformers_logging

from datamodules.clip import Image
from datamodules.preprocessing import Preprocessing
from pl_distill.models.prompts import PromptEmbedding
from pl_distill.streaming.policy import PruningPolicy
from pl_distill.streaming.postprocess import Tracks, at_frame_size, box_around, to_tracks, without_overlap
from pl_distill.streaming.sam3_stream import Sam3Stream
from pl_distill.streaming.session import StreamingSession


class StockTracker:
    """SAM 3 with transformers' own session and model, none of our corrections: memory grows with every frame.

    Args:
        model: A `Sam3VideoModel`; it is used as it is.
        prompt: What to look for.
        preprocessing: What the model expects of its input.
    """

    def __init__(self, model: Any, prompt: PromptEmbedding, preprocessing: Preprocessing) -> None:
        self.model, self.prompt, self.preprocessing = model, prompt, preprocessing
        parameter = next(model.parameters())
        self._device, self._dtype = parameter.device, parameter.dtype
        self.reset()

    def update(self, frame: Image, timestamp_s: float) -> Tracks:
        """Take the next frame, RGB (H, W, 3), uint8, and return its tracks; the time does not matter."""
        verbosity = transformers_logging.get_verbosity()
        transformers_logging.set_verbosity_error()  # at the limit of animals it warns in every frame
        try:
            pixels = self.preprocessing(frame)
            output = self.model(inference_session=self.session, frame=pixels, frame_idx=self.frames)
        finally:
            transformers_logging.set_verbosity(verbosity)
        self.frames += 1
        return to_tracks(output, frame.shape[0], frame.shape[1])

    def reset(self) -> None:
        """Begin another video."""
        self.frames = 0
        self.session = Sam3VideoInferenceSession(
            inference_device=self._device,
            inference_state_device=self._device,
            video_storage_device=self._device,
            dtype=self._dtype,
        )
        number = self.session.add_prompt(self.prompt.word)
        embedding = self.prompt.embedding.to(self._device, self._dtype)
        self.session.prompt_embeddings[number] = BaseModelOutputWithPooling(pooler_output=embedding)
        self.session.prompt_attention_masks[number] = self.prompt.attention_mask.to(self._device)

    def session_bytes(self) -> int:
        """Return the bytes of all tensors that are kept from frame to frame."""
        return StreamingSession.tensor_bytes(self.session)

    def close(self) -> None:
        """Let go of all memory."""
        self.reset()


@dataclass
class _Followed:
    box_xyxy: NDArray[np.float32]
    unmatched: int = 0


LEAST_IOU = 0.3
"""Of an animal's boxes in two frames; SORT's value."""


class DetectionTracker:
    """The detector of SAM 3 in every frame, joined by the overlap of boxes: no memory, no tracker network.

    Thresholds of detections are those in the model's configuration, as for the tracker with memory, and duplicates are
    suppressed alike.

    Args:
        model: A `Sam3VideoModel`; it is neither changed nor copied.
        prompt: What to look for.
        preprocessing: What the model expects of its input.
        patience: An identity ends after so many frames without a detection.
    """

    def __init__(
        self,
        model: Any,
        prompt: PromptEmbedding,
        preprocessing: Preprocessing,
        patience: int = 6,
    ) -> None:
        policy = PruningPolicy(retirement=None)
        self.model = Sam3Stream.of(model, policy)
        self.preprocessing, self.patience = preprocessing, patience
        parameter = next(model.parameters())
        self._session = StreamingSession(
            model.config, prompt, policy, device=parameter.device, dtype=parameter.dtype
        )  # holds the prompt, and nothing else ever
        self.reset()

    def update(self, frame: Image, timestamp_s: float) -> Tracks:
        """Take the next frame, RGB (H, W, 3), uint8, and return its tracks; the time does not matter."""
        height, width = frame.shape[:2]
        logits, scores = self._detect(frame)
        masks = [at_frame_size(one[None], height, width) for one in logits]
        boxes = [box_around(mask) for mask in masks]
        found = [row for row, box in enumerate(boxes) if box is not None]
        if not found:
            self._join(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
            return Tracks.nothing(height, width)
        shown = np.array([boxes[row] for row in found], np.float32)
        confidence = scores[found].float().cpu().numpy()
        ids = self._join(shown, confidence)
        order = sorted((row for row in range(len(found)) if ids[row] is not None), key=lambda row: ids[row] or 0)
        if not order:
            return Tracks.nothing(height, width)
        separated = without_overlap([masks[found[row]] for row in order], [float(confidence[row]) for row in order])
        return Tracks(
            ids=tuple(ids[row] or 0 for row in order),
            boxes_xyxy=shown[order],
            scores=confidence[order],
            masks=np.stack([mask.cpu().numpy() for mask in separated]),
        )

    def reset(self) -> None:
        """Begin another video."""
        self._followed: dict[int, _Followed] = {}
        self._next = 0

    def session_bytes(self) -> int:
        """Return the bytes of all tensors that are kept from frame to frame: those of the prompt."""
        return self._session.tensor_bytes()

    def close(self) -> None:
        """Let go of all tracks."""
        self.reset()

    @torch.inference_mode()
    def _detect(self, frame: Image) -> tuple[Tensor, Tensor]:
        """Return masks, logits (N, h, w), and scores (N,)."""
        device, dtype = self._session.inference_device, self._session.dtype
        pixels = self.preprocessing(frame).to(device, dtype)
        vision = self.model.detector_model.get_vision_features(pixel_values=pixels[None])
        (found,) = self.model.run_detection(self._session, vision).values()
        return found["mask"], found["scores"]

    def _join(self, boxes: NDArray[np.float32], scores: NDArray[np.float32]) -> list[int | None]:
        """Give each box (N, 4) the identity that it goes on with, a new one, or None where its score is too low."""
        ids: list[int | None] = [None] * len(boxes)
        live = list(self._followed)
        if live and len(boxes):
            old = torch.from_numpy(np.stack([self._followed[track].box_xyxy for track in live]))
            iou = box_iou(torch.from_numpy(boxes), old).numpy()
            for row, column in zip(*linear_sum_assignment(iou, maximize=True), strict=True):
                if iou[row, column] >= LEAST_IOU:
                    ids[row] = live[column]
        for row, box in enumerate(boxes):
            if ids[row] is None and scores[row] >= self.model.new_det_thresh:
                ids[row] = self._next
                self._next += 1
            track = ids[row]
            if track is not None:
                self._followed[track] = _Followed(box, -1)
        for track in list(self._followed):
            self._followed[track].unmatched += 1
            if self._followed[track].unmatched > self.patience:
                del self._followed[track]
        return ids
