"""A training that is exported goes on, and is validated, only from a checkpoint of its own shape."""

from functools import partial

import pytest
import torch
import yaml
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader

from datamodules.behaviour import BehaviourDataModule
from datamodules.edinburgh_output import BEHAVIOURS
from datamodules.pen_crop_files import POSE
from datamodules.pen_crops import CropBatch
from datamodules.recipes import shipped_recipes
from pl_distill.errors import CheckpointError, ConfigError
from pl_distill.losses.detection import DetectionLoss
from pl_distill.losses.tracking import TrackingLoss
from pl_distill.models.sam3 import load_sam3_config, write_random_sam3
from pl_distill.modules.behaviour import BehaviourModule
from pl_distill.modules.embedder import EmbedderModule
from pl_distill.modules.prompt_sampling import Vocabulary
from pl_distill.modules.sam3_detector import Sam3DetectorModule
from pl_distill.modules.sam3_tracker import Sam3TrackerModule
from pl_distill.modules.tracking_unroll import Sloppiness
from pl_distill.modules.training_identity import is_plain, require_same_training
from tests.pl_distill.modules.test_behaviour import separable


def behaviour(folder, hidden):
    return BehaviourModule("frame", hidden=hidden)


def embedder(folder, dimension):
    return EmbedderModule(hidden_size=16, layers=1, heads=2, image_size=32, dimension=dimension)


def sam3(folder, queries, mask_channels):
    config = yaml.safe_load(shipped_recipes("sam3")["tiny"].read_text())
    config["detector_config"]["detr_decoder_config"]["num_queries"] = queries
    config["tracker_config"]["prompt_encoder_config"]["mask_input_channels"] = mask_channels
    path = folder / f"{queries}-{mask_channels}.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


def detector(folder, queries):
    return Sam3DetectorModule(sam3(folder, queries, 4))


def tracker(folder, mask_channels):
    return Sam3TrackerModule(sam3(folder, 10, mask_channels))


@pytest.mark.parametrize(
    ("build", "sizes"), [(behaviour, (8, 12)), (embedder, (16, 8)), (detector, (10, 12)), (tracker, (4, 16))]
)
def test_a_checkpoint_of_another_shape_names_both_shapes(build, sizes, tmp_path):
    separable(tmp_path / "features")
    data = BehaviourDataModule(str(tmp_path / "features"), {name: name for name in BEHAVIOURS})  # no batch is read
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, limit_val_batches=0)
    trained, other = (build(tmp_path, size) for size in sizes)
    trainer.validate(trained, data, verbose=False)
    trainer.save_checkpoint(tmp_path / "trained.ckpt")
    with pytest.raises(CheckpointError, match=r"trained\.ckpt: has other shapes") as caught:
        trainer.validate(other, data, ckpt_path=tmp_path / "trained.ckpt", verbose=False)
    before, now = (
        {name: tuple(held.shape) for name, held in module.state_dict().items()} for module in (trained, other)
    )
    name = next(name for name in now if before[name] != now[name])
    assert f"{name} {before[name]} instead of {now[name]}" in caught.value.found


class Once(LightningDataModule):
    """A single batch of two pens of four crops."""

    def train_dataloader(self):
        animals = torch.arange(8) // 2
        batch = CropBatch(
            torch.rand(8, 3, 32, 32), animals, animals // 2, animals % 3, torch.arange(8) % 2, torch.rand(8, 72),
            torch.rand(8, len(POSE)),
        )  # fmt: skip
        return DataLoader([batch], batch_size=None)


def fit(folder, steps, checkpoint=None, **settings):
    lr, clip = settings.pop("lr", 1e-3), settings.pop("clip", 1.0)
    torch.manual_seed(0)
    module = EmbedderModule(
        hidden_size=16, layers=1, heads=2, image_size=32, dimension=8, optimizer=partial(torch.optim.AdamW, lr=lr),
        **settings,
    )  # fmt: skip
    trainer = quiet_trainer(folder, steps, clip)
    trainer.fit(module, Once(), ckpt_path=checkpoint)
    return trainer


def quiet_trainer(folder, steps, clip):
    return Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, max_steps=steps,
        max_epochs=-1, gradient_clip_val=clip, enable_checkpointing=False, default_root_dir=folder,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "was", "now"),
    [
        ({"lr": 1e-5}, "model.optimizer lr 0.001", "model.optimizer lr 1e-05 as in this run"),
        ({"temperature": 0.5}, "model temperature 0.1", "model temperature 0.5 as in this run"),
        ({"clip": 2.0}, "trainer gradient_clip_val 1.0", "trainer gradient_clip_val 2.0 as in this run"),
    ],
)
def test_a_fit_with_other_settings_does_not_go_on(settings, was, now, tmp_path):
    """The optimiser would have the old ones, and config.yaml the new ones."""
    path = tmp_path / "trained.ckpt"
    fit(tmp_path, 2).save_checkpoint(path)
    with pytest.raises(ConfigError, match=r"trained\.ckpt: is of a run with") as caught:
        fit(tmp_path, 4, path, **settings)
    assert was in caught.value.found
    assert now in caught.value.expected
    assert fit(tmp_path, 4, path).global_step == 4  # more steps are no other training


def test_a_second_fit_of_one_module_is_not_held_to_the_checkpoint_of_the_first(tmp_path):
    path = tmp_path / "trained.ckpt"
    fit(tmp_path, 2).save_checkpoint(path)
    module = fit(tmp_path, 4, path).lightning_module
    again = quiet_trainer(tmp_path, 3, clip=2.0)
    again.fit(module, Once())
    assert again.global_step == 3


def test_a_tracker_does_not_go_on_over_another_detector(tmp_path):
    """Checkpoints do not hold the detector: the export would join a tracker with one that it was not trained on."""
    first, second = (write_random_sam3(load_sam3_config("tiny"), tmp_path / str(seed), seed=seed) for seed in (0, 1))
    trained, again, other = (Sam3TrackerModule(str(folder)) for folder in (first, first, second))
    for module in (trained, again, other):
        module.configure_model()
    assert trained.training_identity == again.training_identity
    assert trained.training_identity["model"]["detector_sha256"] != other.training_identity["model"]["detector_sha256"]


@pytest.mark.parametrize(
    ("build", "other"),
    [
        (partial(BehaviourModule, "frame"), {"balance": 0.1}),
        (partial(Sam3DetectorModule, "tiny"), {"loss": DetectionLoss(focus=9)}),
        (partial(Sam3DetectorModule, "tiny"), {"vocabulary": Vocabulary(animal="sheep")}),
        (partial(Sam3DetectorModule, "tiny"), {"frozen": ["text_encoder"]}),
        (partial(Sam3TrackerModule, "tiny"), {"loss": TrackingLoss(mask_bce=300)}),
        (partial(Sam3TrackerModule, "tiny"), {"sloppiness": Sloppiness(shift=9)}),
        (partial(Sam3TrackerModule, "tiny"), {"things": ["feeder"]}),
    ],
)
def test_whatever_decides_what_is_learned_is_in_the_checkpoint(build, other):
    plain, same, changed = build(), build(), build(**other)
    for module in (plain, same, changed):
        if isinstance(module, Sam3TrackerModule):
            module.detector_sha256 = "as the other's"
    assert plain.training_identity == same.training_identity
    with pytest.raises(ConfigError, match="is of a run with model"):
        require_same_training(plain.training_identity, changed.training_identity, "last.ckpt")
    assert is_plain(changed.training_identity)


def test_a_behaviour_heads_checkpoint_says_it_too(tmp_path):
    separable(tmp_path / "features")
    data = BehaviourDataModule(str(tmp_path / "features"), {name: name for name in BEHAVIOURS})
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, limit_val_batches=0)
    trainer.validate(BehaviourModule("frame", balance=0.25), data, verbose=False)
    trainer.save_checkpoint(tmp_path / "trained.ckpt")
    told = torch.load(tmp_path / "trained.ckpt", weights_only=True)["training_identity"]
    assert told["model"]["balance"] == 0.25
