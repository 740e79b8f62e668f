"""DINOv3 as an embedder: the published shapes, strict keys, one vector of length 1 for each animal."""

import json
import shutil

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf
from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel, DINOv3ViTConfig, DINOv3ViTModel

from datamodules.crops import Cropping
from pl_distill.errors import CheckpointError
from pl_distill.models.dinov3 import TransformersBackbone
from pl_distill.models.embedder import Embedder
from pl_distill.models.embedder_files import save_embedder
from pl_distill.models.embedder_load import load_embedder

SHAPE = {
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_register_tokens": 1,
    "patch_size": 8,
    "image_size": 32,
}
CROPPING = Cropping(0.2, 0.5, True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("embedder")
    save_embedder(DINOv3ViTModel(DINOv3ViTConfig(**SHAPE)), path, 32, CROPPING, dtype=torch.float32)
    return path


@pytest.fixture(scope="module")
def embedder(folder) -> Embedder:
    return load_embedder(folder)


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def crops(count: int = 3, size: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.manual_seed(1))


def test_vit_small_has_the_published_number_of_parameters():
    with torch.device("meta"):
        ours = timm.create_model("vit_small_patch16_dinov3", num_classes=0)
        stock = DINOv3ViTModel(DINOv3ViTConfig(num_register_tokens=4))
    assert sum(parameter.numel() for parameter in ours.parameters()) == 21_586_944
    # transformers: biases of query and value in twelve layers, the projections of DINOv3 having none, and a mask token
    assert sum(parameter.numel() for parameter in stock.parameters()) == 21_586_944 + 12 * 2 * 384 + 384


def test_embeddings_are_the_class_token_at_length_one(embedder, folder):
    model = DINOv3ViTModel.from_pretrained(folder)
    expected = model(embedder.prepare(crops())).pooler_output
    embeddings = embedder.embed(crops())
    assert embeddings.shape == (3, embedder.dimension) == (3, 24)
    torch.testing.assert_close(embeddings, torch.nn.functional.normalize(expected, dim=-1))
    assert embeddings.dtype == torch.float32
    assert not embeddings.requires_grad


def test_features_are_the_class_token_and_the_mean_of_the_patches(embedder, folder):
    tokens = DINOv3ViTModel.from_pretrained(folder)(embedder.prepare(crops())).last_hidden_state
    _, features = embedder.describe(crops())
    torch.testing.assert_close(
        features, torch.cat([tokens[:, 0], tokens[:, 2:].mean(1)], 1)
    )  # class, register, patches
    assert features.shape[1] == embedder.feature_dimension


def test_a_batch_is_its_parts_and_bytes_are_fractions(embedder):
    one_by_one = torch.cat([embedder.embed(one[None]) for one in crops()])
    torch.testing.assert_close(embedder.embed(crops()), one_by_one)
    torch.testing.assert_close(embedder.embed(crops().float() / 255), one_by_one)
    assert embedder.embed(crops(0)).shape == (0, 24)


def test_crops_of_another_size_are_scaled(embedder):
    flat = torch.full((1, 3, 50, 40), 90, dtype=torch.uint8)
    torch.testing.assert_close(embedder.embed(flat), embedder.embed(flat[..., :32, :32]))


@pytest.mark.parametrize("bad", [torch.zeros(3, 32, 32), torch.zeros(1, 1, 32, 32), torch.zeros(1, 3, 8, 8).int()])
def test_what_is_no_picture_is_refused(embedder, bad):
    with pytest.raises(ValueError, match="expected \\(N, 3, H, W\\)"):
        embedder.embed(bad)


def test_identity_is_that_of_weights_and_cropping_wherever_they_lie(embedder, copy):
    assert load_embedder(copy).identity == embedder.identity
    assert load_embedder(copy, cropping=Cropping()).identity != embedder.identity
    weights = load_file(copy / "model.safetensors")
    weights["norm.bias"][0] += 1
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert load_embedder(copy).identity != embedder.identity


def test_animals_of_a_frame_are_cut_out_as_the_embedder_wants_them_and_others_left_out(embedder):
    assert embedder.cropping == CROPPING
    frame = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    boxes = np.array([(10, 10, 40, 30), (5, 5, 30, 30), (90, 10, 95, 20)], np.float32)
    masks = np.zeros((3, 60, 80), bool)
    masks[0, 12:28, 12:38] = True
    seen = embedder.describe_animals(frame, boxes, masks)
    np.testing.assert_array_equal(seen.rows, (0,))  # the second has no mask, the third lies outside
    torch.testing.assert_close(seen.embeddings, embedder.embed(embedder.crop(frame, boxes[:1], masks[:1])))
    np.testing.assert_array_equal(embedder.describe_animals(frame, boxes, None).rows, (0, 1))


def test_timm_folders_load_with_timms_own_preprocessing(tmp_path):
    model = timm.create_model("vit_small_patch16_dinov3", num_classes=0, depth=1, embed_dim=48, num_heads=2)
    args = {"depth": 1, "embed_dim": 48, "num_heads": 2}
    save_for_hf(model, str(tmp_path), model_args=args, safe_serialization=True)
    loaded = load_embedder(tmp_path)
    assert (loaded.dimension, loaded.image_size, loaded.cropping) == (48, 256, Cropping())
    images = loaded.prepare(crops(1, 256))
    expected = model.eval().forward_features(images)[:, 0]
    torch.testing.assert_close(loaded.embed(crops(1, 256)), torch.nn.functional.normalize(expected, dim=-1))
    weights = load_file(tmp_path / "model.safetensors")
    del weights["norm.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"norm\.weight"):
        load_embedder(tmp_path)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda weights: weights.pop("norm.weight"), "lacks norm.weight"),
        (lambda weights: weights.update(extra=torch.zeros(1)), "has the unknown extra"),
        (lambda weights: weights.update({"norm.weight": torch.zeros(7)}), "reshapes norm.weight"),
    ],
    ids=["missing", "unexpected", "misshapen"],
)
def test_tensors_that_do_not_fit_are_an_error(copy, change, found):
    weights = load_file(copy / "model.safetensors")
    change(weights)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=found):
        load_embedder(copy)


def test_weights_that_are_not_finite_are_an_error(copy):
    """Embeddings of NaN would fail the assignment of identities, minutes later."""
    weights = load_file(copy / "model.safetensors")
    weights["norm.weight"][:1] = float("nan")
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"has NaN or infinity in norm\.weight"):
        load_embedder(copy)


@pytest.mark.parametrize(
    ("file", "values", "found"),
    [
        ("config.json", {"hidden_size": "many"}, "cannot be loaded"),
        ("config.json", {"num_attention_heads": 0}, "cannot be loaded"),
        ("config.json", {"hidden_act": "nope"}, "cannot be loaded"),
        ("preprocessor_config.json", {"size": "a"}, "says size 'a'"),
        ("preprocessor_config.json", {"size": {"height": 0}}, "says size"),
        ("preprocessor_config.json", {"image_mean": 0.5}, "image_mean 0.5"),
        ("preprocessor_config.json", {"image_mean": None}, "image_mean None"),
        ("preprocessor_config.json", {"image_std": [1, 0, 1]}, r"image_std \[1, 0, 1\]"),
    ],
)
def test_descriptions_that_make_no_sense_are_an_error(copy, file, values, found):
    path = copy / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(CheckpointError, match=found):
        load_embedder(copy)


def test_truncated_weights_are_an_error(copy):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_embedder(copy)


def test_other_sources_are_refused_by_what_they_are(tmp_path, copy):
    with pytest.raises(CheckpointError, match="is no folder"):
        load_embedder("no-such-embedder")
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        load_embedder(tmp_path)
    (copy / "config.json").write_text(json.dumps({"model_type": "sam3_video"}))
    with pytest.raises(CheckpointError, match="describes 'sam3_video'"):
        load_embedder(copy)
    (copy / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_embedder(copy)


@pytest.mark.parametrize("text", ['{"margins": 1}', '{"margin": "a"}', '{"margin": null}', '{"align": 1}'])
def test_an_unknown_cropping_is_refused(copy, text):
    (copy / "cropping.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"cropping\.json: is not understood"):
        load_embedder(copy)


def test_nothing_of_an_embedder_can_be_trained(embedder):
    assert not any(parameter.requires_grad for parameter in embedder.parameters())
    assert not embedder.training
    assert isinstance(embedder.backbone, TransformersBackbone)


def test_a_head_reads_the_patches_in_their_order_and_answers_in_two_halves(tmp_path):
    torch.manual_seed(0)
    model, head = DINOv3ViTModel(DINOv3ViTConfig(**SHAPE)), torch.nn.Linear(16 * 24, 10)
    save_embedder(model, tmp_path, 32, CROPPING, head, dtype=torch.float32)
    loaded = load_embedder(tmp_path)
    assert (loaded.dimension, loaded.feature_dimension) == (5, 5)
    patches = model.eval()(loaded.prepare(crops())).last_hidden_state[:, 2:]
    identity, posture = head(patches.flatten(1)).split(5, 1)
    embeddings, features = loaded.describe(crops())
    torch.testing.assert_close(embeddings, torch.nn.functional.normalize(identity, dim=-1))
    torch.testing.assert_close(features, posture)
    save_file({"weight": torch.zeros(10, 7), "bias": torch.zeros(10)}, tmp_path / "head.safetensors")
    with pytest.raises(CheckpointError, match=r"head\.safetensors: has other shapes"):
        load_embedder(tmp_path)


def test_the_other_family_of_dinov3_loads_alike(tmp_path):
    torch.manual_seed(0)
    model = DINOv3ConvNextModel(DINOv3ConvNextConfig(hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1], image_size=32))
    save_embedder(model, tmp_path, 32, CROPPING, dtype=torch.float32)
    loaded = load_embedder(tmp_path)
    expected = model.eval()(loaded.prepare(crops())).pooler_output
    torch.testing.assert_close(loaded.embed(crops()), torch.nn.functional.normalize(expected, dim=-1))
    assert (loaded.dimension, loaded.feature_dimension) == (16, 32)
