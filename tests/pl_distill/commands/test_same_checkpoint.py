"""Processes that found different checkpoints would train from different steps, until a collective hangs."""

import subprocess
import sys

import pytest

TRAIN = """
import os, sys
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from pl_distill.commands.same_checkpoint import SameCheckpoint
from pl_distill.errors import ConfigError

folder, differs = sys.argv[1], sys.argv[2] == "differs"
options = dict(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
late = differs and os.environ.get("LOCAL_RANK", "0") == "1"
same = SameCheckpoint()
same.found = None if late else folder + "/first.ckpt"
if sys.argv[2] == "older" and os.environ.get("LOCAL_RANK", "0") == "1":  # what a file system shows under the same name
    BoringModel.on_load_checkpoint = lambda self, checkpoint: checkpoint["loops"]["fit_loop"][
        "epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"].update(completed=1)
trainer = Trainer(
    **options, devices=2, strategy="ddp", max_steps=4, limit_val_batches=0, enable_checkpointing=False,
    callbacks=[same],
)
try:
    trainer.fit(BoringModel(), ckpt_path=same.found)
except ConfigError as error:
    print("REFUSED", error, flush=True)
    sys.exit(3)
print("STEP", trainer.global_step, flush=True)
"""
FIRST = """
import sys
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
trainer = Trainer(accelerator="cpu", devices=1, max_steps=2, logger=False, limit_val_batches=0,
                  enable_checkpointing=False, enable_progress_bar=False)
trainer.fit(BoringModel())
trainer.save_checkpoint(sys.argv[1] + "/first.ckpt")
"""


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    folder = tmp_path_factory.mktemp("first")
    subprocess.run([sys.executable, "-c", FIRST, str(folder)], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize(
    ("found", "code", "said"),
    [
        ("differs", 3, "REFUSED --ckpt_path: is "),
        ("older", 3, "REFUSED --ckpt_path: is at step "),
        ("same", 0, "STEP 4"),
    ],
)
def test_two_processes_go_on_from_one_checkpoint_or_not_at_all(found, code, said, first, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(TRAIN)
    words = [sys.executable, str(script), str(first), found]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240)
    assert said in done.stdout
    assert done.returncode == code
