"""Stream a job's share of the clips through every tracker; finished clips are recognised by their record files."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from datamodules.clip import Clip
from pl_distill.evaluation.chain import TRUTH, Chain, is_described
from pl_distill.evaluation.clip_files import ClipFiles, ReplayRecord
from pl_distill.evaluation.memory import release_memory
from pl_distill.evaluation.models import ModelSource, OpenedModel, open_model
from pl_distill.evaluation.replay_resumption import describe_all, find_records, replay_all, take_over
from pl_distill.evaluation.results import ModelIdentity, Settings
from pl_distill.evaluation.trackers import Baseline, make_tracker
from pl_distill.models.embedder import Embedder
from pl_distill.streaming import PruningPolicy


@dataclass(frozen=True, eq=False)
class Opened:
    """What every tracker of an evaluation has in common.

    Args:
        out: Folder of the evaluation.
        clips: Of the part, those of other jobs too.
        settings: As they are written into results.
        policy: Of our tracker.
        seed: Of torch's generator before each clip.
        video: Whether clips and errors are drawn.
        device: Where everything runs.
        chain: Names what animals do; None names nothing.
        recogniser: By whose embeddings our tracker knows animals again; None knows none.
        identity: All that the tracks of every model depend on.
        bar_line: Of the progress bar.
    """

    out: Path
    clips: Sequence[Clip]
    settings: Settings
    policy: PruningPolicy
    seed: int
    video: bool
    device: torch.device
    chain: Chain | None
    recogniser: Embedder | None
    identity: dict[str, Any]
    bar_line: int | None


@dataclass(frozen=True)
class Played:
    """One tracker that was given all clips.

    Args:
        role: What it is called in results and folders.
        model: Its network.
        notes: What a reader must know about the network.
        identity: All that its tracks depend on.
        is_baseline: Whether it is a simpler tracker beside ours.
        replayed: Names of the clips that this run gave to it, not an earlier one.
    """

    role: str
    model: ModelIdentity
    notes: tuple[str, ...]
    identity: dict[str, Any]
    is_baseline: bool
    replayed: frozenset[str]


def stream_clips(
    opened: Opened,
    clips: Sequence[Clip],
    sources: Sequence[ModelSource],
    baselines: Sequence[Baseline],
    replays: Path | None,
) -> list[Played]:
    """Give the clips of this job to every tracker of every model, one model in memory at a time."""
    max_frames = opened.settings.max_frames
    if opened.chain is not None:
        describe_all(opened.chain, clips, opened.out, _truth_identity(opened), max_frames, opened.bar_line)
    played: list[Played] = []
    taken: list[str] = []
    for source in sources:
        network = open_model(source, opened.settings.prompt, opened.device)
        for baseline in (None, *dict.fromkeys(baselines)):
            role = source.role if baseline is None else f"{source.role}-{baseline}"
            identity = _tracks_identity(opened, network, baseline)
            if replays is not None:
                taken += take_over(role, clips, replays, opened.out, identity, opened.video)
            tracker = make_tracker(network, opened.policy, opened.recogniser, baseline)
            names = replay_all(
                role,
                tracker,
                opened.chain if baseline is None else None,
                clips,
                opened.out,
                identity,
                opened.video,
                max_frames,
                opened.seed,
                opened.bar_line,
                opened.device,
            )
            tracker.close()
            played.append(
                Played(role, network.identity, network.notes, identity, baseline is not None, frozenset(names))
            )
        del network, tracker
        release_memory()
    if replays is not None and not taken and any(one.replayed for one in played):
        tqdm.write(f"nothing of {replays} is of the same model, policy, data, code and versions: all is replayed")
    return played


def _truth_identity(opened: Opened) -> dict[str, Any]:
    """Return all that the chain's answers about the truth depend on."""
    return _plain({**opened.identity, "chain": None if opened.chain is None else opened.chain.identity})


def _tracks_identity(opened: Opened, network: OpenedModel, baseline: Baseline | None) -> dict[str, Any]:
    """Return all that a tracker's tracks depend on; recogniser and chain are of our tracker alone."""
    own: dict[str, Any] = {"model": network.identity.sha256, "preprocessing": network.preprocessing.describe()}
    if baseline is not None:
        own["baseline"] = baseline
    if baseline is None and opened.recogniser is not None:
        own["recogniser"] = opened.recogniser.identity
    if baseline is None and opened.chain is not None:
        own["chain"] = opened.chain.identity
    return _plain({**opened.identity, **own})


def find_all_records(opened: Opened, played: Sequence[Played]) -> dict[str, dict[str, ReplayRecord]] | None:
    """Return each tracker's records by clip; None while clips of other jobs are missing."""
    clips, out, truth = opened.clips, opened.out, _truth_identity(opened)
    if opened.chain is not None and not all(is_described(ClipFiles(out, TRUTH, clip.name), truth) for clip in clips):
        return None
    records = {one.role: find_records(one.role, clips, out, one.identity, opened.video) for one in played}
    return records if all(len(found) == len(clips) for found in records.values()) else None


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """Return `value` as it comes back from JSON: tuples as lists."""
    plain: dict[str, Any] = json.loads(json.dumps(value))
    return plain
