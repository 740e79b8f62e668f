import random
import shutil
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from callbacks.sam3_export import Sam3Export
from datamodules.errors import DataError
from datamodules.sampling import EpochSampler
from datamodules.tracking import TrackingDataModule
from datamodules.views import FrameTruth
from datamodules.windows import WindowBatch, collate
from pl_distill.models.prompts import compute_prompts, load_prompts, save_prompts
from pl_distill.models.sam3 import load_sam3, write_random_sam3
from pl_distill.models.sam3_config import load_sam3_config
from pl_distill.models.sam3_tracker import tracker_features
from pl_distill.modules.sam3_tracker import Sam3TrackerModule
from pl_distill.modules.tracking_unroll import ObjectWindow, Sloppiness, unroll


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    config = load_sam3_config("tiny")
    config.tracker_config.prompt_encoder_config.mask_input_channels = 16  # with 4, their LayerNorm erases the prompt
    return str(write_random_sam3(config, tmp_path_factory.mktemp("tracker") / "sam3", seed=0))


def module(teacher, **options):
    optimizer = partial(torch.optim.AdamW, lr=3e-4)
    return Sam3TrackerModule(teacher, fresh=True, things=["feeder"], optimizer=optimizer, warmup=2, **options)


def data(shards):
    return TrackingDataModule(
        shards, image_size=112, mask_size=32, batch_size=2, offsets=[[0, 1, 3]], val_offsets=[0, 1, 2], val_every=3,
        val_batch_size=2,
    )  # fmt: skip


def trainer(folder, steps, **options):
    return Trainer(
        accelerator="cpu", max_steps=steps, max_epochs=-1, default_root_dir=folder, logger=False, log_every_n_steps=1,
        val_check_interval=2, check_val_every_n_epoch=None, num_sanity_val_steps=0, enable_progress_bar=False,
        enable_model_summary=False, **options,
    )  # fmt: skip


def test_a_run_trains_the_tracker_alone_exports_and_resumes(teacher, squares, tmp_path):
    torch.manual_seed(0)
    checkpoints = ModelCheckpoint(tmp_path, save_last=True, save_top_k=0, every_n_train_steps=2)
    first = trainer(tmp_path, 2, callbacks=[checkpoints, Sam3Export()])
    task = module(teacher)
    first.fit(task, data(squares))
    for name in ("val/mask_iou_1", "val/mask_iou_2", "val/own_1"):
        assert 0 <= first.callback_metrics[name] <= 1, name
    before, after = load_sam3(teacher).state_dict(), load_sam3(tmp_path / "sam3").state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith(("tracker_model.", "tracker_neck.")) for name in changed)
    assert not any(name.startswith("detector") for name in task.state_dict())

    second = trainer(tmp_path, 4)
    second.fit(module(teacher), data(squares), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert second.global_step == 4


@pytest.mark.parametrize(
    ("stored", "given", "expected"),
    [
        (["cow"], None, ["cow", "feeder"]),
        (["cow", "feeder", "toy"], None, ["cow", "feeder", "toy"]),
        (["cow"], "heifer", ["feeder", "heifer"]),
        ([], None, ["feeder", "pig"]),
    ],
)
def test_the_export_knows_the_words_it_came_with_unless_told_another(
    teacher, tmp_path, caplog, stored, given, expected
):
    folder = tmp_path / "detector"
    shutil.copytree(teacher, folder)
    (folder / "prompts.safetensors").unlink()
    if stored:
        save_prompts(folder, compute_prompts(folder, stored))
    task = module(str(folder), animal=given)
    task.configure_model()
    assert sorted(load_prompts(task.save_pretrained(tmp_path / "tracker"))) == expected
    warned = [message for message in caplog.messages if "stores no words" in message]
    assert len(warned) == (not stored)


def test_windows_that_fill_a_ranks_share_up_are_not_scored(teacher, squares, tmp_path, monkeypatch):
    scored = []
    for fresh in (2, 1):
        monkeypatch.setattr(EpochSampler, "fresh", fresh)
        task = module(teacher)
        trainer(tmp_path, 1, limit_val_batches=1).validate(task, data(squares), verbose=False)
        scored.append(len(task._followed[1]))
    assert scored == [2, 1]


def test_the_loss_falls_on_one_batch(teacher, squares):
    torch.manual_seed(0)
    task = module(teacher)
    task.configure_model()
    windows = data(squares)._windows("train", [[0, 1]], None)
    batch = collate([windows[0]])
    names = ["1", "2"]
    objects = ObjectWindow.of(batch.truth[0], names)
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-3)
    losses = []
    for _ in range(15):
        features = tracker_features(task._opened[0].model, batch.images[0])
        steps = unroll(
            task.tracker,
            features,
            objects,
            batch.times[0],
            corrected=[False] * 2,
            chance=random.Random(0),
            sloppiness=None,
        )
        output = steps[1].output
        loss = task.loss(output.masks, output.quality, output.score, objects.masks[1], objects.visible[1])["loss"]
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]


def test_objects_are_followed_by_name_and_hidden_where_they_are_missing():
    def frame(*names):
        return FrameTruth(names, torch.zeros(len(names), 4), torch.stack([torch.full((2, 2), float(n)) for n in names]))

    window = ObjectWindow.of([frame("1", "2", "3"), frame("3", "1")], ["3", "2"])
    assert window.masks[:, :, 0, 0].tolist() == [[3, 2], [3, 0]]
    assert window.visible.tolist() == [[True, True], [True, False]]


def test_corrections_become_conditioning_memories(teacher, squares, monkeypatch):
    """A corrected frame's detection changes what later frames see; without it they see the tracker's own mask."""
    torch.manual_seed(0)
    task = module(teacher)
    task.configure_model()
    assert task.tracker.training, "with its dropout"
    task.tracker.eval()
    batch = collate([data(squares)._windows("train", [[0, 1, 2]], None)[0]])
    objects = ObjectWindow.of(batch.truth[0], ["1"])

    def last(corrected):
        with torch.no_grad():
            features = tracker_features(task._opened[0].model, batch.images[0])
            steps = unroll(
                task.tracker,
                features,
                objects,
                (0, 1, 2),
                corrected=corrected,
                chance=random.Random(0),
                sloppiness=None,
            )
        return [step.output.masks for step in steps]

    plain, corrected = last([False, False, False]), last([False, True, False])
    torch.testing.assert_close(plain[1], corrected[1])
    assert (plain[2] - corrected[2]).abs().max() > 1e-3


def test_sloppy_masks_are_binary_near_the_truth_and_never_empty():
    truth = torch.zeros(2, 16, 16)
    truth[0, 4:12, 3:9] = 1
    truth[1, 5, 5] = 0.2  # a sliver
    for seed in range(20):
        rough = Sloppiness()(truth, random.Random(seed))
        assert set(rough.unique().tolist()) <= {0.0, 1.0}
        assert rough.flatten(1).any(1).all()
        overlap = (rough[0] * truth[0]).sum() / torch.maximum(rough[0], truth[0]).sum()
        assert overlap > 0.5
    exact = Sloppiness(shift=0, threshold=0.0, blur=0.0)(truth, random.Random(0))
    torch.testing.assert_close(exact[0], truth[0])


def test_a_mask_that_is_moved_over_an_edge_does_not_come_back_at_the_other():
    mask = torch.zeros(1, 6, 6)
    mask[0, :, :2] = 1
    for seed in range(20):
        moved = Sloppiness(shift=1, threshold=0.0, blur=0.0)(mask, random.Random(seed))
        assert not moved[0, :, 3:].any()


def test_a_picture_without_objects_moves_nothing(teacher, squares):
    task = module(teacher)
    task.configure_model()
    batch = collate([data(squares)._windows("train", [[0, 1]], None)[0]])
    batch.truth = (tuple(FrameTruth((), torch.zeros(0, 4), torch.zeros(0, 32, 32)) for _ in range(2)),)
    loss = task.training_step(batch, 0)
    loss.backward()
    assert loss.item() == 0
    assert all(parameter.grad is None or parameter.grad.abs().sum() == 0 for parameter in task.parameters())


def test_boxes_alone_are_refused():
    frame = FrameTruth(("1",), torch.zeros(1, 4), None)
    with pytest.raises(DataError, match=r"has no mask.*train the detector only"):
        ObjectWindow.of([frame, frame], ["1"])


def test_windows_grow_with_the_steps(teacher, squares, tmp_path):
    task = module(teacher, grow_every=1)
    seen = []
    with_trainer = trainer(tmp_path, 3, enable_checkpointing=False, limit_val_batches=0)
    task.configure_model()
    task.tracker.memory_attention.register_forward_hook(lambda *_: seen.append(task.global_step))
    with_trainer.fit(task, data(squares))  # windows of three frames; two windows of two objects each a step
    assert [seen.count(step) for step in range(3)] == [2, 4, 4]


def test_a_window_counts_alike_whatever_empty_pens_stand_on_its_rank_or_another(teacher, squares, monkeypatch):
    """One window and one empty pen: on one rank, and on two of which the other has the pen."""
    task = module(teacher)
    task.configure_model()
    monkeypatch.setattr(task, "log", lambda *_, **__: None)
    one = collate([data(squares)._windows("train", [[0, 1]], None)[0]])
    empty = tuple(FrameTruth((), frame.boxes[:0], frame.masks[:0]) for frame in one.truth[0])
    both = WindowBatch(2 * one.keys, 2 * one.times, torch.cat([one.images] * 2), (*one.truth, empty))

    def loss(batch):
        torch.manual_seed(0)
        return task.training_step(batch, 0).item()

    together = loss(both)
    monkeypatch.setattr("pl_distill.modules.sam3_tracker.mean_over_ranks", lambda count: count / 2)  # and 0 there
    apart = (loss(one) + 0) / 2  # DDP takes the mean of both ranks' gradients
    assert apart == pytest.approx(together, rel=1e-5)
