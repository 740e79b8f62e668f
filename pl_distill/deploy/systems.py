"""The two systems whose budgets are compared, built without weights: names, shapes and counts, but no memory.

Teacher: SAM 3 as transformers builds it. Student: the same with a student where trunk and necks were, and without what
only turns words or boxes into embeddings. Beside both stands the embedder, DINOv3 ViT-S/16 (timm).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import timm
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import Sam3VideoConfig, Sam3VideoModel
from transformers.models.sam3 import modeling_sam3
from transformers.models.sam3_tracker_video import modeling_sam3_tracker_video

from pl_distill.models.sam3 import Sam3Geometry
from pl_distill.models.student_io import Student, StudentFactory

EMBEDDER = "vit_small_patch16_dinov3"
EMBEDDER_INPUT = 256  # pixels; timm's input size for it
UNUSED_AT_THE_EDGE = ("text_encoder", "text_projection", "geometry_encoder")


def build_teacher(config: Sam3VideoConfig, dtype: torch.dtype = torch.float32) -> Any:
    """Build a whole `Sam3VideoModel` in eval mode on the meta device, with weights of `dtype`."""
    with torch.device("meta"), _default_dtype(dtype):
        model = Sam3VideoModel(config).eval().requires_grad_(False)
    for tensor in model.state_dict(keep_vars=True).values():  # a configuration may name another dtype for a part
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)
    return model


def drop_unused(model: Any) -> Any:
    """Remove what a deployed model does without, its prompts being stored embeddings; return the model."""
    for name in UNUSED_AT_THE_EDGE:
        setattr(model.detector_model, name, None)
    return model


def build_student(factory: StudentFactory, teacher: Any, *, pyramids: bool, dtype: torch.dtype) -> Student:
    """Build a student on the meta device, with copies of the teacher's necks where its design keeps them.

    Args:
        factory: Of the recipe.
        teacher: As `build_teacher` gives it.
        pyramids: Whether it answers with both pyramids instead of the trunk's map.
        dtype: Of every weight.
    """
    geometry = Sam3Geometry.of(teacher.config)
    with torch.device("meta"), _default_dtype(dtype):
        student = factory(
            out_channels=geometry.neck_channels if pyramids else geometry.trunk_channels, grid=geometry.grid
        )
    student.requires_grad_(False)
    if student.keeps_necks:
        student.attach_necks(teacher.detector_model.vision_encoder.neck, teacher.tracker_neck)
    return student


def build_embedder() -> nn.Module:
    """Build the embedder on the meta device, in float32."""
    with torch.device("meta"), _default_dtype(torch.float32):
        embedder: nn.Module = timm.create_model(EMBEDDER, pretrained=False, num_classes=0)
    return embedder.eval().requires_grad_(False)


@contextmanager
def fake_tensors(device: str) -> Iterator[None]:
    """Make every new tensor a fake on `device`, which this machine need not have; torch's caches stay clean.

    Models from the functions above become fakes by ``model.to_empty(device=...)`` under it. transformers keeps position
    encodings in caches of the process; a fake one must not be found there by a real model.
    """
    _clear_position_caches()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.device(device):
            yield
    finally:
        _clear_position_caches()


def _clear_position_caches() -> None:
    cached = (
        modeling_sam3.Sam3SinePositionEmbedding.build_sine_position_embedding,
        modeling_sam3.Sam3DetrDecoder._get_coords,
        modeling_sam3_tracker_video.Sam3TrackerVideoPositionEmbeddingSine.build_sine_position_embedding,
    )
    for function in cached:
        for cell in function.__closure__ or ():
            clear = getattr(cell.cell_contents, "cache_clear", None)
            if clear is not None:
                clear()


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
