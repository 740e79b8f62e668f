from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer

from pl_distill.errors import CheckpointError, ConfigError
from pl_distill.models.sam3 import load_preprocessing, load_sam3, trunk_map, trunk_sha256, write_random_sam3
from pl_distill.modules.teacher_cache import TeacherCacheModule


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_random_sam3("tiny", tmp_path_factory.mktemp("teacher") / "tiny", seed=0)


@pytest.fixture(scope="module")
def teacher(folder):
    return load_sam3(folder)


def _module(folder, precision: str = "32-true") -> TeacherCacheModule:
    module = TeacherCacheModule(str(folder))
    module.trainer = Trainer(precision=precision, logger=False, accelerator="cpu", enable_progress_bar=False)
    module.setup("predict")
    module.configure_model()
    return module


def test_only_the_trunk_is_kept(folder, teacher):
    trunk = teacher.detector_model.vision_encoder.backbone
    module = _module(folder)
    assert sum(p.numel() for p in module.parameters()) == sum(p.numel() for p in trunk.parameters())
    assert not any(p.requires_grad for p in module.parameters())
    model = module.model
    module.configure_model()  # Lightning calls it again for every run
    assert module.model is model


def test_its_maps_are_the_teachers(folder, teacher):
    module = _module(folder)
    given = []
    module.sink = lambda batch, maps: given.append((batch["key"], maps))
    images = torch.randn(2, 3, 112, 112)
    with torch.no_grad():
        assert module.predict_step({"key": ["a", "b"], "shard": "train/train-000000.tar", "image": images}, 0) is None
        assert torch.equal(given[0][1], trunk_map(teacher, images))
    assert given[0][0] == ["a", "b"]


def test_the_identity_names_whatever_changes_a_map(folder, teacher):
    made = _module(folder).identity
    assert made.trunk_sha256 == trunk_sha256(teacher)
    assert made.preprocessing == load_preprocessing(folder).describe()
    assert (made.precision, made.attention, made.teacher) == ("32-true", "sdpa", str(folder))
    assert made.libraries["torch"] == torch.__version__.partition("+")[0]
    assert set(made.libraries) == {"torch", "torchvision", "transformers"}


def test_another_precision_is_another_cache_of_the_same_trunk(folder):
    exact, half = _module(folder).identity, _module(folder, "bf16-true").identity
    assert (exact.precision, half.precision) == ("32-true", "bf16-true")
    assert exact.trunk_sha256 == half.trunk_sha256


def test_other_weights_are_another_teacher(folder, tmp_path):
    other = write_random_sam3("tiny", tmp_path / "other", seed=1)
    assert _module(other).identity.trunk_sha256 != _module(folder).identity.trunk_sha256


def test_maps_that_nobody_stores_are_not_computed(folder):
    module = TeacherCacheModule(str(folder))
    with pytest.raises(ConfigError, match=r"feature_cache_writer\.FeatureCacheWriter.*callbacks\+:"):
        module.on_predict_start()


def test_a_path_without_a_teacher_is_refused(tmp_path):
    module = TeacherCacheModule(str(tmp_path / "nowhere"))
    module.trainer = SimpleNamespace()
    with pytest.raises(CheckpointError, match="is no folder"):
        module.setup("predict")
