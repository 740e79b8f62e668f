"""What an evaluation says of behaviours: from the boxes of truth, from a model's tracks, and what lies between."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class; percentages are 0-100.

    Args:
        animal_frames: How often it occurs.
        precision: Part of what is called so that is so; 0 where it is never said.
        recall: Part of what is so that is called so; 0 where it never occurs.
        f1: Of both.
    """

    animal_frames: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class NamedFrames:
    """Scores over animal-frames, an animal in a frame being one; percentages are 0-100, None where there are none.

    Args:
        animal_frames: How many were judged.
        top1: Part whose behaviour is right.
        macro_f1: Mean of the classes' F1, over those that occur.
        classes: Of each class of the head.
        confusion: Counts, true class by said class, in the order of `classes`.
    """

    animal_frames: int
    top1: float | None
    macro_f1: float | None
    classes: dict[str, ClassScores] = field(default_factory=dict)
    confusion: list[list[int]] = field(default_factory=list)


@dataclass(frozen=True)
class BehaviourResult:
    """How well a model's chain names what animals do, beside the same chain on the boxes and identities of truth.

    Args:
        truth: From the truth: every visible animal of a known class in the frames that the chain observes.
        covered_truth: From the truth, but only the animal-frames that a track covers: the same as of `tracks`.
        tracks: From the model's tracks; each answers for the animal that it covers by half.
        covered: Percentage of the animal-frames of `truth` that a track covers.
        right_of_all: Percentage of the animal-frames of `truth` that are named right from tracks; those that no track
            covers are wrong.
        top1_drop: Points of top-1 lost from `covered_truth` to `tracks`: what boxes, masks and identities cost.
        macro_f1_drop: The same of macro-F1.
    """

    truth: NamedFrames
    covered_truth: NamedFrames
    tracks: NamedFrames
    covered: float | None
    right_of_all: float | None
    top1_drop: float | None
    macro_f1_drop: float | None
