from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from callbacks.sam3_export import Sam3Export


class Saved(LightningModule):
    """Writes its weight, which each step makes larger by one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        return -self.weight

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)

    def save_pretrained(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "weight").write_text(str(int(self.weight)))
        return folder


def trainer(root):
    return Trainer(
        accelerator="cpu", max_steps=3, val_check_interval=2, check_val_every_n_epoch=None, callbacks=[Sam3Export()],
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=root,
    )  # fmt: skip


def loader():
    return torch.utils.data.DataLoader(torch.zeros(8, 1), batch_size=1)


def test_the_last_steps_of_a_fit_are_written_and_a_validation_writes_nothing(tmp_path):
    trainer(tmp_path).fit(Saved(), loader(), loader())
    assert (tmp_path / "sam3/weight").read_text() == "3"
    trainer(tmp_path).validate(Saved(), loader(), verbose=False)  # of another model than the one trained here
    assert (tmp_path / "sam3/weight").read_text() == "3"


def test_a_second_run_elsewhere_leaves_the_first_ones_model(tmp_path, monkeypatch):
    """A recipe names a folder within that of its run."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        run = trainer(tmp_path / name)
        run.callbacks = [Sam3Export("model"), *(one for one in run.callbacks if not isinstance(one, Sam3Export))]
        run.fit(Saved(), loader(), loader())
    assert {path.parent.parent.name for path in tmp_path.rglob("model/weight")} == {"a", "b"}


def test_what_a_kill_left_aside_is_put_back_and_nothing_else(tmp_path):
    aside = tmp_path / ".sam3.old"
    aside.mkdir()
    (aside / "weight").write_text("7")
    (tmp_path / ".users.old").mkdir()
    trainer(tmp_path).validate(Saved(), loader(), verbose=False)
    assert (tmp_path / "sam3/weight").read_text() == "7"
    assert (tmp_path / ".users.old").is_dir()
