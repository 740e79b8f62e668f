import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel, RandomDataset
from torch.utils.data import DataLoader

from callbacks.last_checkpoint import LastCheckpoint


class Worsening(BoringModel):
    """Whose loss rises from validation to validation, so that the first is the best."""

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", float(self.global_step))


class Killed(Callback):
    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 11:
            raise KeyError("power cut")


def step_of(path):
    return torch.load(path, weights_only=True)["global_step"]


def fit(folder, steps, module=None, monitor=None, callbacks=(), batches=1, every=4, epochs=None, **options):
    torch.manual_seed(0)
    module = BoringModel() if module is None else module
    best = ModelCheckpoint(folder, filename="best", monitor=monitor, save_last=True, enable_version_counter=False)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        accumulate_grad_batches=batches,
        limit_val_batches=1,
        check_val_every_n_epoch=epochs,
        val_check_interval=every,
        callbacks=[best, LastCheckpoint(), *callbacks],
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


class Blind(BoringModel):
    def val_dataloader(self):
        return []


@pytest.mark.parametrize(("every", "saved"), [(8, 8), (6, 9), (3, 11)])  # batches; two of them are a step
def test_without_anything_to_validate_on_batches_are_counted_as_a_validation_counts_them(every, saved, tmp_path):
    with pytest.raises(KeyError, match="power cut"):
        fit(tmp_path, 20, Blind(), monitor="val/loss", callbacks=[Killed()], batches=2, every=every)
    assert step_of(tmp_path / "last.ckpt") == saved


@pytest.mark.parametrize(("every", "epochs", "saved"), [(0.5, 1, 10), (1.0, 1, 8), (3, 1, 11), (0.25, 2, 8)])
def test_parts_of_an_epoch_are_counted_as_well(every, epochs, saved, tmp_path):
    """Four batches are an epoch, and the power goes before step 12: in the middle of the third."""
    with pytest.raises(KeyError, match="power cut"):
        fit(
            tmp_path, 20, Blind(), monitor="val/loss", callbacks=[Killed()], every=every, epochs=epochs,
            train_dataloaders=DataLoader(RandomDataset(32, 4)),
        )  # fmt: skip
    assert step_of(tmp_path / "last.ckpt") == saved


def test_a_run_without_anything_to_validate_on_is_saved_all_the_same(tmp_path):
    with pytest.raises(KeyError, match="power cut"):
        fit(tmp_path, 20, Blind(), monitor="val/loss", callbacks=[Killed()])
    assert step_of(tmp_path / "last.ckpt") == 8


def test_a_run_that_is_killed_on_a_plateau_goes_on_from_its_last_validation(tmp_path):
    with pytest.raises(KeyError, match="power cut"):
        fit(tmp_path, 20, Worsening(), monitor="val/loss", callbacks=[Killed()])
    assert step_of(tmp_path / "last.ckpt") == 8
    assert step_of(tmp_path / "best.ckpt") == 4
    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", "best.ckpt"}


def test_another_checkpoint_of_the_same_step_does_not_stand_for_the_last(tmp_path):
    often = ModelCheckpoint(tmp_path, filename="at-{step}", every_n_train_steps=4, save_top_k=-1)
    fit(tmp_path, 12, Worsening(), monitor="val/loss", callbacks=[often])
    assert step_of(tmp_path / "at-step=12.ckpt") == 12
    assert step_of(tmp_path / "last.ckpt") == 12


def test_what_was_written_at_this_step_is_not_written_again(tmp_path):
    class Count(Callback):
        saves = 0

        def on_save_checkpoint(self, *_):
            self.saves += 1

    fit(tmp_path, 8, Worsening(), monitor="val/loss", callbacks=[counted := Count()])
    assert counted.saves == 3, "best and last at 4, last at 8, which is also the end"


class Falling(BoringModel):
    """Whose loss is least at the first validation."""

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", 0.1 if self.global_step == 4 else 0.9)


@pytest.mark.parametrize("moved", [False, True])
def test_what_was_best_stays_where_the_folder_is_moved_or_spelled_otherwise(moved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit("run", 4, Falling(), monitor="val/loss")
    folder = (tmp_path / "run").rename(tmp_path / "elsewhere") if moved else tmp_path / "run"
    fit(folder, 8, Falling(), monitor="val/loss", ckpt_path=folder / "last.ckpt")
    assert step_of(folder / "best.ckpt") == 4
    assert step_of(folder / "last.ckpt") == 8


def test_a_resumed_run_saves_nothing_from_within_a_step(tmp_path):
    """Two batches are a step; the checkpoint of the second step is read, and the power goes after one more batch."""

    class CutAfter(Callback):
        def __init__(self, batches):
            self.left = batches

        def on_train_batch_start(self, *_):
            self.left -= 1
            if self.left < 0:
                raise KeyError("power cut")

    def run(batches, **more):
        every = ModelCheckpoint(tmp_path, every_n_train_steps=2, save_last=True, enable_version_counter=False)
        with pytest.raises(KeyError, match="power cut"):
            fit(tmp_path / "other", 9, batches=2, every=1000, callbacks=[every, CutAfter(batches)], **more)
        return torch.load(tmp_path / "last.ckpt", weights_only=True)["loops"]["fit_loop"]["epoch_loop.batch_progress"]

    first = run(5)
    assert first["total"]["processed"] == 4
    assert run(1, ckpt_path=tmp_path / "last.ckpt") == first
