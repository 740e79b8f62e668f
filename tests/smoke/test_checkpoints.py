"""What `--ckpt_path` of fit and validate may be; a run that cannot start leaves the run that lies there as it is."""

import shutil
from pathlib import Path

import pytest
import torch

from pl_distill.cli import main

pytestmark = pytest.mark.smoke


@pytest.fixture(scope="module")
def run(cached, tmp_path_factory):
    """A finished fit of two steps, and the words that made it."""
    folder = tmp_path_factory.mktemp("checkpoints") / "run"
    words = ["fit", "--config", "distill/pen.yaml", "--config", "trainer/smoke.yaml", *cached("tiny").options]
    words += ["--data.batch_size=2", "--data.num_workers=0", "--trainer.max_steps=2"]
    assert main([*words, f"--trainer.default_root_dir={folder}"]) == 0
    return folder, words


@pytest.fixture
def copy(run, tmp_path):
    return Path(shutil.copytree(run[0], tmp_path / "run"))


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("chosen", ["last", "checkpoints/best.ckpt"])
def test_validate_shows_scores_and_leaves_the_fit_as_it_is(run, copy, chosen, capsys):
    kept = {path: path.read_bytes() for pattern in ("config.yaml", "events*") for path in copy.glob(pattern)}
    chosen = chosen if chosen == "last" else str(copy / chosen)
    more = [f"--trainer.default_root_dir={copy}", "--data.batch_size=1"]
    assert main(["validate", "--config", str(copy / "config.yaml"), f"--ckpt_path={chosen}", *more]) == 0
    assert "val/cosine" in capsys.readouterr().out
    assert {path: path.read_bytes() for pattern in ("config.yaml", "events*") for path in copy.glob(pattern)} == kept


def test_a_training_that_diverges_keeps_the_last_checkpoint_that_can_be_used(run, copy, capsys):
    kept = (copy / "checkpoints" / "best.ckpt").read_bytes()
    (copy / "checkpoints" / "last.ckpt").unlink()  # of the run that lies there: it would not be begun anew
    more = [f"--trainer.default_root_dir={copy}", "--trainer.max_steps=6", "--model.optimizer.lr=1e30"]
    assert main([*run[1], *more]) == 1
    said = capsys.readouterr().err
    assert "has weights that are infinite or not a number at step 2: the training has diverged" in said
    assert "lower learning rate" in said
    assert (copy / "checkpoints" / "best.ckpt").read_bytes() == kept
    assert not (copy / "checkpoints" / "last.ckpt").exists()
    assert '"state": "failed"' in (copy / "run_state.json").read_text()


def damaged(folder):
    path = folder / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:2000])
    return path


def foreign(folder):
    torch.save({"epoch": 1}, folder / "other.ckpt")
    return folder / "other.ckpt"


@pytest.mark.parametrize("verb", ["fit", "validate"])
@pytest.mark.parametrize(
    ("make", "more", "found"),
    [
        (lambda folder: folder / "nowhere.ckpt", (), "nowhere.ckpt: does not exist"),
        (damaged, (), "last.ckpt: cannot be read"),
        (foreign, (), "other.ckpt: holds a dict of epoch, but no state_dict"),
        (lambda folder: folder / "checkpoints", (), "is a directory, as DeepSpeed writes it, expected a file"),
        (lambda folder: "best", (), "--ckpt_path best: names no checkpoint"),
        (
            lambda folder: folder / "checkpoints" / "last.ckpt",
            ("--model.student.fpn_channels=32",),
            "has other shapes",
        ),
        (
            lambda folder: "last",
            ("--model.student.depths=[1,1,1,1]",),
            "has the unknown student.body.stages.2.blocks.1",
        ),
    ],
)
def test_a_checkpoint_that_does_not_do_is_refused(run, copy, verb, make, more, found, capsys):
    chosen = make(copy)
    before = content(copy)
    words = [verb, *run[1][1:], f"--trainer.default_root_dir={copy}", "--trainer.max_steps=4", *more]
    assert main([*words, f"--ckpt_path={chosen}"]) == 1
    printed = capsys.readouterr().err
    assert found in printed.splitlines()[-1]
    assert "Traceback" not in printed
    after = content(copy)
    if verb == "fit":  # says that this start failed
        del before[copy / "run_state.json"], after[copy / "run_state.json"]
    assert {path: after[path] for path in before} == before
    assert all(path.name.startswith("events.") for path in after.keys() - before.keys())  # Lightning's empty log


@pytest.mark.parametrize("change", ["--model.optimizer.lr=1e-4", "--model.loss.value_weight=3"])
def test_a_fit_that_would_be_another_training_is_refused_and_leaves_the_run_as_it_is(run, copy, change, capsys):
    before = (copy / "config.yaml").read_bytes()
    words = [*run[1], f"--trainer.default_root_dir={copy}", "--trainer.max_steps=4", "--ckpt_path=last"]
    assert main([*words, change]) == 1
    printed = capsys.readouterr().err
    assert "last.ckpt: is of a run with model." in printed.splitlines()[-1]
    assert "Traceback" not in printed
    assert (copy / "config.yaml").read_bytes() == before
    assert main(["validate", *words[1:], change]) == 0
    assert main(words) == 0  # more steps are no other training


def test_validate_needs_a_checkpoint(run, tmp_path, capsys):
    words = ["validate", *run[1][1:], f"--trainer.default_root_dir={tmp_path / 'empty'}"]
    assert main(words) == 1
    assert "--ckpt_path: is missing" in capsys.readouterr().err
    assert main([*words, "--ckpt_path=last"]) == 1
    assert "--ckpt_path last: finds no checkpoint below" in capsys.readouterr().err
    assert not (tmp_path / "empty").exists()


def test_a_first_run_may_be_told_to_go_on(run, tmp_path):
    """So that a job that may be started again has one command."""
    folder = tmp_path / "first"
    assert main([*run[1], f"--trainer.default_root_dir={folder}", "--ckpt_path=last"]) == 0
    assert (folder / "config.yaml").is_file()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_is_damaged_in_its_shard_is_named(cached, run, tmp_path, workers, capsys):
    data = cached("tiny")
    shards = Path(shutil.copytree(data.shards, tmp_path / "shards"))
    for tar in shards.glob("train/*.tar"):
        content = bytearray(tar.read_bytes())
        start = content.find(b"\xff\xd8\xff")  # of a JPEG
        content[start : start + 300] = bytes(300)
        tar.write_bytes(bytes(content))
    words = [
        *run[1],
        f"--data.shards={shards}",
        f"--data.num_workers={workers}",
        f"--trainer.default_root_dir={tmp_path}",
    ]
    assert main(words) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {shards}/train/train-00000")
    assert ", expected " in error
