import pytest

from pl_distill.errors import ConfigError
from pl_distill.models.sam3 import Sam3Geometry, load_sam3_config, meta_sam3, shipped_configs


def count(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_real_size_is_counted_part_by_part():
    model = meta_sam3(load_sam3_config("real"))
    detector, tracker = model.detector_model, model.tracker_model
    assert count(detector.vision_encoder.backbone) == 446_236_672
    assert count(detector.vision_encoder.neck) == count(model.tracker_neck) == 7_802_112
    assert count(detector.text_encoder) == 353_462_272
    assert count(detector.text_projection) == 262_400
    assert count(detector.geometry_encoder) == 8_083_456
    assert count(detector.detr_encoder) == 9_472_512
    assert count(detector.detr_decoder) == 11_575_093
    assert count(detector.mask_decoder) == 2_298_881
    assert count(detector.dot_product_scoring) == 1_182_976
    assert count(tracker) == 11_743_362
    assert count(model) == 859_921_848
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


@pytest.mark.parametrize("name", shipped_configs())
def test_every_shipped_size_builds_and_its_numbers_agree(name):
    config = load_sam3_config(name)
    geometry = Sam3Geometry.of(config)
    assert geometry.grid * geometry.patch_size == geometry.image_size
    assert geometry.mask_size == 4 * geometry.grid
    assert config.tracker_config.image_size == geometry.image_size
    assert config.detector_config.vision_config.backbone_feature_sizes[-1] == [geometry.grid, geometry.grid]
    meta_sam3(config)


def test_the_real_geometry():
    geometry = Sam3Geometry.of(load_sam3_config("real"))
    assert geometry == Sam3Geometry(1008, 14, 72, 1024, 256, 288)
    assert geometry.map_shape == (1024, 72, 72)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("low_res_mask_sise: 32", r"has \['low_res_mask_sise'\], expected keys of Sam3VideoConfig"),
        ("[1, 2]", r"has \['list'\]"),
        ("detector_config: {model_type: sam9}", "is refused by transformers"),
        ("a: [", "is refused by transformers"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path, text, message):
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_sam3_config(path)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"tyny: is no file, expected a YAML file or one of .*real, tiny"):
        load_sam3_config("tyny")
