"""Stream the clips of a split through one model or two, score the tracks, and write everything into one folder.

Each clip of each model is a unit of work: what a killed run finished is found again by its record and not repeated.
"""

import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from datamodules.clip import Clip
from datamodules.image_shards import ImageShards
from datamodules.remote import COPIES, LocalCopies
from datamodules.shard_reader import read_shard_clips
from datamodules.splits import PARTS, Part
from pl_distill.errors import ConfigError
from pl_distill.evaluation.behaviour_scoring import score_chain
from pl_distill.evaluation.board import write_board
from pl_distill.evaluation.caveats import caveats
from pl_distill.evaluation.chain import TRUTH, Chain, describe_truth, is_described, open_chain
from pl_distill.evaluation.clip_files import ClipFiles, ReplayRecord, find_record
from pl_distill.evaluation.devices import choose_device
from pl_distill.evaluation.memory import release_memory
from pl_distill.evaluation.models import open_model, plan_models
from pl_distill.evaluation.pairing import IOU_THRESHOLD
from pl_distill.evaluation.recording import record_clip
from pl_distill.evaluation.replay import Tracker, length
from pl_distill.evaluation.results import ModelIdentity, ModelResult, Results, Settings, write_results
from pl_distill.evaluation.scoring import explain_model, score_against_teacher, score_model
from pl_distill.evaluation.trackers import BASELINES, Baseline, make_tracker
from pl_distill.models.embedder_load import PEN_EMBEDDER
from pl_distill.streaming import PruningPolicy

RESULTS_FILE = "results.json"
DEFAULT_POLICY = PruningPolicy()
_NAMES_ONLY = ("data", "embedder", "behaviour")  # what lies behind these names is in the identity by its hash
_VERSIONS = ("pl-distill", "torch", "transformers", "timm", "motmetrics", "numpy")


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
        policy: What the tracker forgets, and when tracks end.
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
    if max_frames is not None and max_frames < 1:
        raise ConfigError("max_frames", f"is {max_frames}", "at least 1", "Leave it out to use all frames.")
    if not 0 <= task < tasks:
        raise ConfigError("task", f"is {task}", f"0 to tasks - 1, which is {tasks - 1}", "Number the jobs from 0.")
    unknown = [name for name in baselines if name not in BASELINES]
    if unknown:
        raise ConfigError("baselines", f"names {unknown[0]!r}", f"some of {', '.join(BASELINES)}", "Correct it.")
    chain = None if behaviour is None else open_chain(embedder, behaviour, where)
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
    versions = {name: version(name) for name in _VERSIONS} | {"python": platform.python_version()}
    identity = {
        "data_sha256": manifest.sha256,
        "settings": {key: value for key, value in asdict(settings).items() if key not in _NAMES_ONLY}
        | {"device": where.type},  # jobs that share the clips have a GPU each
        "seed": seed,
        "versions": versions,
    }
    models: dict[str, ModelResult] = {}
    beside: dict[str, ModelResult] = {}
    notes: list[str] = []
    played: list[tuple[str, ModelIdentity, dict[str, Any]]] = []
    described = _plain({**identity, "chain": None if chain is None else chain.identity})
    if chain is not None:
        _describe_all(chain, clips[task::tasks], out, described, max_frames, bar_line)
    replayed: set[tuple[str, str]] = set()
    for source in sources:
        opened = open_model(source, prompt, where)
        notes += opened.notes
        own = _plain({**identity, "model": opened.identity.sha256, "preprocessing": opened.preprocessing.describe()})
        for baseline in (None, *dict.fromkeys(baselines)):
            role = source.role if baseline is None else f"{source.role}-{baseline}"
            own_chain = chain if baseline is None else None
            identity_of_role = own if baseline is None else {**own, "baseline": baseline}
            if own_chain is not None:
                identity_of_role = {**identity_of_role, "chain": own_chain.identity}
            played.append((role, opened.identity, identity_of_role))
            tracker = make_tracker(opened, policy, baseline)
            names = _replay_all(
                role,
                tracker,
                own_chain,
                clips[task::tasks],
                out,
                identity_of_role,
                video,
                max_frames,
                seed,
                bar_line,
                where,
            )
            tracker.close()
            replayed |= {(role, name) for name in names}
        del opened, tracker
        release_memory()
    if chain is not None and not all(is_described(ClipFiles(out, TRUTH, clip.name), described) for clip in clips):
        return None
    reused_seconds = 0.0
    for role, model_identity, own in played:
        records = _find_records(role, clips, out, own, video)
        if len(records) < len(clips):
            return None
        reused_seconds += sum(record.seconds for name, record in records.items() if (role, name) not in replayed)
        own_role = role in {source.role for source in sources}
        result = score_model(role, model_identity, clips, records, out, video)
        result = replace(result, failures=explain_model(role, clips, records, out, strips=video and own_role))
        if chain is not None and own_role:
            result = replace(result, behaviour=score_chain(role, clips, out, chain.behaviour))
        (models if own_role else beside)[role] = result

    frames = {clip.name: length(clip, max_frames) for clip in clips}
    results = Results(
        settings=settings,
        split_sha256=manifest.split_sha256,
        seed=seed,
        versions=versions,
        seconds=round(time.perf_counter() - started + reused_seconds, 2),
        peak_rss_bytes=max(result.peak_rss_bytes for result in (*models.values(), *beside.values())),
        models=models,
        baselines=beside,
        student_vs_teacher=score_against_teacher(clips, frames, out) if len(sources) > 1 else None,
        notes=[*notes, *caveats(settings, models)],
    )
    write_results(out / RESULTS_FILE, results)
    write_board(out, results)
    return results


def _read_part(shards: ImageShards, part: Part) -> list[Clip]:
    if part not in PARTS:
        raise ConfigError("split", f"is {part!r}", f"one of {', '.join(PARTS)}", "Correct it.")
    clips = read_shard_clips(shards, part)
    if not clips:
        manifest = shards.manifest
        held = ", ".join(f"{name} ({manifest.num_samples(name)} frames)" for name in PARTS if manifest.splits[name])
        raise ConfigError(
            "split", f"{part!r} has no clips in {shards.place}", f"a part with clips: {held or 'none has any'}",
            "Name another part, or write shards with clips of its days.",
        )  # fmt: skip
    return clips


def _find_records(
    role: str, clips: Sequence[Clip], out: Path, identity: Mapping[str, Any], video: bool
) -> dict[str, ReplayRecord]:
    """Return the records of those clips that this or another run finished."""
    found = {clip.name: find_record(ClipFiles(out, role, clip.name), identity, video) for clip in clips}
    return {name: record for name, record in found.items() if record is not None}


def _describe_all(
    chain: Chain,
    clips: Sequence[Clip],
    out: Path,
    identity: dict[str, Any],
    max_frames: int | None,
    bar_line: int | None,
) -> None:
    """Give the truth of every clip to the chain, but for those that an earlier run finished."""
    left = [clip for clip in clips if not is_described(ClipFiles(out, TRUTH, clip.name), identity)]
    total = sum(length(clip, max_frames) for clip in left)
    with tqdm(
        total=total, desc=TRUTH, unit="frame", disable=not left, position=bar_line, leave=bar_line is None
    ) as bar:
        for clip in left:
            bar.set_postfix_str(clip.name)
            files = ClipFiles(out, TRUTH, clip.name)
            describe_truth(clip, chain, files, identity, max_frames=max_frames, progress=bar)


def _replay_all(
    role: str,
    tracker: Tracker,
    chain: Chain | None,
    clips: Sequence[Clip],
    out: Path,
    identity: dict[str, Any],
    video: bool,
    max_frames: int | None,
    seed: int,
    bar_line: int | None,
    device: torch.device,
) -> list[str]:
    """Replay every clip that no earlier run finished, and return their names."""
    records = _find_records(role, clips, out, identity, video)
    if records:
        tqdm.write(f"{role}: {len(records)} of {len(clips)} clips are reused from an earlier run")
    frames = sum(length(clip, max_frames) for clip in clips)
    done = sum(len(record.objects) for record in records.values())
    left = [clip for clip in clips if clip.name not in records]
    with (
        logging_redirect_tqdm(),
        tqdm(
            total=frames,
            initial=done,
            desc=role,
            unit="frame",
            disable=done == frames,
            position=bar_line,
            leave=bar_line is None,
        ) as bar,
    ):
        for clip in left:
            bar.set_postfix_str(clip.name)
            torch.manual_seed(seed)
            files = ClipFiles(out, role, clip.name)
            record_clip(
                clip,
                tracker,
                files,
                identity,
                video=video,
                max_frames=max_frames,
                progress=bar,
                chain=chain,
                device=device,
            )
    return [clip.name for clip in left]


def _plain(value: Any) -> Any:
    """Return `value` as it comes back from JSON: tuples as lists."""
    return json.loads(json.dumps(value))
