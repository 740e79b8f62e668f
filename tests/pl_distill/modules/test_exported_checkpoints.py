"""A training that is exported goes on, and is validated, only from a checkpoint of its own shape."""

import pytest
import yaml
from lightning.pytorch import Trainer

from datamodules.behaviour import BehaviourDataModule
from datamodules.edinburgh_output import BEHAVIOURS
from datamodules.recipes import shipped_recipes
from pl_distill.errors import CheckpointError
from pl_distill.modules.behaviour import BehaviourModule
from pl_distill.modules.embedder import EmbedderModule
from pl_distill.modules.sam3_detector import Sam3DetectorModule
from pl_distill.modules.sam3_tracker import Sam3TrackerModule
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
