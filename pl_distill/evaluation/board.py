"""An evaluation in TensorBoard: one run per model, so that teacher and student share their axes.

``test/...`` holds the scores over all clips, those of behaviours too, ``test_by_clip/...`` those of the first, second,
... clip, ``perf/...`` time, memory and number of tracks along all frames in the order of the clips, ``pictures/...``
annotated frames.
"""

from itertools import count
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from datamodules.images import read_image
from pl_distill.evaluation.behaviour_results import BehaviourResult
from pl_distill.evaluation.clip_files import read_record
from pl_distill.evaluation.mot import TrackingScores
from pl_distill.evaluation.results import Comparison, ModelResult, Results

BOARD = "tensorboard"
QUANTITIES = ("mota", "idf1", "hota", "motp", "id_switches", "misses", "false_positives", "fragmentations")
_EVENTS = "events.out.tfevents.*"
_MUTUAL = "student_vs_teacher"
_RUNS = ("model", "teacher", "student", _MUTUAL)


def is_board(events: Path) -> bool:
    """Say whether an event file lies where `write_board` writes: its scores are of an evaluation, not of a training."""
    return events.parent.name in _RUNS and events.parent.parent.name == BOARD


def write_board(out: Path, results: Results) -> None:
    """Write the entries of an evaluation below ``out/tensorboard``, in the place of those of an earlier one."""
    for name in _RUNS:  # of all models: what is evaluated now may be others
        for old in (out / BOARD / name).glob(_EVENTS):
            old.unlink()
    runs: dict[str, Comparison] = {**results.models}
    if results.student_vs_teacher is not None:
        runs[_MUTUAL] = results.student_vs_teacher
    part = results.settings.part
    for name, comparison in runs.items():
        with SummaryWriter(str(out / BOARD / name)) as writer:
            _write_scores(writer, part, comparison.overall, 0)
            for number, clip in enumerate(comparison.clips.values()):
                _write_scores(writer, f"{part}_by_clip", clip.scores, number)
            if isinstance(comparison, ModelResult):
                _write_replays(writer, out, comparison)
                _write_behaviour(writer, part, comparison.behaviour)
                writer.add_text("notes", "\n\n".join(results.notes) or "none")


def _write_scores(writer: SummaryWriter, stage: str, scores: TrackingScores, step: int) -> None:
    for quantity in QUANTITIES:
        value = getattr(scores, quantity)
        if value is not None:
            writer.add_scalar(f"{stage}/{quantity}", value, step)


def _write_behaviour(writer: SummaryWriter, stage: str, behaviour: BehaviourResult | None) -> None:
    if behaviour is None:
        return
    for boxes, scores in (("truth", behaviour.truth), ("tracks", behaviour.tracks)):
        for quantity, value in (("top1", scores.top1), ("macro_f1", scores.macro_f1)):
            if value is not None:
                writer.add_scalar(f"{stage}/behaviour_{quantity}_from_{boxes}", value, 0)


def _write_replays(writer: SummaryWriter, out: Path, result: ModelResult) -> None:
    step = count()
    for name, clip in result.clips.items():
        if clip.replay is None:
            continue
        record = read_record(out / clip.replay.record)
        for milliseconds, rss, tracks in zip(record.update_ms, record.rss_bytes, record.objects, strict=True):
            frame = next(step)
            writer.add_scalar("perf/frame_ms", milliseconds, frame)
            writer.add_scalar("perf/tracks", tracks, frame)
            if rss is not None:
                writer.add_scalar("perf/rss_gib", rss / 2**30, frame)
        for index, picture in clip.replay.pictures.items():
            image = read_image(out / picture)
            writer.add_image(f"pictures/{name}", image, int(index), dataformats="HWC")
