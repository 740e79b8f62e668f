import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel

from callbacks.final_checkpoint import FinalCheckpoint


def fit(folder, steps, **options):
    torch.manual_seed(0)
    module = BoringModel()
    best = ModelCheckpoint(folder, filename="best", save_last=True, enable_version_counter=False)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        limit_val_batches=1,
        check_val_every_n_epoch=None,
        val_check_interval=4,
        callbacks=[best, FinalCheckpoint()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, **options)
    return module


@pytest.mark.parametrize("steps", [8, 10, 3])  # at a validation, two steps after one, before the first
def test_the_last_checkpoint_is_of_the_last_step(steps, tmp_path):
    module = fit(tmp_path, steps)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == steps
    assert all(torch.equal(saved["state_dict"][name], value) for name, value in module.state_dict().items())


def test_a_finished_training_goes_on_from_its_last_step(tmp_path):
    fit(tmp_path / "parts", 6)
    resumed = fit(tmp_path / "parts", 10, ckpt_path=tmp_path / "parts" / "last.ckpt")
    whole = fit(tmp_path / "whole", 10)
    assert torch.load(tmp_path / "parts" / "last.ckpt", weights_only=True)["global_step"] == 10
    assert resumed.global_step == whole.global_step == 10
