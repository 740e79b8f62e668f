"""A training whose weights are no numbers any more saves and exports nothing."""

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel

from datamodules.errors import UserError
from pl_distill.commands.finite_weights import FiniteWeights, are_finite


class Diverging(BoringModel):
    def on_train_batch_end(self, *_):
        if self.global_step == 3:
            with torch.no_grad():
                self.layer.bias[0] = float("inf")


class Export(Callback):
    def __init__(self):
        self.finite = []

    def on_train_end(self, trainer, module):
        self.finite.append(are_finite(module))


def fit(folder, module):
    export = Export()
    keep = ModelCheckpoint(folder, every_n_train_steps=2, save_last=True, enable_version_counter=False)
    trainer = Trainer(
        accelerator="cpu", max_steps=5, limit_val_batches=0, callbacks=[FiniteWeights(), export, keep],
        logger=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(module)
    return export


def test_weights_that_are_not_finite_leave_the_checkpoint_before_them(tmp_path):
    with pytest.raises(UserError, match="at step 4: the training has diverged"):
        fit(tmp_path, Diverging())
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 2


def test_what_is_finite_is_saved_and_exported(tmp_path):
    assert fit(tmp_path, BoringModel()).finite == [True]
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 4


def test_statistics_count_and_whole_numbers_are_finite():
    module = BoringModel()
    module.norm = torch.nn.BatchNorm1d(2)
    assert are_finite(module)
    module.norm.running_var[1] = float("nan")
    assert not are_finite(module)


def test_of_zero3_the_part_of_this_rank_is_looked_at_without_what_fills_it_up():
    module = BoringModel()
    weight = module.layer.weight
    weight.data = torch.empty(0)  # as DeepSpeed leaves it
    weight.ds_tensor, weight.ds_numel = torch.tensor([1.0, float("nan")]), 3
    assert not are_finite(module, rank=0)
    assert are_finite(module, rank=1), "of three values the second rank has one"
