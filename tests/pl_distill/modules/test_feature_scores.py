import math

import pytest
import torch
from torch import nn

from pl_distill.evaluation.ablation import Share
from pl_distill.modules.distillation import DistillationModule
from pl_distill.modules.feature_scores import feature_shares


class Necks(nn.Module):
    """Two pyramids of one level: the map, and its first channel."""

    def forward(self, features):
        return [features], [features[:, :1]]


def batch(**frames):
    """Frames by key, each the student's vector and the teacher's, of a map of one cell."""
    student, teacher = (torch.tensor(side, dtype=torch.float32) for side in zip(*frames.values(), strict=True))
    return {"key": list(frames), "image": student[:, :, None, None], "teacher_map": teacher[:, :, None, None].half()}


def test_levels_by_hand_where_one_of_three_frames_is_wrong():
    module = DistillationModule("never read")
    module.adopt(nn.Identity(), Necks())
    right, wrong, unseen = ((3, 4), (3, 4)), ((4, 3), (3, 4)), ((-9, 1), (3, 4))
    first, second = "barn3-2026-01-31-cam2", "train-20260131_07"  # whose first parts are no days
    frames = {f"{first}-f00000{number}": unseen for number in (1, 2, 3)}  # the first of four is scored
    batches = [
        batch(**{f"{first}-f000000": right, **frames, f"{second}-f000000": wrong}),
        batch(**{f"{second}-f00000{number}": unseen for number in (1, 2, 3)}, **{f"{first}-f000004": right}),
    ]
    day_of = {first: "2026_01_31", second: "2026_01_30"}
    shares = feature_shares(module, batches, day_of, torch.device("cpu"))
    cosine = (24 / 25 + 1) / 2  # of (4, 3) and (3, 4), and of (4) and (3)
    error = (math.sqrt(2) / 5 + 1 / 3) / 2
    for name, equal, differs in (("level_cosine", 1, cosine), ("level_relative_error", 0, error)):
        assert shares[name] == {
            first: Share("2026_01_31", pytest.approx(2 * equal), 2),
            second: Share("2026_01_30", pytest.approx(differs), 1),
        }


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_every_fourth_frame_is_scored_however_many_a_batch_has(size):
    module = DistillationModule("never read")
    module.adopt(nn.Identity(), Necks())
    right, wrong = ((3, 4), (3, 4)), ((4, 3), (3, 4))
    frames = [(f"clip-f{number:06}", right if number % 4 == 0 else wrong) for number in range(22)]
    batches = [batch(**dict(frames[start : start + size])) for start in range(0, len(frames), size)]
    shares = feature_shares(module, batches, {"clip": "2026_01_31"}, torch.device("cpu"))
    assert shares["level_cosine"] == {"clip": Share("2026_01_31", pytest.approx(6), 6)}
