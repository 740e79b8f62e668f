"""How well a student's map agrees with the cached one, clip by clip: what a comparison of students is paired over."""

from collections import defaultdict
from collections.abc import Iterable

import torch

from datamodules.batch import DistillationBatch
from pl_distill.evaluation.ablation import Share
from pl_distill.losses.agreement import cosine, relative_error
from pl_distill.modules.distillation import DistillationModule

AGREEMENT = {"cosine": cosine, "relative_error": relative_error}


@torch.no_grad()
def feature_shares(module: DistillationModule, batches: Iterable[DistillationBatch]) -> dict[str, dict[str, Share]]:
    """Score a student on frames of its cache.

    Args:
        module: With its student, which is put into eval mode.
        batches: Frames with their maps, named ``<day>-<number>-f<frame>`` as in the shards.

    Returns:
        ``cosine`` and ``relative_error`` of each clip: the sum over its frames, and their number. Of a student that
        gives pyramids, the means over their levels.
    """
    module.student.eval()
    sums: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in AGREEMENT}
    for batch in batches:
        on_device: DistillationBatch = {
            "key": batch["key"],
            "image": batch["image"].to(module.device),
            "teacher_map": batch["teacher_map"].to(module.device).float(),
        }
        compared = module.compare(on_device, level_images=0).compared
        for number, key in enumerate(batch["key"]):
            clip = key.rpartition("-f")[0]
            frame = slice(number, number + 1)
            for name, agreement in AGREEMENT.items():
                values = [agreement(ours[frame], theirs[frame]).item() for ours, theirs in compared]
                sums[name][clip].append(sum(values) / len(values))
    return {
        name: {clip: Share(clip.partition("-")[0], sum(values), len(values)) for clip, values in clips.items()}
        for name, clips in sums.items()
    }
