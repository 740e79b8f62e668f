"""Give every clip to a tracker, or to the chain behind it, but for those that an earlier run finished."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from datamodules.clip import Clip
from pl_distill.evaluation.chain import TRUTH, Chain, describe_truth, is_described
from pl_distill.evaluation.clip_files import ClipFiles, ReplayRecord, copy_replay, find_record
from pl_distill.evaluation.replay import Tracker, length
from pl_distill.evaluation.replay_recording import record_clip


def find_records(
    role: str, clips: Sequence[Clip], out: Path, identity: Mapping[str, Any], video: bool
) -> dict[str, ReplayRecord]:
    """Return the records of those clips that this or another run finished."""
    found = {clip.name: find_record(ClipFiles(out, role, clip.name), identity, video) for clip in clips}
    return {name: record for name, record in found.items() if record is not None}


def take_over(
    role: str, clips: Sequence[Clip], source: Path, out: Path, identity: Mapping[str, Any], video: bool
) -> list[str]:
    """Copy those clips that are not finished here and are in another evaluation; return their names."""
    finished = find_records(role, clips, out, identity, video)
    found = find_records(role, [clip for clip in clips if clip.name not in finished], source, identity, video)
    for name, record in found.items():
        copy_replay(ClipFiles(source, role, name), ClipFiles(out, role, name), record, video)
    if found:
        tqdm.write(f"{role}: {len(found)} of {len(clips)} clips are taken from {source}")
    return list(found)


def describe_all(
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


def replay_all(
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
    records = find_records(role, clips, out, identity, video)
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
