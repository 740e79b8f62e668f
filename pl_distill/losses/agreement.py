"""How well a student's map agrees with its teacher's: numbers for people, not losses. Each is a mean over pictures."""

from torch import Tensor
from torch.nn import functional as F


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean cosine between channel vectors of maps (B, C, h, w); -1 to 1, and 1 for equal maps."""
    return F.cosine_similarity(student.float(), teacher.float(), dim=1).mean()


def relative_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over pictures of ``||s - t|| / ||t||`` for maps (B, C, h, w); 0 for equal maps, 1 for a student of zeros."""
    student, teacher = student.float().flatten(1), teacher.float().flatten(1)
    error: Tensor = (student - teacher).norm(dim=1) / teacher.norm(dim=1)
    return error.mean()


def centred_relative_error(student: Tensor, teacher: Tensor) -> Tensor:
    """`relative_error` after each picture's mean over locations is taken off, per channel and map.

    What all locations share can be most of a trunk's map: the plain error is then small for a student that has learned
    nothing about where things are. This one is 1 for it.
    """
    student, teacher = student.float(), teacher.float()
    return relative_error(student - student.mean((2, 3), keepdim=True), teacher - teacher.mean((2, 3), keepdim=True))
