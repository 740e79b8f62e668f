"""What the system weighs at real size, counted on the meta device, where weights have a shape and nothing else."""

from dataclasses import dataclass
from functools import cache

import timm
import torch

from pl_distill.evaluation.models import count_parameters
from pl_distill.models.sam3 import Sam3Geometry, load_sam3_config, meta_sam3
from pl_distill.models.tinyvit_fpn import TinyViTFPN
from pl_distill.streaming.session import MemoryWindow

EMBEDDER = "vit_small_patch16_dinov3"
_MEMORY_CHANNELS = 64  # transformers has it hard-coded
_MEMORY_BYTES = 2  # bfloat16, whatever the model is in
_POINTER_BYTES = 4


@dataclass(frozen=True)
class RealSize:
    """Counts at real size.

    Args:
        trunk: Parameters of SAM 3's vision trunk.
        necks: Of both of its necks.
        student: Of the student that stands in for the trunk, without necks.
        embedder: Of DINOv3 ViT-S/16.
        session_bytes: Most that streaming keeps of one live animal in the bounded mode.
    """

    trunk: int
    necks: int
    student: int
    embedder: int
    session_bytes: int

    @property
    def system_ratio(self) -> float:
        """Trunk, necks and embedder over student, necks and embedder: the one natural reading that gives 7.77."""
        return (self.trunk + self.necks + self.embedder) / (self.student + self.necks + self.embedder)


@cache
def count_real_size() -> RealSize:
    """Build SAM 3, student and embedder at real size without their weights, and count."""
    config = load_sam3_config("real")
    sam3 = meta_sam3(config)
    with torch.device("meta"):
        student, embedder = TinyViTFPN(), timm.create_model(EMBEDDER, num_classes=0)
    vision, window, grid = sam3.detector_model.vision_encoder, MemoryWindow.of(config), Sam3Geometry.of(config).grid
    conditioning = window.conditioning or 0
    memories = (window.memories + conditioning) * grid**2 * _MEMORY_CHANNELS * _MEMORY_BYTES
    pointers = (window.pointers + conditioning) * config.tracker_config.memory_attention_hidden_size * _POINTER_BYTES
    return RealSize(
        trunk=count_parameters(vision.backbone),
        necks=count_parameters(vision.neck, sam3.tracker_neck),
        student=count_parameters(student),
        embedder=count_parameters(embedder),
        session_bytes=memories + pointers,
    )
