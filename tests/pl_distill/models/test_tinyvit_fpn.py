import copy

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.tiny_vit import Attention
from torch.nn.attention import SDPBackend, sdpa_kernel

from pl_distill.errors import CheckpointError, ConfigError
from pl_distill.models.student_io import build_neck
from pl_distill.models.tinyvit import IMAGENET_MEAN, IMAGENET_STD, UncachedAttention, build_body
from pl_distill.models.tinyvit_fpn import TinyViTFPN
from tests.pl_distill.models.small_student import SIZES

SMALL = {**SIZES, "out_channels": 12}


def small(**changes):
    torch.manual_seed(0)
    return TinyViTFPN(**{**SMALL, **changes})


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_real_size_has_the_papers_parameters_within_half_a_percent():
    with torch.device("meta"):
        student = TinyViTFPN()
        neck = build_neck(1024, 256, [4.0, 2.0, 1.0, 0.5])
    assert count(student.body) == 20_689_968
    assert count(student.laterals) == 322_560
    assert count(student.smooths) == 2_362_368
    assert count(student.fuse) == 590_592
    assert count(student.head) == 1_051_648
    assert count(student) == 25_017_136
    assert count(neck) == 7_802_112
    student.attach_necks(neck, neck)
    assert count(student) == 40_621_360
    assert abs(count(student) / 40.66e6 - 1) < 0.005


def test_real_size_answers_on_the_teachers_grid():
    with torch.device("meta"):
        assert TinyViTFPN()(torch.empty(2, 3, 1008, 1008)).shape == (2, 1024, 72, 72)


@pytest.mark.parametrize("size", [64, 112])
def test_any_input_size_gives_the_grid(size):
    assert small()(torch.randn(2, 3, size, size)).shape == (2, 12, 8, 8)


@pytest.mark.parametrize("grid", [3, 8, 40])
def test_any_grid_can_be_asked_for(grid):
    assert small(grid=grid)(torch.randn(1, 3, 64, 64)).shape == (1, 12, grid, grid)


def test_the_input_is_converted_from_sam_3s_normalisation_to_imagenets():
    pixels = torch.rand(1, 3, 64, 64)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    torch.testing.assert_close(small()._body_input((pixels - 0.5) / 0.5), (pixels - mean) / std)


def test_the_answer_is_not_normalised():
    student = small()
    assert isinstance(student.head[-1], torch.nn.Conv2d)


def test_every_parameter_receives_a_gradient():
    student = small()
    student(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert [name for name, parameter in student.named_parameters() if parameter.grad is None] == []


def test_gradient_checkpointing_changes_no_gradient():
    plain, saving = small(), small(gradient_checkpointing=True)
    images = torch.randn(2, 3, 64, 64)
    for student in (plain, saving):
        student(images).square().mean().backward()
    for ours, theirs in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_gradient_checkpointing_moves_running_statistics_once():
    plain, saving = small(), small(gradient_checkpointing=True)
    images = torch.randn(2, 3, 64, 64)
    for student in (plain, saving):
        student(images).square().mean().backward()
    theirs = dict(saving.named_buffers())
    statistics = [name for name in theirs if name.endswith(("running_mean", "running_var"))]
    assert any(".stages." in name for name in statistics)
    for name in statistics:
        torch.testing.assert_close(theirs[name], dict(plain.named_buffers())[name])


def test_without_the_bias_cache_the_output_is_timms_and_nothing_is_kept():
    sizes = {name: SMALL[name] for name in ("embed_dims", "depths", "num_heads", "window_sizes")}
    torch.manual_seed(0)
    theirs = timm.create_model("tiny_vit_5m_224", num_classes=0, **sizes).eval()
    ours = build_body("tiny_vit_5m_224", sizes).eval()
    for module in theirs.modules():
        if isinstance(module, Attention):
            torch.nn.init.normal_(module.attention_biases)
    state = {key: value for key, value in theirs.state_dict().items() if not key.startswith("head.")}
    ours.load_state_dict(state, strict=True)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for mine, other in zip(
            ours.forward_intermediates(images, intermediates_only=True),
            theirs.forward_intermediates(images, intermediates_only=True),
            strict=True,
        ):
            torch.testing.assert_close(mine, other)  # ours takes the fused kernel, which sums in another order
    caches = [module.attention_bias_cache for module in ours.modules() if isinstance(module, Attention)]
    assert len(caches) == 3
    assert not any(caches)
    assert any(module.attention_bias_cache for module in theirs.modules() if isinstance(module, Attention))


def test_attention_is_fused_on_a_cpu():
    student = small().eval()
    with torch.no_grad(), sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # any other kernel is an error
        assert torch.isfinite(student(torch.randn(1, 3, 64, 64))).all()


def test_timm_itself_keeps_its_attention():
    build_body("tiny_vit_5m_224", {})
    assert Attention.get_attention_biases is not UncachedAttention.get_attention_biases
    attentions = [m for m in timm.create_model("tiny_vit_5m_224").modules() if isinstance(m, Attention)]
    assert {type(module) for module in attentions} == {Attention}


def test_new_weights_after_an_evaluation_are_seen():
    student = small().eval()
    images = torch.randn(1, 3, 64, 64)
    before = student(images)
    with torch.no_grad():
        for module in student.modules():
            if isinstance(module, Attention):
                module.attention_biases.normal_(std=5)
    assert not torch.equal(before, student(images))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"body": "resnet50"}, "tiny_vit_21m_512"),
        ({"body_size": 100}, "multiple of 32"),
        ({"norm_groups": 5}, "divisor of fpn_channels"),
    ],
)
def test_impossible_sizes_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        small(**changes)


def test_pretrained_weights_are_loaded_from_a_file(tmp_path):
    source = small().body
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.normal_()
    save_file({**source.state_dict(), "head.fc.weight": torch.zeros(3, 3)}, tmp_path / "body.safetensors")
    student = small(pretrained=str(tmp_path / "body.safetensors"))
    for key, value in source.state_dict().items():
        assert torch.equal(student.body.state_dict()[key], value), key


def test_pretrained_tables_of_another_window_are_interpolated(tmp_path):
    state = {key: torch.full_like(t, 3.0) if "biases" in key else t for key, t in small().body.state_dict().items()}
    save_file(state, tmp_path / "body.safetensors")
    loaded = small(pretrained=str(tmp_path / "body.safetensors"), window_sizes=[7, 4, 4, 2]).body.state_dict()
    other = [key for key, value in loaded.items() if value.shape != state[key].shape]
    assert other == ["stages.1.blocks.0.attn.attention_biases"]
    assert loaded[other[0]].shape == (1, 16)
    assert torch.allclose(loaded[other[0]], torch.tensor(3.0), atol=1e-4), "a table of one value stays one"


def test_pretrained_weights_that_lack_a_key_are_refused_by_name(tmp_path):
    state = small().body.state_dict()
    del state["patch_embed.conv1.conv.weight"]
    torch.save({"model": state}, tmp_path / "body.pth")
    with pytest.raises(CheckpointError, match=r"body\.pth: lacks patch_embed\.conv1\.conv\.weight"):
        small(pretrained=str(tmp_path / "body.pth"))


def test_an_empty_text_means_random_weights():
    assert small(pretrained="").config["pretrained"] is None


def test_pretrained_weights_that_cannot_be_had_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="neither a file nor weights"):
        small(pretrained=str(tmp_path / "absent.safetensors"))


def test_a_network_that_is_only_counted_asks_for_no_weights():
    with torch.device("meta"):
        student = small(pretrained="absent.safetensors")
    assert student.config["pretrained"] == "absent.safetensors"


@pytest.mark.parametrize("name", ["body.safetensors", "body.pth"])
def test_a_damaged_file_of_pretrained_weights_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"not weights")
    with pytest.raises(CheckpointError, match=f"{name}: cannot be read"):
        small(pretrained=str(tmp_path / name))


def test_a_student_can_be_copied():
    student = small().eval()
    again = copy.deepcopy(student)
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(student(images), again(images))
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.add_(1)
    assert not torch.equal(student(images), again(images))
