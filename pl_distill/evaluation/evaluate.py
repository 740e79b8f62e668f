"""Stream the clips of a split through one model or two, score the tracks, and write everything into one folder.

Each clip of each model is a unit of work: what a killed run finished is found again by its record and not repeated.
"""

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from datamodules.clip import Clip
from datamodules.image_shards import ImageShards
from datamodules.locks import held
from datamodules.remote import COPIES, LocalCopies
from datamodules.shard_reader import read_shard_clips
from datamodules.splits import PARTS, Part
from pl_distill.code_state import code_sha256
from pl_distill.errors import ConfigError
from pl_distill.evaluation.behaviour_scoring import score_chain
from pl_distill.evaluation.board import write_board
from pl_distill.evaluation.caveats import caveats
from pl_distill.evaluation.chain import open_chain
from pl_distill.evaluation.clip_files import ReplayRecord
from pl_distill.evaluation.devices import choose_device
from pl_distill.evaluation.memory import release_memory
from pl_distill.evaluation.models import open_model, plan_models
from pl_distill.evaluation.pairing import IOU_THRESHOLD
from pl_distill.evaluation.replay import length
from pl_distill.evaluation.replay_jobs import Opened, Played, find_all_records, stream_clips
from pl_distill.evaluation.results import ModelResult, Results, Settings, write_results
from pl_distill.evaluation.scoring import explain_model, score_against_teacher, score_model
from pl_distill.evaluation.trackers import BASELINES, Baseline, load_recogniser
from pl_distill.models.embedder_load import PEN_EMBEDDER
from pl_distill.streaming import PruningPolicy

RESULTS_FILE = "results.json"
DEFAULT_POLICY = PruningPolicy()
_NAMES_ONLY = ("data", "embedder", "behaviour")  # what lies behind these names is in the identity by its hash
_DECIDING = (
    "datamodules",
    "pl_distill/models",
    "pl_distill/streaming",
    *(
        f"pl_distill/evaluation/{name}.py"
        for name in ("mask_files", "replay", "replay_recording", "track_files", "trackers")
    ),
)
"""Where a change of the code may change the tracks' files: replays of another state are not taken for today's."""
_VERSIONS = ("pl-distill", "torch", "transformers", "timm", "motmetrics", "numpy")


def program_identity() -> dict[str, Any]:
    """Return what of this program and its libraries a tracker's tracks depend on."""
    versions = {name: version(name) for name in _VERSIONS} | {"python": platform.python_version()}
    return {"versions": versions, "code_sha256": code_sha256(_DECIDING)}


def evaluate(
    model: str | Path,
    data: str | Path,
    out: str | Path,
    teacher: str | Path | None = None,
    prompt: str = "pig",
    split: Part = "test",
    max_frames: int | None = None,
    video: bool = True,
    policy: PruningPolicy = DEFAULT_POLICY,
    device: str = "auto",
    seed: int = 0,
    task: int = 0,
    tasks: int = 1,
    baselines: Sequence[Baseline] = (),
    bar_line: int | None = None,
    embedder: str = PEN_EMBEDDER,
    behaviour: str | None = None,
    copies: LocalCopies = COPIES,
    replays: Path | None = None,
) -> Results | None:
    """Evaluate a SAM 3 alone, or a student and its teacher beside it.

    Args:
        model: A SAM 3 (folder or hub name) or a student (its folder, or a checkpoint of `pl-distill fit`).
        data: Folder of shards; a path or an https, s3 or gs URL.
        out: Where results.json, tracks, videos, pictures and TensorBoard entries go.
        teacher: A SAM 3 to compare with. A student without it takes the teacher that it remembers.
        prompt: A word whose embedding is stored beside the SAM 3.
        split: Part of the shards: ``train``, ``val`` or ``test``.
        max_frames: Only the first so many frames of each clip; None for all.
        video: Whether to write an annotated mp4 of each clip, and a strip of pictures of each error.
        policy: What the tracker forgets, when tracks end, and whether animals are recognised by their looks.
        device: ``cpu``, ``cuda``, ``cuda:1``, or ``auto``: the GPU where there is one.
        seed: Of torch's generator before each clip.
        task: Number of this job among several that share the clips and `out`, from 0: ``$SLURM_ARRAY_TASK_ID``.
        tasks: How many such jobs there are. Each replays every so many-th clip; the last to end scores all of them.
        baselines: Simpler trackers that each network is run in, too: ``stock``, ``iou``.
        bar_line: Line of the progress bar below the cursor, where jobs on one terminal take one each and clear it at
            the end, or they would push the others' away. None for a job that has the terminal for itself.
        embedder: Describes animals for `behaviour`: a shipped one, a folder, a hub name, or a DINOv3 of timm.
        behaviour: Names what animals do, behind each model's tracker (not the baselines') and behind the truth: a
            shipped head or a folder. None names nothing.
        copies: Where copies of shards behind a URL lie, and how much room they may take.
        replays: Folder of another evaluation. What it finished with the same model, policy, data, code and versions is
            copied instead of being replayed, with the times and the memory of then.

    Returns:
        What was written to ``results.json``; None while clips of other jobs are missing.

    Raises:
        ShardError: The shards are missing, damaged, or not those of the manifest.
        RemoteError: The URL cannot be read.
        CheckpointError: A model is missing, damaged or of another architecture.
        ConfigError: The part has no clips, the prompt is not stored, no teacher is known, a number is out of range, or
            the head was trained on another embedder.
    """
    started = time.perf_counter()
    out = Path(out)
    shards = ImageShards(data, copies)
    manifest = shards.manifest
    clips = _read_part(shards, split)
    where = choose_device(device)
    _check(max_frames, task, tasks, baselines, replays)
    if behaviour is None and embedder != PEN_EMBEDDER:
        raise ConfigError(
            "embedder", "is given without a behaviour head", "a head that it describes animals for",
            "Add --behaviour; to recognise animals by their looks, give --policy.appearance.embedder instead.",
        )  # fmt: skip
    chain = None if behaviour is None else open_chain(embedder, behaviour, where)
    recogniser = load_recogniser(policy, where, {} if chain is None else {embedder: chain.embedder})
    sources = plan_models(str(model), None if teacher is None else str(teacher))
    for source in sources[1:]:
        open_model(source, prompt, "cpu")  # a student that does not fit shows now, not after the teacher's hours
        release_memory()

    settings = Settings(
        data=str(data),
        split=manifest.split_name,
        part=split,
        prompt=prompt,
        policy=asdict(policy),
        iou_threshold=IOU_THRESHOLD,
        max_frames=max_frames,
        device=str(where),
        embedder=None if behaviour is None else embedder,
        behaviour=behaviour,
    )
    program = program_identity()
    identity = {
        "data_sha256": manifest.sha256,
        "settings": {key: value for key, value in asdict(settings).items() if key not in _NAMES_ONLY}
        | {"device": where.type},  # jobs that share the clips have a GPU each
        "seed": seed,
        **program,
    }
    opened = Opened(out, clips, settings, policy, seed, video, where, chain, recogniser, identity, bar_line)
    played = stream_clips(opened, clips[task::tasks], sources, baselines, replays)
    records = find_all_records(opened, played)
    if records is None:
        return None
    with held(out / "scoring.lock", wait=False) as mine:  # two jobs may end at a time
        if not mine:
            return None
        scored = {one.role: _score(opened, one, records[one.role]) for one in played}
        models = {one.role: scored[one.role] for one in played if not one.is_baseline}
        reused = [
            record.seconds for one in played for name, record in records[one.role].items() if name not in one.replayed
        ]
        frames = {clip.name: length(clip, max_frames) for clip in clips}
        notes = [note for one in played if not one.is_baseline for note in one.notes]
        results = Results(
            settings=settings,
            data_sha256=manifest.sha256,
            split_sha256=manifest.split_sha256,
            seed=seed,
            versions=program["versions"],
            seconds=round(time.perf_counter() - started + sum(reused), 2),
            peak_rss_bytes=max(result.peak_rss_bytes for result in models.values()),
            models=models,
            baselines={role: result for role, result in scored.items() if role not in models},
            student_vs_teacher=score_against_teacher(clips, frames, out) if len(sources) > 1 else None,
            notes=[*notes, *caveats(settings, models)],
        )
        write_results(out / RESULTS_FILE, results)
        write_board(out, results)
    return results


def _check(max_frames: int | None, task: int, tasks: int, baselines: Sequence[Baseline], replays: Path | None) -> None:
    if max_frames is not None and max_frames < 1:
        raise ConfigError("max_frames", f"is {max_frames}", "at least 1", "Leave it out to use all frames.")
    if not 0 <= task < tasks:
        raise ConfigError("task", f"is {task}", f"0 to tasks - 1, which is {tasks - 1}", "Number the jobs from 0.")
    unknown = [name for name in baselines if name not in BASELINES]
    if unknown:
        raise ConfigError("baselines", f"names {unknown[0]!r}", f"some of {', '.join(BASELINES)}", "Correct it.")
    if replays is not None and not (replays / "tracks").is_dir():
        raise ConfigError(
            "replays", f"{replays} has no tracks", "the folder of an evaluation", "Give what --out was there."
        )


def _score(opened: Opened, played: Played, records: Mapping[str, ReplayRecord]) -> ModelResult:
    """Score one tracker's replays; of a baseline errors get no pictures, and nothing is told of behaviour."""
    clips, out = opened.clips, opened.out
    result = score_model(played.role, played.model, clips, records, out, opened.video)
    strips = opened.video and not played.is_baseline
    result = replace(result, failures=explain_model(played.role, clips, records, out, strips=strips))
    if opened.chain is not None and not played.is_baseline:
        result = replace(result, behaviour=score_chain(played.role, clips, out, opened.chain.behaviour))
    return result


def _read_part(shards: ImageShards, part: Part) -> list[Clip]:
    if part not in PARTS:
        raise ConfigError("split", f"is {part!r}", f"one of {', '.join(PARTS)}", "Correct it.")
    clips = read_shard_clips(shards, part)
    if not clips:
        manifest = shards.manifest
        parts = ", ".join(f"{name} ({manifest.num_samples(name)} frames)" for name in PARTS if manifest.splits[name])
        raise ConfigError(
            "split", f"{part!r} has no clips in {shards.place}", f"a part with clips: {parts or 'none has any'}",
            "Name another part, or write shards with clips of its days.",
        )  # fmt: skip
    return clips
