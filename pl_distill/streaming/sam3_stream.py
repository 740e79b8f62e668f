"""SAM 3 with its habits corrected: clean masks, undisturbed memories, a limit that says so, and evidence about tracks.

Source: transformers, models/sam3_video/modeling_sam3_video.py; each method here calls the one it replaces, and no
weight is copied. What differs is described in `PruningPolicy`, where each difference can be switched off.
"""

import copy
import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Sam3VideoModel

from pl_distill.models.sam3 import shallow_twin
from pl_distill.models.sam3_lean import LeanNeck
from pl_distill.streaming.assignment import Association, Thresholds, one_to_one
from pl_distill.streaming.lean_activations import lean_mask_decoder, lean_tracker
from pl_distill.streaming.mask_cleaning import fill_holes, mask_iou_matrix, nms_masks
from pl_distill.streaming.policy import PruningPolicy
from pl_distill.streaming.rebinding import rebound
from pl_distill.streaming.session import StreamingSession

logger = logging.getLogger(__name__)
_associate = rebound(Sam3VideoModel._associate_det_trk, mask_iou=mask_iou_matrix)
# our own functions for what transformers skips without the package `kernels`
_detect_once = rebound(Sam3VideoModel.run_detection, nms_masks=nms_masks)
_propagate_filled = rebound(Sam3VideoModel.run_tracker_propagation, fill_holes_in_mask_scores=fill_holes)
_build_filled = rebound(Sam3VideoModel.build_outputs, fill_holes_in_mask_scores=fill_holes)


@dataclass(frozen=True)
class Evidence:
    """What one frame says for and against the tracks that were alive before it; each a set of ids.

    Args:
        matched: A detection confirms it.
        unmatched: Has a mask but no detection that fits it well. One that fits loosely confirms it all the same: such a
            track is in both sets.
        empty: Has no mask.
    """

    matched: frozenset[int] = frozenset()
    unmatched: frozenset[int] = frozenset()
    empty: frozenset[int] = frozenset()


class Sam3Stream(Sam3VideoModel):  # type: ignore[misc]  # transformers is untyped
    """A `Sam3VideoModel` for streams; made by `of`, never from a configuration."""

    policy: PruningPolicy
    evidence: Evidence
    detected: dict[int, Tensor]
    """Track -> box of the detection that confirms or begins it in the newest frame: left, top, right, bottom, 0-1."""
    _at_limit: bool

    @classmethod
    def of(cls, model: Any, policy: PruningPolicy) -> "Sam3Stream":
        """Return a view of `model` that shares all of its tensors; `model` stays as it is."""
        view: Sam3Stream = shallow_twin(model)
        view.__class__ = cls
        view.policy = policy
        view.evidence = Evidence()
        view.detected = {}
        view.max_num_objects = min(model.max_num_objects, policy.max_objects)
        view._at_limit = False
        if policy.lean_necks:
            view.detector_model = shallow_twin(model.detector_model)
            view.detector_model.vision_encoder = shallow_twin(model.detector_model.vision_encoder)
            view.detector_model.vision_encoder.neck = LeanNeck(model.detector_model.vision_encoder.neck)
            view.tracker_neck = LeanNeck(model.tracker_neck)
        if policy.lean_activations:
            view.detector_model = shallow_twin(view.detector_model)
            view.detector_model.mask_decoder = lean_mask_decoder(model.detector_model.mask_decoder)
            view.tracker_model = lean_tracker(model.tracker_model)
        return view

    def get_vision_features_for_tracker(self, vision_embeds: Any) -> tuple[list[Tensor], list[Tensor]]:
        """Give the tracker its levels; the detector has run, and nobody reads `vision_embeds` afterwards."""
        if self.policy.lean_activations:
            vision_embeds.fpn_hidden_states = vision_embeds.fpn_position_encoding = ()
        found: tuple[list[Tensor], list[Tensor]] = super().get_vision_features_for_tracker(vision_embeds)
        if self.policy.lean_activations:
            vision_embeds.last_hidden_state = vision_embeds.last_hidden_state.new_empty(0)
        return found

    def run_detection(self, *given: Any, **named: Any) -> Any:
        """Detect, each animal once."""
        detect = _detect_once if self.policy.suppress_duplicates else Sam3VideoModel.run_detection
        return detect(self, *given, **named)

    def run_tracker_propagation(self, *given: Any, **named: Any) -> Any:
        """Follow the tracks, their masks without holes."""
        propagate = _propagate_filled if self.policy.fill_holes else Sam3VideoModel.run_tracker_propagation
        return propagate(self, *given, **named)

    def build_outputs(self, *, det_out: dict[str, Tensor], tracker_update_plan: dict[str, Any], **named: Any) -> Any:
        """Gather the masks of a frame, without holes, and note the boxes of their detections."""
        confirmed = tracker_update_plan["det_to_matched_trk_obj_ids"].items()
        begun = zip(tracker_update_plan["new_det_obj_ids"], tracker_update_plan["new_det_out_inds"], strict=True)
        pairs = [*((track, number) for number, tracks in confirmed for track in tracks), *begun]
        self.detected = {int(track): det_out["bbox"][number] for track, number in pairs}
        build = _build_filled if self.policy.fill_holes else Sam3VideoModel.build_outputs
        return build(self, det_out=det_out, tracker_update_plan=tracker_update_plan, **named)

    # the same numbers as transformers' own mask_iou, in a hundredth of the memory
    _get_objects_to_suppress_based_on_most_recently_occluded = rebound(
        Sam3VideoModel._get_objects_to_suppress_based_on_most_recently_occluded, mask_iou=mask_iou_matrix
    )

    def _associate_det_trk(self, det_masks: Tensor, det_scores: Tensor, **others: Any) -> Any:
        """Match, and drop new animals beyond the limit before transformers does so with a warning in every frame."""
        loose = Association(*_associate(self, det_masks=det_masks, det_scores=det_scores, **others))
        if self.policy.one_to_one and loose.matched:
            loose = self._one_to_one(loose, det_masks, det_scores, **others)
        new, *rest = loose
        room = max(self.max_num_objects - len(others["trk_obj_ids"]), 0)
        if len(new) > room:
            if not self._at_limit:
                logger.warning(
                    "%d animals are tracked, the limit: %d new ones are ignored, and so are others until one ends",
                    self.max_num_objects,
                    len(new) - room,
                )
            best = torch.topk(det_scores[torch.tensor(new, device=det_scores.device)], k=room).indices
            new = [new[index] for index in best.tolist()]
            self._at_limit = True
        elif room > 0:
            self._at_limit = False
        return (new, *rest)

    def _one_to_one(
        self,
        loose: Association,
        det_masks: Tensor,
        det_scores: Tensor,
        trk_masks: Tensor,
        trk_obj_ids: list[int],
        det_prompt_ids: Tensor,
        trk_prompt_ids: Tensor,
    ) -> Association:
        of_one_prompt = det_prompt_ids[:, None] == trk_prompt_ids[None]
        overlap = mask_iou_matrix(det_masks > 0, trk_masks > 0) * of_one_prompt
        limits = Thresholds(
            self.assoc_iou_thresh, self.trk_assoc_iou_thresh, self.high_iou_thresh, self.high_conf_thresh
        )
        return one_to_one(loose, overlap.cpu().numpy(), det_scores.float().cpu().numpy(), trk_obj_ids, limits)

    def _process_hotstart(self, **arguments: Any) -> Any:
        """Note what transformers knows about the tracks here and forgets."""
        result = super()._process_hotstart(**arguments)
        matches = arguments["det_to_matched_trk_obj_ids"].values()
        self.evidence = Evidence(
            matched=frozenset(int(track) for tracks in matches for track in tracks),
            unmatched=frozenset(arguments["unmatched_trk_obj_ids"]),
            empty=frozenset(arguments["empty_trk_obj_ids"]),
        )
        return result

    def run_memory_encoder(
        self,
        inference_session: StreamingSession,
        frame_idx: int,
        high_res_masks: Tensor,
        object_score_logits: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Encode the memories of all animals; masks and scores have one row for each."""
        encode = super().run_memory_encoder
        if not self.policy.encode_singly:
            both: tuple[Tensor, Tensor] = encode(inference_session, frame_idx, high_res_masks, object_score_logits)
            return both
        singles = [
            encode(inference_session, frame_idx, high_res_masks[row : row + 1], object_score_logits[row : row + 1])
            for row in range(len(high_res_masks))
        ]
        features = torch.cat([features for features, _ in singles], dim=1)  # (h*w, N, C)
        return features, singles[0][1].expand(features.shape)  # positions do not depend on the animal

    def _tracker_add_new_objects(
        self,
        inference_session: StreamingSession,
        frame_idx: int,
        new_obj_ids: list[int],
        new_obj_masks: Tensor,
        reverse: bool = False,
    ) -> None:
        """Begin new animals; the tracker is shown a session of them alone."""
        if not self.policy.protect_memories:
            super()._tracker_add_new_objects(inference_session, frame_idx, new_obj_ids, new_obj_masks, reverse)
            return
        if self.policy.encode_singly and len(new_obj_ids) > 1:
            for row, new in enumerate(new_obj_ids):
                self._tracker_add_new_objects(
                    inference_session, frame_idx, [new], new_obj_masks[row : row + 1], reverse
                )
            return
        positions = [inference_session.obj_id_to_idx(new) for new in new_obj_ids]
        newborn = copy.copy(inference_session)
        newborn.obj_ids = list(new_obj_ids)
        newborn._obj_id_to_idx = {new: number for number, new in enumerate(new_obj_ids)}
        newborn._obj_idx_to_id = dict(enumerate(new_obj_ids))
        for name in ("mask_inputs_per_obj", "point_inputs_per_obj", "output_dict_per_obj", "frames_tracked_per_obj"):
            entries = getattr(inference_session, name)
            # other keys, the same inner dictionaries: what the tracker writes arrives in the real session
            setattr(newborn, name, {number: entries[position] for number, position in enumerate(positions)})
        super()._tracker_add_new_objects(newborn, frame_idx, new_obj_ids, new_obj_masks, reverse)
