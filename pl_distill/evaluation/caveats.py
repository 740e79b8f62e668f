"""What a reader must know before believing the numbers of an evaluation; computed, so that nobody forgets to say it."""

from collections.abc import Mapping, Sequence

from pl_distill.evaluation.results import ModelResult, Settings

MIN_CLIPS = 6
"""With fewer clips a difference between two models is not called established, whatever its size."""

MIN_SEEDS = 3
"""The same for seeds, since a student of another seed is another student."""


MANY_LARGE = 25.0
"""Percent of boxes larger than half of the picture, above which agreement between two models is called empty."""


def caveats(settings: Settings, models: Mapping[str, ModelResult]) -> list[str]:
    """Return one sentence for each limit of an evaluation, the gravest first."""
    notes = []
    result = next(iter(models.values()))
    replays = [clip.replay for clip in result.clips.values() if clip.replay is not None]
    judged, frames = result.overall.scored_frames, sum(replay.frames for replay in replays)
    if judged == 0:
        notes.append("No frame is labelled: there are no scores against truth.")
    elif not result.overall.truth_boxes:
        notes.append(
            f"None of the {judged} labelled frames shows an animal: every box that was found counts as false. "
            "If there are animals, the labels are empty: `pl-distill data split` says how many boxes each clip has."
        )
    silent = [role for role, model in models.items() if judged and model.overall.track_boxes == 0]
    if silent:
        notes.append(f"No {settings.prompt!r} was found in any judged frame by the {_and(silent)}.")
    hopeless = [
        role
        for role, model in models.items()
        if role not in silent and model.overall.mota is not None and model.overall.mota <= 0
    ]
    if hopeless:
        notes.append(
            f"MOTA of the {_and(hopeless)} is not above zero, as if nothing had been tracked: "
            "scores against truth say little beyond that."
        )
    blind = [role for role, model in models.items() if model.large_boxes is not None and model.large_boxes > MANY_LARGE]
    if blind:
        notes.append(
            f"Many boxes of the {_and(blind)} cover more than half of the picture "
            f"({', '.join(f'{models[role].large_boxes:.0f} %' for role in blind)}): such boxes agree with each other "
            "whatever is in the picture. Between the models, only the overlap of masks says something then."
        )
    if len(models) > 1:
        notes.append(one_seed(models))
    if 0 < judged < frames:
        notes.append(f"{judged} of {frames} frames are labelled and judged; the tracker saw all of them.")
    if appearance := settings.policy.get("appearance"):
        notes.append(
            f"Tracks take the identity of the animal that they look like, by {appearance['embedder']!r}: "
            "scores are of tracker and embedder together."
        )
    if settings.policy.get("fuse_boxes"):
        notes.append("A track's box is the mean of that around its mask and of the detection's; SAM 3's is the first.")
    if settings.max_frames is not None:
        notes.append(f"Only the first {settings.max_frames} frames of each clip were used.")
    if settings.device == "cpu":
        notes.append(
            "Speed and memory were measured on a CPU; the resident set holds Python and its libraries, too. "
            "They are not comparable with a GPU's."
        )
    return notes


def one_seed(models: Mapping[str, ModelResult]) -> str:
    """Say that one student is no evidence; void as soon as students of other seeds stand beside it."""
    clips = next(iter(models.values())).clips.values()
    days = {clip.replay.day for clip in clips if clip.replay is not None}
    return (
        f"{count_of(len(clips), 'clip')} of {count_of(len(days), 'day')} and one seed: differences between teacher and "
        f"student are not established (that takes at least {MIN_CLIPS} clips of different days and {MIN_SEEDS} seeds)."
    )


def count_of(number: int, thing: str) -> str:
    """Return ``1 clip`` or ``2 clips``."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _and(names: Sequence[str]) -> str:
    return " and the ".join(names)
