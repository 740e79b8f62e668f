"""Put a student where SAM 3's trunk was; everything behind it stays.

Source: the student takes the place of `detector_model.vision_encoder.backbone` (transformers,
models/sam3/modeling_sam3.py); detector and tracker both read that one module's output, so nothing else has to change.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from pl_distill.errors import CheckpointError
from pl_distill.models.sam3_config import Sam3Geometry
from pl_distill.models.sam3_packing import PyramidAdapter, UnpackingNeck


class TrunkAdapter(nn.Module):
    """Lets a student answer as the trunk does.

    Args:
        student: Maps images (B, 3, S, S) to (B, C, h, w).
        map_shape: The (C, h, w) that the modules behind expect.
    """

    def __init__(self, student: nn.Module, map_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.student = student
        self.map_shape = map_shape

    def forward(self, pixel_values: Tensor, **_: Any) -> BaseModelOutput:
        """Map images (B, 3, S, S) to tokens (B, h*w, C); the keywords are for transformers' own trunk."""
        features = self.student(pixel_values)
        check_map(tuple(features.shape), (pixel_values.shape[0], *self.map_shape))
        # The same memory layout as the trunk's own tokens: kernels may sum in another order on a strided view.
        return BaseModelOutput(last_hidden_state=features.flatten(2).transpose(1, 2).contiguous())


def substitute(model: Any, student: nn.Module) -> Any:
    """Return a SAM 3 whose trunk is `student`; `model` keeps its own.

    Both models share the tensors behind the trunk, so no memory is spent; moving or casting one moves the other. Drop
    the last reference to `model` to free its trunk. The student is put into eval mode and asked once for the map of an
    empty picture, so that a mismatch shows here and not in the middle of a video.

    Args:
        model: A `Sam3VideoModel`, as `load_sam3` gives it.
        student: Maps images (B, 3, S, S) in SAM 3's normalisation to the trunk's map (B, C, h, w), or, where it has
            ``keeps_necks`` False, to `Pyramids`. Its attributes ``detector_neck`` and ``tracker_neck``, where present
            and not None, replace the model's necks.

    Raises:
        CheckpointError: The student's map or pyramids have other channels or another grid than the teacher's.
    """
    geometry = Sam3Geometry.of(model.config)
    keeps_necks = getattr(student, "keeps_necks", True)
    adapter: nn.Module = (
        TrunkAdapter(student.eval(), geometry.map_shape)
        if keeps_necks
        else PyramidAdapter(student.eval(), geometry.neck_channels, geometry.grid)
    )
    like = next((tensor for tensor in student.parameters() if tensor.is_floating_point()), torch.empty(0))
    with torch.no_grad():  # not inference_mode: what a student caches here must not break its later training
        adapter(torch.zeros(1, 3, geometry.image_size, geometry.image_size, dtype=like.dtype, device=like.device))

    substituted = shallow_twin(model)
    substituted.detector_model = shallow_twin(model.detector_model)
    substituted.detector_model.vision_encoder = shallow_twin(model.detector_model.vision_encoder)
    substituted.detector_model.vision_encoder.backbone = adapter
    if not keeps_necks:
        substituted.detector_model.vision_encoder.neck = UnpackingNeck(
            model.detector_model.vision_encoder.neck, "detector"
        )
        substituted.tracker_neck = UnpackingNeck(model.tracker_neck, "tracker")
    detector_neck, tracker_neck = getattr(student, "detector_neck", None), getattr(student, "tracker_neck", None)
    if detector_neck is not None:
        substituted.detector_model.vision_encoder.neck = detector_neck
    if tracker_neck is not None:
        substituted.tracker_neck = tracker_neck
    return substituted


def check_map(found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Compare the shapes (B, C, h, w) of a student's and a teacher's map.

    Raises:
        CheckpointError: They differ.
    """
    if found != expected:
        raise CheckpointError(
            "student map",
            f"is {found}",
            f"the teacher map's {expected}",
            "Set the student's out_channels and grid to match this teacher.",
        )


def shallow_twin(module: nn.Module) -> Any:
    """Copy one module but none of its children or tensors."""
    twin = copy.copy(module)
    # copy.copy shares the dictionaries, too; an assignment to the twin would change the original
    for registry in ("_modules", "_parameters", "_buffers"):
        setattr(twin, registry, dict(getattr(module, registry)))
    return twin
