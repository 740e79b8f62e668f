"""What can be exported: a student's encoder, an embedder, a behaviour head; each with inputs from a drawn pen."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from datamodules.pen import PenFrame, load_pen_config, pen_frames
from datamodules.preprocessing import Preprocessing
from pl_distill.deploy.onnx_graph import Exportable, Inputs, open_graph
from pl_distill.models.behaviour_head import BehaviourModel
from pl_distill.models.behaviour_stream import BehaviourStream
from pl_distill.models.embedder import Embedder
from pl_distill.models.sam3_necks import LEVELS, Pyramids
from pl_distill.models.sam3_packing import PyramidAdapter

LEVEL_NAMES = (
    "detector_fine",
    "detector_middle",
    "detector_coarse",
    "tracker_fine",
    "tracker_middle",
    "tracker_coarse",
)


class VisionPyramids(nn.Module):
    """Everything that a student replaces, as one network: pictures in, the six levels that are read out.

    Args:
        sam3: A `Sam3VideoModel`, substituted or not.
    """

    def __init__(self, sam3: Any) -> None:
        super().__init__()
        vision = sam3.detector_model.vision_encoder
        self.backbone = vision.backbone
        necks: list[Any] = [vision.neck, sam3.tracker_neck]
        # A neck of SAM 3 has a level more than anybody reads: neither run nor counted.
        self.necks = nn.ModuleList(one.fpn_layers[:LEVELS] if hasattr(one, "fpn_layers") else one for one in necks)
        self.grid = vision.config.backbone_config.image_size // vision.config.backbone_config.patch_size

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map normalised images (1, 3, S, S) to three levels each of detector and tracker, fine to coarse."""
        tokens = self.backbone(images).last_hidden_state  # (1, h*w, C)
        trunk_map = tokens.transpose(1, 2).unflatten(2, (self.grid, self.grid))
        levels: list[Tensor] = []
        for module in self.necks:
            neck: Any = module
            is_list = isinstance(module, nn.ModuleList)
            levels += [layer(trunk_map) for layer in neck] if is_list else neck.levels(trunk_map)
        return tuple(levels)


class StudentPyramids(nn.Module):
    """A student of both pyramids alone: SAM 3 reads its levels out of packed tokens, an engine gives them as they are.

    Args:
        student: Maps images (B, 3, S, S) to `Pyramids`.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map normalised images (1, 3, S, S) to three levels each of detector and tracker, fine to coarse."""
        return tuple(level for pyramid in self.student(images) for level in pyramid)


class OnnxVision(nn.Module):
    """A student whose answers come from onnxruntime; `substitute` puts it before the real heads.

    Args:
        path: Graph with the six outputs of `VisionPyramids`.
    """

    keeps_necks = False

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.run = open_graph(path)

    def forward(self, images: Tensor) -> Pyramids:
        """Map images (1, 3, S, S) to both pyramids in float32."""
        levels = self.run((images.float(),))
        return Pyramids((levels[0], levels[1], levels[2]), (levels[3], levels[4], levels[5]))


class CropReader(nn.Module):
    """An embedder from the crop on, normalisation included, so that a device has nothing to get wrong.

    Args:
        embedder: In float32.
    """

    def __init__(self, embedder: Embedder) -> None:
        super().__init__()
        self.embedder = embedder

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Map crops (N, 3, S, S) of 0..1 to embeddings (N, D) of length 1 and features (N, F), both float32."""
        return self.embedder.read((crops - self.embedder.mean) / self.embedder.std)


def student_network(sam3: Any) -> Exportable:
    """Return trunk and both necks of a SAM 3, or what stands in their place."""
    backbone = sam3.detector_model.vision_encoder.backbone
    packs = isinstance(backbone, PyramidAdapter)
    network = StudentPyramids(backbone.student) if packs else VisionPyramids(sam3)
    return Exportable(network.eval(), ("images",), LEVEL_NAMES, any_number=False)


def student_inputs(preprocessing: Preprocessing, seed: int, frames: int, every: int = 1) -> list[Inputs]:
    """Return normalised pictures of a pen, one at a time."""
    return [(preprocessing(frame.image)[None],) for frame in _frames(seed, frames, every)]


def embedder_network(embedder: Embedder) -> Exportable:
    """Return an embedder, from crops on."""
    return Exportable(CropReader(embedder).eval(), ("crops",), ("embeddings", "features"), any_number=True)


def embedder_inputs(embedder: Embedder, seed: int, frames: int, every: int = 1) -> list[Inputs]:
    """Return the crops of each frame's animals, as the embedder wants them cut, 0..1."""
    return [(embedder.cut_out(*_seen(frame))[1].float() / 255,) for frame in _frames(seed, frames, every)]


def behaviour_network(behaviour: BehaviourModel) -> Exportable:
    """Return a behaviour head."""
    return Exportable(behaviour.head, ("features", "motion", "present"), ("logits",), any_number=True)


def behaviour_inputs(behaviour: BehaviourModel, embedder: Embedder, seed: int, frames: int) -> list[Inputs]:
    """Return the windows of each frame's animals, as a stream gives them to the head.

    Args:
        behaviour: The head.
        embedder: The one that it was trained on.
        seed: Of the pen.
        frames: How many have their full past; as many as a window is long are drawn before.
    """
    listener = _Listener(behaviour.head)
    stream = BehaviourStream(replace(behaviour, head=listener))
    every = max(1, round(load_pen_config("day").fps / behaviour.fps))
    for tick, frame in enumerate(_frames(seed, behaviour.window.length + frames, every)):
        picture, boxes, masks = _seen(frame)
        found = embedder.describe_animals(picture, boxes, masks)
        ids = tuple(code for code, visible in zip(frame.codes, frame.visible, strict=True) if visible)
        stream.push(
            tick,
            tuple(ids[row] for row in found.rows),
            boxes[found.rows],
            found.lies,
            found.features,
            (picture.shape[0], picture.shape[1]),
        )
    stream.flush()
    return listener.heard[-frames:]


class _Listener(nn.Module):
    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head
        self.heard: list[Inputs] = []

    def forward(self, features: Tensor, motion: Tensor, present: Tensor) -> Tensor:
        self.heard.append((features, motion, present))
        logits: Tensor = self.head(features, motion, present)
        return logits


def _frames(seed: int, frames: int, every: int) -> list[PenFrame]:
    return list(pen_frames(load_pen_config("day"), seed=seed, frames=frames, every=every))


def _seen(frame: PenFrame) -> tuple[Any, Any, Any]:
    return frame.image, frame.boxes_xyxy[frame.visible], frame.masks[frame.visible]
