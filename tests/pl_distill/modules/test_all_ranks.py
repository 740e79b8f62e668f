from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader

from datamodules.resumption import ResumableDataLoader
from datamodules.sampling import EpochSampler
from pl_distill.modules.all_ranks import fresh_in_batch


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_over_two_ranks_each_of_seven_samples_is_scored_once(batch_size):
    scored = []
    for rank in range(2):
        plan = EpochSampler([3, 4], batch_size=batch_size, rank=rank, ranks=2, training=False)
        loader = ResumableDataLoader(torch.arange(7), plan)
        trainer = SimpleNamespace(val_dataloaders=loader)
        for number, batch in enumerate(loader):
            scored += batch[: fresh_in_batch(trainer, number, len(batch))].tolist()
    assert scored == list(range(7))


def test_of_another_loader_every_sample_is_scored():
    assert fresh_in_batch(SimpleNamespace(val_dataloaders=DataLoader(torch.arange(7))), 3, 2) == 2
