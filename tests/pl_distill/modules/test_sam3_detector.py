import itertools
import random
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from callbacks.sam3_export import Sam3Export
from datamodules.sampling import EpochSampler
from datamodules.tracking import TrackingDataModule
from datamodules.views import FrameTruth
from datamodules.windows import collate
from pl_distill.errors import ConfigError
from pl_distill.models.prompts import load_prompts
from pl_distill.models.sam3 import load_sam3
from pl_distill.modules.prompt_sampling import Vocabulary, misspell
from pl_distill.modules.sam3_detector import Sam3DetectorModule
from pl_distill.modules.schedules import trapezoid

WORDS = Vocabulary(animal="pig", things=("feeder",), absent=("cow",), things_per_image=1.0, absent_per_image=1.0)


def module(**options):
    optimizer = partial(torch.optim.AdamW, lr=1e-3)
    return Sam3DetectorModule("tiny", vocabulary=WORDS, optimizer=optimizer, warmup=2, **options)


def data(shards, **options):
    return TrackingDataModule(
        shards, image_size=112, mask_size=32, batch_size=4, val_every=3, val_batch_size=2, **options
    )


def trainer(folder, steps, **options):
    return Trainer(
        accelerator="cpu", max_steps=steps, max_epochs=-1, default_root_dir=folder, logger=False, log_every_n_steps=1,
        val_check_interval=2, check_val_every_n_epoch=None, num_sanity_val_steps=0, enable_progress_bar=False,
        enable_model_summary=False, **options,
    )  # fmt: skip


def test_a_run_trains_validates_exports_and_resumes(squares, tmp_path):
    torch.manual_seed(0)
    checkpoints = ModelCheckpoint(tmp_path, save_last=True, save_top_k=0, every_n_train_steps=2)
    first = trainer(tmp_path, 2, callbacks=[checkpoints, Sam3Export()])
    task = module()
    first.fit(task, data(squares))
    metrics = first.callback_metrics
    for name in ("val/loss", "val/pig_ap50", "val/feeder_ap50", "val/precision", "val/recall", "val/false_alarms"):
        assert torch.isfinite(metrics[name]), name
    exported = load_sam3(tmp_path / "sam3")
    trained = task.detector.state_dict()
    for name, tensor in exported.detector_model.state_dict().items():
        assert torch.equal(tensor, trained[name]), name
    assert sorted(load_prompts(tmp_path / "sam3")) == ["feeder", "pig"]

    second = trainer(tmp_path, 4)
    resumed = module()
    second.fit(resumed, data(squares), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert second.global_step == 4


def test_pictures_that_fill_a_ranks_share_up_are_not_scored(squares, tmp_path, monkeypatch):
    scored = {}
    for fresh in (2, 1):
        monkeypatch.setattr(EpochSampler, "fresh", fresh)
        torch.manual_seed(0)
        task = module()
        trainer(tmp_path, 1, limit_val_batches=1).validate(task, data(squares), verbose=False)
        scored[fresh] = task._scores["pig"]._scores
    assert [len(pictures) for pictures in scored.values()] == [2, 1]
    assert (scored[1][0] == scored[2][0]).all()


def test_the_loss_falls_on_one_batch(squares):
    torch.manual_seed(0)
    task = module()
    task.configure_model()
    windows = data(squares)._windows("train", [[0]], None)
    batch = collate([windows[number] for number in (0, 6)])
    prompts = WORDS.ask([frame for frames in batch.truth for frame in frames], random.Random(0))
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-3)
    losses = []
    for _ in range(12):
        _, terms = task._compare(batch, prompts)
        losses.append(terms["loss"].item())
        optimizer.zero_grad()
        terms["loss"].backward()
        torch.nn.utils.clip_grad_norm_(task.parameters(), 0.5)
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]


def test_frozen_parts_stay_and_the_rest_learns(squares, tmp_path):
    torch.manual_seed(0)
    task = module(frozen=["vision_encoder.backbone", "text_encoder"])
    task.configure_model()
    before = {name: tensor.clone() for name, tensor in task.detector.state_dict().items()}
    trainer(tmp_path, 2, enable_checkpointing=False, limit_val_batches=0).fit(task, data(squares))
    changed = {name for name, tensor in task.detector.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert not any(name.startswith(("vision_encoder.backbone", "text_encoder")) for name in changed)


def test_what_learns_has_its_dropout_and_what_is_frozen_has_none():
    """Loaded models are in evaluation mode, and Lightning keeps it."""
    trained = module(frozen=["vision_encoder", "text_encoder"])
    trained.configure_model()
    modes = {name: one.training for name, one in trained.detector.named_modules() if isinstance(one, nn.Dropout)}
    learning = {name: mode for name, mode in modes.items() if name.startswith("detr_")}
    assert learning
    assert all(learning.values())
    assert not any(mode for name, mode in modes.items() if name.startswith(("vision_encoder", "text_encoder")))


def test_a_misspelled_part_to_freeze_is_named():
    with pytest.raises(ConfigError, match="backbon"):
        module(frozen=["vision_encoder.backbonne"]).configure_model()


def test_words_mean_their_identities():
    frame = FrameTruth(("1", "feeder", "2"), torch.arange(12.0).view(3, 4), torch.zeros(3, 2, 2))
    assert WORDS.truth("pig", frame).boxes[:, 0].tolist() == [0, 8]
    assert WORDS.truth("feeder", frame).boxes[:, 0].tolist() == [4]
    assert len(WORDS.truth("cow", frame).boxes) == 0
    asked = WORDS.ask([frame, frame], random.Random(0))
    assert [prompt.word for prompt in asked if prompt.image == 1][:2] == ["pig", "feeder"]
    absent = [prompt for prompt in asked if prompt.word not in WORDS.words]
    assert len(absent) == 2
    assert all(len(prompt.truth.boxes) == 0 for prompt in absent)


def test_absent_words_never_name_what_is_there():
    chance = random.Random(0)
    drawn = {WORDS.absent_word(chance) for _ in range(3000)}
    assert not drawn & {"pig", "feeder", "pigs", "feeders"}
    assert "cow" in drawn
    assert len(drawn) > 500


def test_a_misspelling_differs_by_one_letter():
    chance = random.Random(1)
    assert all(abs(len(misspell("feeder", chance)) - 6) <= 1 for _ in range(200))
    assert misspell("a", chance)


def test_the_learning_rate_rises_stays_and_falls():
    rates = [trapezoid(step, 100, warmup=10, cooldown=0.5) for step in range(101)]
    assert rates[:2] == [0.1, 0.2]
    assert rates[10:51] == [1.0] * 41
    assert rates[100] == 0
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[50:]))


def test_masks_of_a_part_of_the_prompts_are_compared_with_their_own_truth(squares):
    torch.manual_seed(0)
    task = module()
    task.configure_model()
    batch = collate([data(squares)._windows("train", [[0]], None)[number] for number in (0, 6)])
    prompts = WORDS.ask([frame for frames in batch.truth for frame in frames], random.Random(0))
    known = [len(prompt.truth.boxes) > 0 for prompt in prompts]
    assert known == [True, True, False] * 2  # pig, feeder, an absent word
    with torch.no_grad():
        for share, wanted in ((0.0, []), (0.5, [0, 1]), (0.6, [0, 1, 3]), (1.0, [0, 1, 3, 4])):
            output, with_masks = task(batch.images.flatten(0, 1), prompts, share)
            assert with_masks.nonzero().flatten().tolist() == wanted
            assert len(output.masks) == len(wanted)


def test_boxes_alone_are_enough(squares):
    torch.manual_seed(0)
    task = module()
    task.configure_model()
    batch = collate([data(squares)._windows("train", [[0]], None)[0]])
    frame = batch.truth[0][0]
    batch.truth = ((FrameTruth(frame.identities, frame.boxes, None),),)
    prompts = WORDS.ask(batch.truth[0], random.Random(0))
    output, terms = task._compare(batch, prompts)
    assert output.masks.shape[0] == 0
    terms["loss"].backward()
    assert task.detector.detr_decoder.box_head.layer3.weight.grad.abs().sum() > 0
