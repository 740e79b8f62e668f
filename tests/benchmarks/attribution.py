"""Which part of SAM 3 loses how much by a student's features: the detector, the tracker, or both together.

Teacher and student both look at every picture; the detector is given the map of one and the tracker that of the other.
Clips are those of shards, streamed and scored as `pl-distill evaluate` does.
Example: ``python -m tests.benchmarks.attribution --data SHARDS --max-frames 100 --out runs/attribution``
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from datamodules.files import write_json
from datamodules.image_shards import ImageShards
from datamodules.shard_reader import read_shard_clips
from pl_distill.evaluation.evaluate import program_identity
from pl_distill.evaluation.models import STUDENT, TEACHER, ModelSource, OpenedModel, open_model
from pl_distill.evaluation.replay_resumption import find_records, replay_all
from pl_distill.evaluation.scoring import score_model
from pl_distill.evaluation.statistics import compare_pairs, show_score
from pl_distill.models.sam3 import Necks, Pyramids, load_necks, substitute
from pl_distill.models.sam3_load import trunk_map
from pl_distill.streaming import PruningPolicy, StreamingTracker

ARMS = {
    "teacher": (TEACHER, TEACHER),
    "student for the detector": (STUDENT, TEACHER),
    "student for the tracker": (TEACHER, STUDENT),
    "student": (STUDENT, STUDENT),
}
"""Whose map the detector reads, and whose the tracker."""


class TwoTrunks(nn.Module):
    """Both pyramids of the teacher's necks, the detector's of one model's map and the tracker's of another's."""

    keeps_necks = False

    def __init__(self, for_detector: Any, for_tracker: Any, necks: Necks) -> None:
        super().__init__()
        self.models, self.necks = [for_detector, for_tracker], necks  # a list: they are no parts of this

    def forward(self, images: Tensor) -> Pyramids:
        """Map images (B, 3, S, S) to both pyramids."""
        for_detector, for_tracker = (self.necks(trunk_map(model, images)) for model in self.models)
        return Pyramids(for_detector.detector, for_tracker.tracker)


def combine(for_detector: OpenedModel, for_tracker: OpenedModel, necks: Necks) -> OpenedModel:
    """Return a model whose detector reads the trunk of one and whose tracker reads that of the other."""
    return replace(
        for_detector,
        sam3=substitute(for_detector.sam3, TwoTrunks(for_detector.sam3, for_tracker.sam3, necks)),
    )


def main(words: Sequence[str] | None = None) -> None:
    """Stream every arm, score it, and print a table of differences to the teacher."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="image shards; their test part is streamed")
    parser.add_argument("--student", default="pen_student")
    parser.add_argument("--teacher", default="pen_teacher")
    parser.add_argument("--prompt", default="pig")
    parser.add_argument("--max-frames", type=int, default=None)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(words)
    shards, policy, device = ImageShards(given.data), PruningPolicy(), torch.device("cpu")
    clips = read_shard_clips(shards, "test")
    opened = {
        TEACHER: open_model(ModelSource(TEACHER, given.teacher), given.prompt, device),
        STUDENT: open_model(ModelSource(STUDENT, given.student, given.teacher), given.prompt, device),
    }
    necks = load_necks(given.teacher)
    rows: dict[str, Any] = {}
    for arm in given.arms:
        role, parts = arm.replace(" ", "-"), [opened[one] for one in ARMS[arm]]
        model = parts[0] if ARMS[arm][0] == ARMS[arm][1] else combine(parts[0], parts[1], necks)
        identity = {
            "arm": arm,
            "max_frames": given.max_frames,
            "models": [one.identity.sha256 for one in parts],
            "data_sha256": shards.manifest.sha256,
            "prompt": given.prompt,
            "policy": asdict(policy),
            **program_identity(),
        }
        tracker = StreamingTracker(model.sam3, model.prompt, model.preprocessing, policy)
        replay_all(role, tracker, None, clips, given.out, identity, False, given.max_frames, 0, None, device)
        records = find_records(role, clips, given.out, identity, False)
        rows[arm] = score_model(role, model.identity, clips, records, given.out, False)
    content = {}
    for arm, row in rows.items():
        scores = {"mota": row.overall.mota, "idf1": row.overall.idf1}
        pair = compare_pairs([(rows["teacher"], row)]) if arm != "teacher" and "teacher" in rows else []
        differences = {one.metric: one for one in pair}
        shown = [f"{name} {show_score(value, differences.get(name))}" for name, value in scores.items()]
        tqdm.write(f"{arm}: {', '.join(shown)}, mask overlap {show_score(row.mask_overlap, None)}")
        content[arm] = {**scores, "mask_overlap": row.mask_overlap, "differences": [asdict(one) for one in pair]}
    about = {"clips": len(clips), "max_frames": given.max_frames, "data_sha256": shards.manifest.sha256}
    write_json(given.out / "attribution.json", {**about, **program_identity(), "arms": content})


if __name__ == "__main__":
    main()
