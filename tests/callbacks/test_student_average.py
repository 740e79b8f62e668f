import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import nn

from callbacks.last_checkpoint import LastCheckpoint
from callbacks.student_average import StudentAverage
from pl_distill.errors import ConfigError
from pl_distill.strategies import CPUDeepSpeedStrategy


class Walker(LightningModule):
    """A weight that goes up by one at each step, beside a BatchNorm."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.norm = nn.BatchNorm1d(2)

    def training_step(self, batch, batch_idx):
        return -self.weight + 0 * self.norm(batch).sum()

    def validation_step(self, batch, batch_idx):
        self.log("weight", self.weight.detach())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


class Crash(Callback):
    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 3:
            raise KeyError("power cut")


def fit(folder, *more, max_steps=5, ckpt_path=None, steps_between=1, **options):
    frames = torch.arange(4.0).view(2, 2).repeat(5, 1)  # equal batches: the order of the data is not what is tested
    loader = torch.utils.data.DataLoader(frames, batch_size=2)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    checkpoint = ModelCheckpoint(
        folder, filename="{step}", every_n_train_steps=steps_between, save_top_k=-1, save_last=True
    )
    callbacks = [StudentAverage(**options), checkpoint, *more]
    trainer = Trainer(accelerator="cpu", max_steps=max_steps, callbacks=callbacks, default_root_dir=folder, **quiet)
    module = Walker()
    trainer.fit(module, loader, loader, ckpt_path=ckpt_path, weights_only=True)
    return module, trainer


def by_hand(steps, decay):
    average = 1.0  # a copy after the first step
    for n in range(1, steps):
        kept = min(decay, (1 + n) / (10 + n))
        average += (1 - kept) * (n + 1 - average)
    return average


@pytest.mark.parametrize("decay", [0.999, 0.25])
def test_the_average_by_hand_is_what_is_validated_and_kept(decay, tmp_path):
    module, trainer = fit(tmp_path, decay=decay)
    assert module.weight.item() == pytest.approx(by_hand(5, decay))
    assert trainer.callback_metrics["weight"].item() == pytest.approx(by_hand(5, decay))
    assert module.norm.num_batches_tracked.item() == 5


def test_a_checkpoint_holds_the_average_and_a_resumed_run_ends_the_same(tmp_path):
    whole, _ = fit(tmp_path / "whole")
    with pytest.raises(KeyError, match="power cut"):
        fit(tmp_path / "killed", Crash())
    path = tmp_path / "killed" / "step=3.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["state_dict"]["weight"].item() == pytest.approx(by_hand(3, 0.999))
    assert checkpoint["current_model_state"]["weight"].item() == 3
    resumed, _ = fit(tmp_path / "killed", ckpt_path=path)
    ours, theirs = resumed.state_dict(), whole.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_finished_training_opened_again_gives_the_average_and_one_made_longer_goes_on_with_the_weights(tmp_path):
    fit(tmp_path, LastCheckpoint(), steps_between=4)  # the end is saved when the training is over
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["current_model_state"]["weight"].item() == 5
    opened, _ = fit(tmp_path, ckpt_path=tmp_path / "last.ckpt")
    assert opened.weight.item() == pytest.approx(by_hand(5, 0.999))
    longer, _ = fit(tmp_path, max_steps=8, ckpt_path=tmp_path / "last.ckpt")
    assert longer.weight.item() == pytest.approx(by_hand(8, 0.999))


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_senseless_decay_is_refused(decay):
    with pytest.raises(ConfigError, match=r"StudentAverage\.decay"):
        StudentAverage(decay)


def test_deepspeed_is_refused():
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.__class__ = CPUDeepSpeedStrategy
    with pytest.raises(ConfigError, match=r"trainer/ddp\.yaml"):
        StudentAverage().setup(trainer, Walker(), "fit")


def test_the_average_follows_the_student_to_its_device():
    module, callback = Walker(), StudentAverage()
    trainer = Trainer(accelerator="cpu", logger=False)
    callback.setup(trainer, module, "fit")
    module.to("meta")  # as the strategy moves it to a GPU, after the callbacks' setup
    callback.on_fit_start(trainer, module)
    assert {tensor.device.type for tensor in callback._average_model.state_dict().values()} == {"meta"}
