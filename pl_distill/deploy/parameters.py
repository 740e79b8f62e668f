"""Parameters by part, and every definition under which the paper's figures have been read."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from pl_distill.models.student_io import Student


@dataclass(frozen=True)
class Part:
    """One part of a system.

    Args:
        name: What it is.
        parameters: How many, those shared with an earlier part not counted again.
    """

    name: str
    parameters: int


@dataclass(frozen=True)
class Definition:
    """One way to count, on both sides.

    Args:
        name: Short.
        teacher: Parameters that it counts in the teacher's system.
        student: And in the student's.
        counts: What, in words.
    """

    name: str
    teacher: int
    student: int
    counts: str

    @property
    def ratio(self) -> float:
        """Teacher over student."""
        return self.teacher / self.student


def count(*modules: nn.Module | None) -> int:
    """Count the parameters of modules, shared ones once; None has none."""
    weights = {id(weight): weight.numel() for module in modules if module for weight in module.parameters()}
    return sum(weights.values())


def teacher_parts(model: Any, embedder: nn.Module) -> list[Part]:
    """Take a whole `Sam3VideoModel` apart."""
    detector = model.detector_model
    vision = detector.vision_encoder
    return [
        Part("trunk", count(vision.backbone)),
        Part("necks of detector and tracker", count(vision.neck, model.tracker_neck)),
        Part("text encoder and projection", count(detector.text_encoder, detector.text_projection)),
        Part("geometry encoder", count(detector.geometry_encoder)),
        Part("detector heads", count(*_heads(detector))),
        Part("tracker", count(model.tracker_model)),
        Part("embedder", count(embedder)),
    ]


def student_parts(model: Any, student: Student, embedder: nn.Module) -> list[Part]:
    """Take a substituted model apart."""
    necks = count(student.detector_neck, student.tracker_neck)
    return [
        Part("student without necks", count(student) - necks),
        Part("necks of detector and tracker", necks),
        Part("detector heads", count(*_heads(model.detector_model))),
        Part("tracker", count(model.tracker_model)),
        Part("embedder", count(embedder)),
    ]


def definitions(teacher: list[Part], student: list[Part]) -> list[Definition]:
    """Return every way to count, that of the paper's 7.77 as far as it can be told among them."""
    t, s = ({part.name: part.parameters for part in parts} for parts in (teacher, student))
    necks, heads = "necks of detector and tracker", ("detector heads", "tracker")
    replaced = s["student without necks"] + s[necks]
    deployed = replaced + sum(s[name] for name in heads)
    whole = sum(t.values()) - t["embedder"]
    return [
        Definition("backbone", t["trunk"], replaced, "trunk; student with its necks: the paper's 446M and 40.66M"),
        Definition("what is replaced", t["trunk"] + t[necks], replaced, "trunk and both necks; student with its necks"),
        Definition(
            "system, as the paper's 7.77",
            t["trunk"] + t[necks] + t["embedder"],
            replaced + s["embedder"],
            "the same and the embedder on both sides; inferred, the paper does not say",
        ),
        Definition("deployed", whole, deployed, "the whole SAM 3; student, detector heads and tracker"),
        Definition(
            "deployed with embedder",
            whole + t["embedder"],
            deployed + s["embedder"],
            "the same and the embedder on both sides",
        ),
    ]


def _heads(detector: Any) -> tuple[nn.Module, ...]:
    return (detector.detr_encoder, detector.detr_decoder, detector.mask_decoder, detector.dot_product_scoring)
