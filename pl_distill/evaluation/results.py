"""`results.json`, schema 1: what `evaluate` and `demo` write, and what the report and the tests read.

docs/results.md describes it for readers in other languages.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datamodules.errors import DataError
from datamodules.files import write_json
from pl_distill.evaluation.behaviour_results import BehaviourResult
from pl_distill.evaluation.mot import TrackingScores
from pl_distill.evaluation.typed_json import JsonTypeError, parse_dataclass

SCHEMA = 1
TOTAL = "total"


class ResultsError(DataError):
    """A results file is absent, damaged or of another schema."""


@dataclass(frozen=True)
class ModelIdentity:
    """Which network was evaluated.

    Args:
        source: Folder, checkpoint or hub name, as the user gave it.
        kind: ``sam3``, or the class of the student that stands in for its trunk.
        sha256: Of all its weights and its configuration, not of its preprocessing.
        parameters: Of everything that runs, text encoder not included.
        trunk_parameters: Of the trunk, or of the student in its place, without necks.
        neck_parameters: Of the two necks behind it.
        image_size: Side of the square input in pixels.
        teacher: For a student, the SAM 3 into which it was put.
    """

    source: str
    kind: str
    sha256: str
    parameters: int
    trunk_parameters: int
    neck_parameters: int
    image_size: int
    teacher: str | None = None


@dataclass(frozen=True)
class ClipReplay:
    """How a clip ran, and its files, relative to the folder of the results.

    Args:
        day: Recording day; clips of one day show the same animals and do not count as independent.
        frames: Frames that went through the tracker.
        frames_per_second: Frames over the time in the tracker; None without frames.
        seconds: Wall time, with decoding, drawing and writing.
        peak_rss_bytes: Largest resident set of the process.
        peak_vram_bytes: Largest memory allocated on the GPU; None without one.
        tracks: MOTChallenge text.
        masks: MOTS text.
        record: JSON with time, memory and number of tracks per frame.
        pictures: Annotated frames by frame index.
        video: Annotated mp4, or None.
        session_bytes: The most that the tracker kept for the next frames, without the network; None of older results.
    """

    day: str
    frames: int
    frames_per_second: float | None
    seconds: float
    peak_rss_bytes: int
    peak_vram_bytes: int | None
    tracks: str
    masks: str
    record: str
    pictures: dict[str, str]
    video: str | None
    session_bytes: int | None = None


@dataclass(frozen=True)
class ClipResult:
    """Scores of a clip; `replay` is None where two models are compared and nothing was run."""

    scores: TrackingScores
    replay: ClipReplay | None = None


@dataclass(frozen=True)
class Comparison:
    """Scores over all clips and of each.

    Args:
        overall: Over all clips, pooled.
        clips: By name.
        mask_overlap: Mean overlap of the animals' masks with those of tracks, 0-100; an animal that gets none counts 0.
            None where there are no masks to compare with.
        matched_mask_overlap: The same over those animals alone that get a mask with an overlap of at least 0.5.
    """

    overall: TrackingScores
    clips: dict[str, ClipResult]
    mask_overlap: float | None = field(default=None, kw_only=True)
    matched_mask_overlap: float | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class ModelResult(Comparison):
    """One model against truth.

    Args:
        model: Which.
        frames_per_second: Over all clips, time in the tracker only.
        seconds: Wall time of all replays, those of earlier runs included.
        peak_rss_bytes: The largest of all clips.
        peak_vram_bytes: The largest of all clips; None without a GPU.
        large_boxes: Percentage of the boxes of tracks that cover more than half of the picture; None without tracks.
        session_bytes: The largest of all clips; None of older results.
        failures: JSON with every error of the tracker, relative to the folder of the results.
        behaviour: How well the chain behind the tracker names what animals do; None where none ran.
        memory: Phase -> quantity -> bytes, the largest of all clips: ``streaming`` has ``allocated`` and ``reserved``
            on a GPU, ``rss`` elsewhere; empty in older results.
    """

    model: ModelIdentity
    frames_per_second: float | None
    seconds: float
    peak_rss_bytes: int
    peak_vram_bytes: int | None = None
    large_boxes: float | None = None
    session_bytes: int | None = None
    failures: str | None = None
    behaviour: BehaviourResult | None = None
    memory: dict[str, dict[str, int]] = field(default_factory=dict, kw_only=True)


@dataclass(frozen=True)
class Settings:
    """What was evaluated, and how.

    Args:
        data: Folder of the shards.
        split: Name of the split.
        part: ``train``, ``val`` or ``test``.
        prompt: What was searched for.
        policy: The pruning policy's values.
        iou_threshold: Least overlap of a match, 0-1.
        max_frames: Only the first so many frames of each clip; None for all.
        device: Where the networks ran.
        embedder: What described animals; None where nothing named what they do.
        behaviour: What named what they do, or None.
    """

    data: str
    split: str
    part: str
    prompt: str
    policy: dict[str, Any]
    iou_threshold: float
    max_frames: int | None
    device: str
    embedder: str | None = None
    behaviour: str | None = None


@dataclass(frozen=True)
class Results:
    """All that one evaluation found.

    Args:
        settings: What was evaluated, and how.
        split_sha256: Hash of the split.
        seed: Of the evaluation.
        versions: Package -> version.
        seconds: Wall time in all.
        peak_rss_bytes: The largest of all models.
        models: ``model``, or ``teacher`` and ``student``.
        student_vs_teacher: The student with the teacher's tracks as truth.
        steps: Step -> seconds, where a longer chain was run.
        notes: What a reader must know before the numbers, one sentence each.
        baselines: Simpler trackers on the same networks and clips, by role and baseline: ``teacher-stock``.
        data_sha256: Of the shards; empty in results of older versions.
    """

    settings: Settings
    split_sha256: str
    seed: int
    versions: dict[str, str]
    seconds: float
    peak_rss_bytes: int
    models: dict[str, ModelResult]
    student_vs_teacher: Comparison | None = None
    steps: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    baselines: dict[str, ModelResult] = field(default_factory=dict)
    data_sha256: str = ""


_HEADER = ("settings", "data_sha256", "split_sha256", "seed", "versions", "peak_rss_bytes", "notes")


def write_results(path: Path, results: Results) -> None:
    """Write `results.json`, whole or not at all."""
    content: dict[str, Any] = {"schema": SCHEMA}
    plain = asdict(results)
    content |= {name: plain[name] for name in _HEADER}
    content["seconds"] = {**results.steps, TOTAL: results.seconds} if results.steps else results.seconds
    blocks = {role: _flat_block(plain["models"][role]) for role in results.models}
    main = blocks.get("student") or next(iter(blocks.values()))
    content["frames_per_second"] = main["frames_per_second"]
    if len(blocks) == 1:
        # `seconds` and the peak of the single model stay in the header: they are those of the whole evaluation.
        content |= {name: value for name, value in main.items() if name not in content}
    else:
        content |= blocks
    if results.baselines:
        content["baselines"] = {name: _flat_block(block) for name, block in plain["baselines"].items()}
    if results.student_vs_teacher is not None:
        content["student_vs_teacher"] = _flat_block(plain["student_vs_teacher"])
    write_json(path, content)


def read_results(path: Path) -> Results:
    """Read and check a `results.json`.

    Raises:
        ResultsError: It is absent, not JSON, of another schema, or a key is missing or of another type.
    """
    fix = "Run `pl-distill evaluate` again."
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ResultsError(path, "is not there", "a results.json", "Run `pl-distill evaluate` first.") from error
    except (OSError, ValueError) as error:
        raise ResultsError(path, f"cannot be read ({error})", "JSON", fix) from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise ResultsError(path, f"has the schema {schema!r}", str(SCHEMA), fix)
    try:
        return _parse(content)
    except JsonTypeError as error:
        raise ResultsError(f"{path}, {error.key}", error.found, error.expected, fix) from error


def _parse(content: dict[str, Any]) -> Results:
    seconds = content.get("seconds")
    steps: dict[str, Any] = {}
    if isinstance(seconds, dict):
        steps = {name: value for name, value in seconds.items() if name != TOTAL}
        seconds = seconds.get(TOTAL)
    roles: list[str] = [role for role in ("teacher", "student") if role in content]
    blocks: dict[str, Any] = {role: content[role] for role in roles} or {"model": {**content, "seconds": seconds}}
    comparison = content.get("student_vs_teacher")
    models = {role: _nested_block(block, role if roles else "") for role, block in blocks.items()}
    nested = {**content, "seconds": seconds, "steps": steps, "models": models}
    baselines = content.get("baselines", {})
    if not isinstance(baselines, dict):
        raise JsonTypeError("baselines", f"is {baselines!r}", "a mapping")
    nested["baselines"] = {name: _nested_block(block, f"baselines.{name}") for name, block in baselines.items()}
    nested["student_vs_teacher"] = None if comparison is None else _nested_block(comparison, "student_vs_teacher")
    return parse_dataclass(Results, nested, "")


def _flat_block(block: dict[str, Any]) -> dict[str, Any]:
    """Lift the scores of each clip: `{"scores": {"mota": 1}, "replay": 2}` becomes `{"mota": 1, "replay": 2}`."""
    clips = {}
    for name, clip in block["clips"].items():
        clips[name] = {**clip["scores"], **({} if clip["replay"] is None else {"replay": clip["replay"]})}
    return {**block, "clips": clips}


def _nested_block(block: Any, key: str) -> dict[str, Any]:
    if not isinstance(block, dict) or not isinstance(block.get("clips"), dict):
        raise JsonTypeError(
            f"{key}.clips".lstrip("."), "is missing or no mapping", "the scores of each clip by its name"
        )
    for name, clip in block["clips"].items():
        if not isinstance(clip, dict):
            raise JsonTypeError(f"{key}.clips.{name}".lstrip("."), f"is {clip!r}", "the scores of a clip")
    clips = {name: {"scores": clip, "replay": clip.get("replay")} for name, clip in block["clips"].items()}
    return {**block, "clips": clips}
