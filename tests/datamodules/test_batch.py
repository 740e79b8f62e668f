import pytest
import torch

from datamodules.batch import frames_in
from datamodules.behaviour_windows import BehaviourBatch
from datamodules.pen_crops import CropBatch
from datamodules.windows import WindowBatch


@pytest.mark.parametrize(
    ("batch", "frames"),
    [
        ({"key": ["a", "b"], "image": torch.zeros(2, 3, 8, 8), "teacher_map": torch.zeros(2, 4, 2, 2)}, 2),
        (WindowBatch(keys=(), times=(), images=torch.zeros(2, 5, 3, 8, 8), truth=()), 10),
        (CropBatch(torch.zeros(7, 3, 8, 8), *[torch.zeros(7)] * (len(CropBatch._fields) - 1)), 7),
        (BehaviourBatch(torch.zeros(4, 13, 16), *[torch.zeros(4)] * (len(BehaviourBatch._fields) - 1)), 4),
    ],
)
def test_pictures_are_counted_in_every_kind_of_batch(batch, frames):
    assert frames_in(batch) == frames
