import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModelWithProjection, Sam3VideoProcessor
from transformers.models.sam3.modeling_sam3 import Sam3GeometryEncoder

from pl_distill.errors import CheckpointError
from pl_distill.models.sam3 import load_preprocessing, load_sam3, read_geometry, trunk_map, trunk_sha256
from pl_distill.models.sam3_source import weight_files

WEIGHTS = "model.safetensors"
DOUBLED = "tracker_model.tracker_model."
TEXT = ("detector_model.text_encoder.", "detector_model.text_projection.")
KEY = "detector_model.vision_encoder.backbone.layers.0.mlp.fc1.weight"


@pytest.fixture
def copy(teacher, tmp_path):
    """A copy of the teacher that a test may spoil."""
    return shutil.copytree(teacher, tmp_path / "copy")


def edit(folder, change):
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def test_the_loaded_weights_are_those_of_the_file(teacher):
    model = load_sam3(teacher)
    # transformers writes the tracker's names with the prefix twice
    stored = {name.replace(DOUBLED, "tracker_model."): one for name, one in load_file(teacher / WEIGHTS).items()}
    loaded = model.state_dict()
    assert loaded.keys() <= stored.keys()
    assert all(torch.equal(tensor, stored[name]) for name, tensor in loaded.items())
    left_out = {name.split(".")[1] for name in stored.keys() - loaded.keys()}
    assert left_out == {"text_encoder", "text_projection", "geometry_encoder"}
    assert model.detector_model.geometry_encoder is model.detector_model.text_encoder is None
    assert type(model).__name__ == "Sam3VideoModel"
    assert not model.training


def test_what_is_left_out_is_never_allocated(teacher, monkeypatch):
    devices = []
    for part in (CLIPTextModelWithProjection, Sam3GeometryEncoder):
        build = part.__init__

        def spy(self, *arguments, build=build, **options):
            build(self, *arguments, **options)
            devices.append({parameter.device.type for parameter in self.parameters()})

        monkeypatch.setattr(part, "__init__", spy)
    load_sam3(teacher)
    assert devices == [{"meta"}, {"meta"}]


def test_the_text_encoder_is_loaded_when_asked_for(teacher):
    model = load_sam3(teacher, text_encoder=True)
    stored = load_file(teacher / WEIGHTS)
    assert all(
        torch.equal(tensor, stored[f"detector_model.text_encoder.{name}"])
        for name, tensor in model.detector_model.text_encoder.named_parameters()
    )


def test_dtype_is_that_of_every_weight(teacher):
    model = load_sam3(teacher, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("stored", "named"),
    [
        (KEY, KEY),
        ("tracker_neck.fpn_layers.0.proj1.weight",) * 2,
        (DOUBLED + "no_memory_embedding", "tracker_model.no_memory_embedding"),
    ],
)
def test_a_missing_key_is_named(copy, stored, named):
    edit(copy, lambda weights: weights.pop(stored))
    with pytest.raises(CheckpointError, match=rf"model.safetensors: lacks {named}, expected every tensor"):
        load_sam3(copy)


@pytest.mark.parametrize("name", ["detector_model.adapter.weight", "adapter", "tracker_neck.fpn_layers.9.bias"])
def test_a_surplus_key_is_named(copy, name):
    edit(copy, lambda weights: weights.update({name: torch.ones(2)}))
    with pytest.raises(CheckpointError, match=rf"model.safetensors: holds {name}, expected only"):
        load_sam3(copy)


def test_a_surplus_key_of_the_tracker_is_named(copy):
    edit(copy, lambda weights: weights.update({DOUBLED + "adapter": torch.ones(2)}))
    with pytest.raises(CheckpointError, match=r"holds tracker_model.*adapter, expected only"):
        load_sam3(copy)


def test_a_tensor_of_another_shape_is_named_with_both_shapes(copy):
    edit(copy, lambda weights: weights.update({KEY: torch.ones(64, 31)}))
    with pytest.raises(CheckpointError, match=rf"holds {KEY} with shape \(64, 31\), expected shape \(64, 32\)"):
        load_sam3(copy)


def test_missing_text_weights_matter_only_when_they_are_asked_for(copy):
    edit(copy, lambda weights: [weights.pop(name) for name in list(weights) if name.startswith(TEXT)])
    load_sam3(copy)
    with pytest.raises(CheckpointError, match=r"lacks .*text_encoder.* or load without the text encoder"):
        load_sam3(copy, text_encoder=True)


def test_a_truncated_file_is_refused(copy):
    path = copy / WEIGHTS
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="is damaged"):
        load_sam3(copy)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", "config.json: holds a list, expected 'sam3_video'"),
        (json.dumps({"model_type": "sam2_video"}), "describes model_type 'sam2_video'"),
        (json.dumps({"model_type": "sam3_video", "detector_config": [1]}), "config.json: is refused by transformers"),
    ],
)
def test_another_architecture_is_refused(copy, config, message):
    (copy / "config.json").write_text(config)
    with pytest.raises(CheckpointError, match=message):
        load_sam3(copy)


def test_a_folder_that_is_not_there_or_is_empty_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="is no folder"):
        load_sam3(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        load_sam3(tmp_path)


@pytest.mark.parametrize("size", [(480, 640), (90, 61), (112, 112), (720, 1280)])
def test_preprocessing_is_the_processors_own_bit_for_bit(teacher, size):
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    theirs = Sam3VideoProcessor.from_pretrained(teacher)(images=picture, return_tensors="pt").pixel_values[0]
    ours = load_preprocessing(teacher)(picture)
    assert torch.equal(ours, theirs)


def test_a_processor_that_crops_or_scales_otherwise_is_refused(copy):
    path = copy / "processor_config.json"
    settings = json.loads(path.read_text())
    settings["image_processor"]["do_normalize"] = False
    path.write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="has do_normalize False, expected True"):
        load_preprocessing(copy)


def test_a_model_without_a_processor_is_refused(copy):
    (copy / "processor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has neither preprocessor_config.json nor processor_config.json"):
        load_preprocessing(copy)


@pytest.mark.parametrize("text", ["[1]", "{", '{"image_processor": [1]}'])
def test_a_processor_that_cannot_be_read_is_refused(copy, text):
    (copy / "processor_config.json").write_text(text)
    with pytest.raises(CheckpointError, match="that transformers can read"):
        load_preprocessing(copy)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite_are_named(copy, value):
    """With one in its queries the detector finds nothing, and says nothing."""
    key = "detector_model.detr_decoder.query_embed.weight"
    edit(copy, lambda weights: weights[key][0, :1].fill_(value))
    with pytest.raises(CheckpointError, match=f"has NaN or infinity in {key}"):
        load_sam3(copy)


def test_position_codes_that_are_not_finite_are_named(copy):
    """They are no parameters, and lie in the file all the same."""
    keys = [key for key in load_file(copy / "model.safetensors") if key.endswith("embedding.positional_embedding")]
    assert keys
    for key in keys:
        edit(copy, lambda weights, key=key: weights[key].fill_(float("nan")))
    with pytest.raises(CheckpointError, match=r"has NaN or infinity in .*positional_embedding"):
        load_sam3(copy)


def test_weights_that_half_precision_cannot_hold_are_named(copy):
    edit(copy, lambda weights: weights[KEY][0, :1].fill_(1e5))
    load_sam3(copy)
    with pytest.raises(CheckpointError, match=f"has NaN or infinity in {KEY}"):
        load_sam3(copy, dtype=torch.float16)


def test_a_file_that_the_index_names_and_nobody_copied_is_missed(copy):
    """What is left of the trunk would otherwise have a hash, and a cache would look like another teacher's."""
    weights = load_file(copy / WEIGHTS)
    (copy / WEIGHTS).unlink()
    files = {name: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(weights)}
    for file in sorted(set(files.values())):
        save_file({name: weights[name] for name, one in files.items() if one == file}, copy / file)
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    assert weight_files(copy).keys() == weights.keys()
    (copy / file).unlink()
    with pytest.raises(CheckpointError, match=f"index.json: names {file}, which is not there"):
        weight_files(copy)


@pytest.mark.parametrize("text", ["[1]", "{", "{}", '{"weight_map": [1]}'])
def test_an_index_of_weights_that_is_none_is_refused(copy, text):
    (copy / WEIGHTS).unlink()
    (copy / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"index\.json: is no index of weights"):
        load_sam3(copy)


def test_the_trunk_map_is_what_both_necks_read(teacher):
    model, geometry = load_sam3(teacher), read_geometry(teacher)
    images = torch.randn(2, 3, geometry.image_size, geometry.image_size)
    with torch.no_grad():
        features = trunk_map(model, images)
        vision = model.detector_model.get_vision_features(pixel_values=images)
        pyramid, _ = model.detector_model.vision_encoder.neck(features)
    assert features.shape == (2, *geometry.map_shape)
    assert torch.equal(features.flatten(2).transpose(1, 2), vision.last_hidden_state)
    assert all(torch.equal(one, other) for one, other in zip(pyramid, vision.fpn_hidden_states, strict=True))


def test_the_trunks_hash_names_its_weights_and_nothing_else(teacher):
    model = load_sam3(teacher)
    before = trunk_sha256(model)
    model.tracker_neck.requires_grad_(False)
    next(model.tracker_neck.parameters()).zero_()
    assert trunk_sha256(model) == before == trunk_sha256(load_sam3(teacher))
    with torch.no_grad():
        next(model.detector_model.vision_encoder.backbone.parameters()).view(-1)[0] += 1
    assert trunk_sha256(model) != before
    assert trunk_sha256(load_sam3(teacher, dtype=torch.bfloat16)) != before
