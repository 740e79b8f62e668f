"""A stream whose pictures are never looked at: every frame shows the same number of animals, so that it runs on fakes.

The stages of `Sam3VideoModel._det_track_one_frame` (transformers, models/sam3_video) in their order, with the model's
own modules, the session and its pruning as `StreamingTracker` has them. Left out is what depends on what is seen:
thresholds, suppression of duplicates, matching and hole filling, which work on a few masks of 288 x 288.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pl_distill.models.prompts import TOKENS, PromptEmbedding
from pl_distill.models.sam3 import Sam3Geometry, shallow_twin
from pl_distill.streaming.policy import PruningPolicy
from pl_distill.streaming.postprocess import at_frame_size
from pl_distill.streaming.sam3_stream import Sam3Stream
from pl_distill.streaming.session import StreamingSession

STAGES = ("vision encoder", "detector", "tracker")
CAMERA = (720, 1280)  # height and width of a frame; that of the Edinburgh pigs


class ScriptedStream:
    """Streams empty pictures in which `animals` animals are always found and never lost.

    Args:
        model: A `Sam3VideoModel` as it is deployed: the prompt is a stored embedding.
        animals: Tracked from the first frame on.
        policy: What the session forgets.
        enter: Called with the name of each stage when it begins.
    """

    def __init__(
        self, model: Any, animals: int, policy: PruningPolicy, enter: Callable[[str], None] = lambda _stage: None
    ) -> None:
        weight = next(model.parameters())
        width = model.config.detector_config.detr_encoder_config.hidden_size
        prompt = PromptEmbedding("animal", torch.zeros(1, TOKENS, width), torch.ones(1, TOKENS, dtype=torch.long))
        self.model = _OnePrompt.of(model, policy)
        self.session = StreamingSession(model.config, prompt, policy, device=weight.device, dtype=weight.dtype)
        self.animals = animals
        self.enter = enter
        self.frames = 0
        size = Sam3Geometry.of(model.config).image_size
        self._picture = torch.zeros(3, size, size, device=weight.device, dtype=weight.dtype)

    @torch.inference_mode()
    def step(self) -> list[Tensor]:
        """Take one frame; return the animals' masks (H, W) at the camera's size."""
        index, session, model = self.frames, self.session, self.model
        self.enter("vision encoder")
        session.add_new_frame(self._picture, index)
        pixels = session.get_frame(index)[None]
        embeds = model.detector_model.get_vision_features(pixel_values=pixels)
        self.enter("detector")
        detected = self._detect(embeds)
        self.enter("tracker")
        features, positions = model.get_vision_features_for_tracker(vision_embeds=embeds)
        session.cache.cache_vision_features(index, {"vision_feats": features, "vision_pos_embeds": positions})
        masks, _ = model.run_tracker_propagation(session, frame_idx=index, reverse=False)
        model._tracker_update_memories(session, index, masks)
        if index == 0 and self.animals:
            ids = list(range(self.animals))
            for new in ids:
                session.obj_id_to_idx(new)
                session.obj_id_to_prompt_id[new] = 0
            model._tracker_add_new_objects(session, index, ids, detected)
            masks = detected
        shown = [at_frame_size(mask[None], *CAMERA) for mask in masks]
        session.prune(index)
        self.frames += 1
        return shown

    @torch.inference_mode()
    def fast_forward(self, frames: int) -> None:
        """Let time pass without a computation, after the first step: every frame leaves what the first has left.

        Every n-th frame the detector puts all animals right, as it does with those that it sees well: their outputs
        become conditioning frames, of which the tracker reads several beside its newest memories. At the end they are
        badly seen for as long as it has memories: then it keeps, and reads, the most.

        Args:
            frames: How many frames the stream has then had.
        """
        every, last = self.model.recondition_every_nth_frame, frames - self.session.window.memories
        for history in self.session.output_dict_per_obj.values():
            first = history["cond_frame_outputs"][0]
            for index in range(self.frames, frames):
                seen_well = every > 0 and index % every == 0 and index < last
                kind = "cond_frame_outputs" if seen_well else "non_cond_frame_outputs"
                history[kind][index] = {key: value.clone() for key, value in first.items()}
        for index in range(self.frames, frames):
            self.session.add_new_frame(self._picture, index)
        self.frames = max(self.frames, frames)
        self.session.prune(self.frames - 1)

    def _detect(self, embeds: Any) -> Tensor:
        output = self.model.detector_model(
            vision_embeds=embeds,
            text_embeds=self.session.prompt_embeddings[0],
            attention_mask=self.session.prompt_attention_masks[0],
        )
        found = output.pred_masks[0]  # (queries, h, w): with more animals than queries some share a mask
        masks: Tensor = found[[number % len(found) for number in range(self.animals)]]
        return masks


class _OnePrompt(Sam3Stream):
    """Skips what needs to look: transformers asks each animal for its prompt, and there is only one here."""

    @classmethod
    def of(cls, model: Any, policy: PruningPolicy) -> "_OnePrompt":
        view: _OnePrompt = super().of(model, policy)
        view.__class__ = _OnePrompt
        view.fill_hole_area = 0
        view.detector_model = shallow_twin(view.detector_model)
        view.detector_model.detr_decoder = shallow_twin(model.detector_model.detr_decoder)
        # transformers reads the grid's size back from the device, where a fake tensor has no values
        view.detector_model.detr_decoder._get_coords = partial(_coordinates, Sam3Geometry.of(model.config).grid)
        return view

    def _suppress_object_pw_area_shrinkage(self, pred_masks: Tensor, prompt_ids: list[int] | None = None) -> Tensor:
        grouped = pred_masks.clone()
        grouped[:] = self._suppress_object_pw_area_shrinkage_impl(pred_masks.clone())
        return grouped


def _coordinates(
    grid: int, _height: Tensor, _width: Tensor, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    along = torch.arange(grid, device=device, dtype=dtype) / grid
    return along, along.clone()
