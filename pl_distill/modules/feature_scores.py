"""How well a student's levels agree with its teacher's, clip by clip: what a comparison of students is paired over."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import torch

from datamodules.batch import DistillationBatch
from pl_distill.evaluation.ablation import Share
from pl_distill.losses.agreement import cosine, relative_error
from pl_distill.losses.feature_loss import pairs
from pl_distill.modules.distillation import DistillationModule

EVERY = 4
"""Of so many frames one is scored: six levels cost more than student and map, and frames are alike."""

AGREEMENT = {"level_cosine": cosine, "level_relative_error": relative_error}


@torch.no_grad()
def feature_shares(
    module: DistillationModule, batches: Iterable[DistillationBatch], day_of: Mapping[str, str], device: torch.device
) -> dict[str, dict[str, Share]]:
    """Score a student on frames of its cache, at the six levels that detector and tracker read.

    Students that give a map and students that give pyramids are alike in these; in the map they are not.

    Args:
        module: With its student, which is put into eval mode.
        batches: Frames with their maps, named ``<clip>-f<frame>`` as in the shards; every fourth of all
            is scored, however many a batch has.
        day_of: First part of the frames' names -> recording day of the clip.
        device: Where both networks run; Lightning takes a module back to the CPU after a fit.

    Returns:
        ``level_cosine`` and ``level_relative_error`` of each clip: the sum over its frames of the mean over levels, and
        the number of frames.
    """
    module.to(device).student.eval()
    module.necks.to(device)
    sums: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in AGREEMENT}
    seen = 0
    for batch in batches:
        scored = slice(-seen % EVERY, None, EVERY)
        seen += len(batch["key"])
        on_device: DistillationBatch = {
            "key": batch["key"][scored],
            "image": batch["image"][scored].to(device),
            "teacher_map": batch["teacher_map"][scored].to(device).float(),
        }
        if not on_device["key"]:
            continue
        features = module.compare(on_device, level_images=len(on_device["key"]))
        levels = pairs(None, None, features.student_levels, features.teacher_levels)
        for number, key in enumerate(on_device["key"]):
            clip = key.rpartition("-f")[0]
            frame = slice(number, number + 1)
            for name, agreement in AGREEMENT.items():
                values = [agreement(ours[frame], theirs[frame]).item() for ours, theirs in levels]
                sums[name][clip].append(sum(values) / len(values))
    return {
        name: {clip: Share(day_of[clip], sum(values), len(values)) for clip, values in clips.items()}
        for name, clips in sums.items()
    }
