"""SAM 3's session, and what of it a later frame still reads.

Source: transformers, models/sam3_tracker_video/modeling_sam3_tracker_video.py: `_gather_memory_frame_outputs`,
`_select_closest_cond_frames`, `_get_object_pointers`. The windows below are theirs, and the smallest ones: with one
frame less the output differs or a key is missing. Everything else that a session collects is never read again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Sam3VideoConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.sam3_video.modeling_sam3_video import Sam3VideoInferenceSession

from pl_distill.errors import ConfigError
from pl_distill.models.prompts import PromptEmbedding
from pl_distill.streaming.policy import PruningPolicy

_MEMORY = ("maskmem_features", "maskmem_pos_enc")
_KEPT = ("object_pointer", *_MEMORY)


@dataclass(frozen=True)
class MemoryWindow:
    """How far back the tracker looks, in frames before the one that it is working on.

    Args:
        pointers: Object pointers of tracked frames; 15 at real size.
        memories: Mask memories; 6 at real size.
        conditioning: Conditioning frames whose memory is read, the newest ones; 4 at real size, None for all.
    """

    pointers: int
    memories: int
    conditioning: int | None

    @classmethod
    def of(cls, config: Sam3VideoConfig) -> "MemoryWindow":
        """Read it out of a model's configuration."""
        tracker = config.tracker_config
        limit = tracker.max_cond_frame_num
        return cls(
            pointers=max(tracker.max_object_pointers_in_encoder - 1, 0),
            memories=max(tracker.num_maskmem - 1, 0),
            conditioning=None if limit == -1 else limit,
        )

    def full_after(self, recondition_every: int) -> int:
        """Return after how many frames a session that is pruned holds and reads the most that it ever will.

        Args:
            recondition_every: Every n-th frame may become a conditioning frame; 0: none but an animal's first.

        Raises:
            ConfigError: There is no such frame: it reads all conditioning frames, and their number grows.
        """
        if self.conditioning is None and recondition_every:
            raise ConfigError(
                "max_cond_frame_num", "is -1: memory and time grow with every reconditioned frame", "a limit",
                "Set it in the model's config.json; SAM 3's is 4.",
            )  # fmt: skip
        further = 0 if self.conditioning is None else self.conditioning - 1
        return max(further * recondition_every + self.memories, self.pointers) + 1


class FrameStore(dict[int, Tensor]):
    """Pictures by frame index whose length is that of the video so far, also when old pictures are gone.

    The tracker takes its length for the number of frames, and weighs pointers by it until the window is full.

    Args:
        least: The least length that it admits to.
    """

    def __init__(self, least: int = 0) -> None:
        super().__init__()
        self._length = least

    def __setitem__(self, index: int, picture: Tensor) -> None:
        super().__setitem__(index, picture)
        self._length = max(self._length, index + 1)

    def __len__(self) -> int:
        return self._length


class StreamingSession(Sam3VideoInferenceSession):  # type: ignore[misc]  # transformers is untyped
    """A session without a video that forgets by a policy.

    Args:
        config: Of the model that will use it.
        prompt: What to look for.
        policy: What to forget.
        device: Where everything is.
        dtype: Of the model.

    Raises:
        ConfigError: The policy is to bound what the model does not.
    """

    def __init__(
        self,
        config: Sam3VideoConfig,
        prompt: PromptEmbedding,
        policy: PruningPolicy,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(
            inference_device=device, inference_state_device=device, video_storage_device=device, dtype=dtype
        )
        self.policy = policy
        self.window = MemoryWindow.of(config)
        if policy.mode == "bounded" and self.window.conditioning is None and policy.window_frames is None:
            raise ConfigError(
                "policy.mode", "is bounded, but the model reads all conditioning frames (max_cond_frame_num -1)",
                "a limit of them", "Set policy.window_frames, or max_cond_frame_num in the model's config.json.",
            )  # fmt: skip
        self.processed_frames = FrameStore(self.window.pointers + 1 if policy.full_window else 0)
        self.obj_with_new_inputs: list[int] = []
        self._position: Tensor | None = None
        number = self.add_prompt(prompt.word)
        self.prompt_embeddings[number] = BaseModelOutputWithPooling(pooler_output=prompt.embedding.to(device, dtype))
        self.prompt_attention_masks[number] = prompt.attention_mask.to(device)

    def prune(self, frame_index: int) -> None:
        """Forget what no frame after `frame_index` reads."""
        if self.policy.mode == "none":
            return
        self.processed_frames.clear()
        self.cache.clear_all()
        self._forget_records()
        for history in self.output_dict_per_obj.values():
            self._prune_tracked(history["non_cond_frame_outputs"], frame_index + 1)
            self._prune_conditioning(history["cond_frame_outputs"], frame_index + 1)

    def tensor_bytes(self) -> int:
        """Return the bytes of all tensors that the session keeps alive, each storage counted once."""
        storages = (leaf.untyped_storage() for leaf in _leaves(vars(self)) if isinstance(leaf, Tensor))
        return sum({storage._cdata: storage.nbytes() for storage in storages}.values())

    def python_entries(self) -> int:
        """Return the number of entries in all containers of the session."""
        return sum(1 for _ in _leaves(vars(self)))

    def _forget_records(self) -> None:
        """Empty the records of past frames: read never, or in the frame itself, and copied whole in every frame."""
        for per_object in (self.frames_tracked_per_obj, self.mask_inputs_per_obj):
            for record in per_object.values():
                record.clear()
        self.obj_id_to_tracker_score_frame_wise.clear()
        self.suppressed_obj_ids.clear()
        self.unmatched_frame_inds.clear()
        self.overlap_pair_to_frame_inds.clear()
        live = set(self.obj_ids)
        for by_id in (self.obj_id_to_score, self.obj_first_frame_idx, self.trk_keep_alive):
            for gone in by_id.keys() - live:
                del by_id[gone]

    def _prune_tracked(self, outputs: dict[int, dict[str, Any]], upcoming: int) -> None:
        most = max(self.window.pointers, self.window.memories)
        if self.policy.window_frames is not None:
            most = min(most, self.policy.window_frames)  # whole entries go: the model passes over absent frames
        for index in list(outputs):
            age = upcoming - index
            if age > most:
                del outputs[index]
            else:
                self._prune_entry(outputs[index], keep_memory=age <= self.window.memories)

    def _prune_conditioning(self, outputs: dict[int, dict[str, Any]], upcoming: int) -> None:
        window = self.policy.window_frames
        limit = min(most for most in (len(outputs), self.window.conditioning, window) if most is not None)
        newest = set(sorted(outputs)[len(outputs) - limit :])
        recent = self.window.memories if window is None else min(self.window.memories, window)
        for index in list(outputs):
            keep_memory = index in newest or upcoming - index <= recent
            if not keep_memory and (self.policy.mode == "bounded" or window is not None):
                del outputs[index]
                continue
            self._prune_entry(outputs[index], keep_memory=keep_memory)

    def _prune_entry(self, entry: dict[str, Any], *, keep_memory: bool) -> None:
        for key in entry.keys() - set(_KEPT if keep_memory else _KEPT[:1]):
            del entry[key]
        for key in ("object_pointer", "maskmem_features"):
            if key in entry:
                entry[key] = _alone(entry[key])
        if "maskmem_pos_enc" in entry:
            # The same values for every animal and frame, but transformers makes them anew for every number of animals.
            if self._position is None:
                self._position = entry["maskmem_pos_enc"].clone()
            entry["maskmem_pos_enc"] = self._position


def _alone(tensor: Tensor) -> Tensor:
    """Copy a slice of one animal out of the tensor of all animals, which would stay alive for as long as the slice."""
    return tensor.clone() if tensor.untyped_storage().nbytes() > tensor.nbytes else tensor


def _leaves(thing: Any) -> Iterator[Any]:
    """Give what containers and transformers' own objects hold, not the containers."""
    if isinstance(thing, dict):
        thing = list(dict.values(thing))
    elif hasattr(thing, "_vision_features"):  # transformers' feature cache
        thing = list(vars(thing).values())
    if isinstance(thing, list | tuple | set):
        for item in thing:
            yield from _leaves(item)
    else:
        yield thing
