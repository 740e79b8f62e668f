"""What a reader must know before believing the numbers of an evaluation; computed, so that nobody forgets to say it."""

from collections.abc import Mapping

from pl_distill.evaluation.results import ModelResult, Settings

MIN_CLIPS = 6
"""With fewer clips a difference between two models is not called established, whatever its size."""

MIN_SEEDS = 3
"""The same for seeds, since a student of another seed is another student."""


def caveats(settings: Settings, models: Mapping[str, ModelResult]) -> list[str]:
    """Return one sentence for each limit of an evaluation, the gravest first."""
    notes = []
    result = next(iter(models.values()))
    replays = [clip.replay for clip in result.clips.values() if clip.replay is not None]
    days = {replay.day for replay in replays}
    for role, model in models.items():
        if model.overall.track_boxes == 0:
            notes.append(f"The {role} found no {settings.prompt!r} in any frame that was judged.")
        elif model.overall.mota is not None and model.overall.mota <= 0:
            notes.append(
                f"The {role} makes more errors than there are animals to find (MOTA {model.overall.mota:.1f}): "
                "its scores against truth say little beyond that."
            )
    if len(models) > 1:
        reason = f"{_count(len(replays), 'clip')} of {_count(len(days), 'day')} and one seed"
        notes.append(
            f"{reason}: differences between teacher and student are not established"
            f" (that takes at least {MIN_CLIPS} clips and {MIN_SEEDS} seeds)."
        )
    judged, frames = result.overall.scored_frames, sum(replay.frames for replay in replays)
    if judged == 0:
        notes.append("No frame is labelled: there are no scores against truth.")
    elif judged < frames:
        notes.append(f"{judged} of {frames} frames are labelled and judged; the tracker saw all of them.")
    if settings.max_frames is not None:
        notes.append(f"Only the first {settings.max_frames} frames of each clip were used.")
    if settings.device == "cpu":
        notes.append(
            "Speed and memory were measured on a CPU; the resident set holds Python and its libraries, too. "
            "They are not comparable with a GPU's."
        )
    return notes


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
