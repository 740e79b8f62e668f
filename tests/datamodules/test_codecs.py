"""Codecs on maps like a trained trunk's: correlated channels, some far larger than others."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.nn import functional as F

from datamodules.cache_manifest import CacheIdentity
from datamodules.codec_basis import BASIS, Basis, basis_identity, basis_sha256, fit_basis
from datamodules.codecs import CODECS, FLOAT16, Int8, PcaInt8, require_float16_range
from datamodules.errors import CacheError

MADE_BY = CacheIdentity("abc", {"size": 112}, "32-true", "sdpa", {"torch": "2.15"}, "runs/teacher")
SHAPE = (96, 18, 18)
LARGE = (3, 40, 77, 90)  # channels a hundred times larger than the others


def trunk_like(frames: int, *, large: bool = False, rank: int = 6, seed: int = 0) -> torch.Tensor:
    """Smooth patterns mixed into many channels, a mean per channel, and noise of their own; (F, C, h, w)."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(SHAPE[0], rank, generator=torch.Generator().manual_seed(99))  # the same trunk for every seed
    mean = torch.randn(SHAPE[0], 1, 1, generator=torch.Generator().manual_seed(98))
    patterns = F.interpolate(torch.randn(frames, rank, 6, 6, generator=generator), SHAPE[1:], mode="bilinear")
    maps = torch.einsum("cr,frhw->fchw", mixing, patterns) + mean
    maps += 0.15 * torch.randn(maps.shape, generator=generator)
    if large:
        maps[:, LARGE] *= 100
    return maps


def vectors(maps: torch.Tensor) -> torch.Tensor:
    return maps.flatten(2).transpose(1, 2)


def through(codec, maps) -> tuple[torch.Tensor, int]:
    """Store and read maps; return them and the bytes of all files."""
    files = [b"".join(codec.pack(values)) for values in codec.quantise(maps)]
    back = np.stack([codec.unpack(data) for data in files])
    assert back.dtype == np.float16
    return torch.from_numpy(back).float(), sum(map(len, files))


def worst_cosine(maps, back) -> float:
    return float(F.cosine_similarity(maps, back, dim=1).mean((1, 2)).min())


def by_channel(maps) -> torch.Tensor:
    """Maps whose channels all count the same."""
    return (
        maps
        / trunk_like(8, large=bool(maps[:, LARGE].abs().max() > 100)).square().mean((0, 2, 3)).sqrt()[:, None, None]
    )


@pytest.fixture(scope="module")
def basis():
    return fit_basis(vectors(trunk_like(16)))


@pytest.mark.parametrize("large", [False, True], ids=["even", "four large channels"])
def test_int8_takes_half_of_float16_and_keeps_every_channel(large):
    maps = trunk_like(4, large=large, seed=1)
    exact, whole = through(FLOAT16, maps)
    back, half = through(Int8(), maps)
    assert torch.equal(exact, maps.half().float())
    assert half <= 0.51 * whole
    assert worst_cosine(maps, back) >= Int8.floor == 0.998
    assert worst_cosine(by_channel(maps), by_channel(back)) >= 0.9995


@pytest.mark.parametrize("large", [False, True], ids=["even", "four large channels"])
def test_pca_int8_takes_a_seventh_and_keeps_the_small_channels_too(large):
    codec = PcaInt8(fit_basis(vectors(trunk_like(16, large=large))))
    maps = trunk_like(4, large=large, seed=1)  # frames that were not in the sample
    back, size = through(codec, maps)
    assert size <= 0.15 * through(FLOAT16, maps)[1]
    assert worst_cosine(maps, back) >= PcaInt8.floor == 0.99
    assert worst_cosine(by_channel(maps), by_channel(back)) >= 0.99


def test_principal_axes_of_raw_channels_would_lose_the_small_ones():
    """Why channels are scaled first: a cosine above the floor does not tell that 92 of 96 channels are off."""
    maps = trunk_like(8, large=True)
    centred = vectors(maps).flatten(0, 1)
    centred = centred - centred.mean(0)
    axes = torch.linalg.svd(centred, full_matrices=False)[2][:4]
    back = (vectors(maps) - vectors(maps).mean((0, 1))) @ axes.T @ axes + vectors(maps).mean((0, 1))
    back = back.transpose(1, 2).reshape(maps.shape)
    assert worst_cosine(maps, back) > 0.99
    assert worst_cosine(by_channel(maps), by_channel(back)) < 0.97


def test_maps_without_structure_keep_the_floor_at_the_price_of_bytes():
    noise = torch.randn(8, 32, 12, 12, generator=torch.Generator().manual_seed(0))
    back, size = through(PcaInt8(fit_basis(vectors(noise))), noise)
    assert worst_cosine(noise, back) >= 0.99
    assert size > 0.15 * noise.numel() * 2


def test_a_map_far_outside_of_the_sample_is_stored_in_16_bits(basis):
    codec, maps = PcaInt8(basis), trunk_like(2, seed=1)
    maps[1] *= 60
    small, large = codec.quantise(maps)
    assert b"<i2" in codec._decompressor.decompress(codec.pack(large)[0])
    assert b"|i1" in codec._decompressor.decompress(codec.pack(small)[0])
    assert worst_cosine(maps, through(codec, maps)[0]) >= 0.99


@given(hnp.arrays(np.float32, (2, 3, 2, 2), elements=st.floats(-65504, 65504, width=32, allow_subnormal=False)))
def test_int8_is_off_by_half_a_step_of_its_channel_at_most(values):
    maps = torch.from_numpy(values)
    back, _ = through(Int8(), maps)
    largest = maps.half().float().abs().amax((2, 3), keepdim=True)
    # Half a step, and what float16 rounds away before and after.
    assert ((back - maps).abs() <= largest * (0.5 / 127 + 2**-10) + 2**-24).all()


def test_a_channel_of_zeros_stays_zero(basis):
    maps = torch.zeros(1, 4, 3, 3)
    maps[0, 1] = 5.0
    assert torch.equal(through(Int8(), maps)[0], maps)
    constant = fit_basis(vectors(maps.expand(4, -1, -1, -1)))
    assert torch.allclose(through(PcaInt8(constant), maps)[0], maps)


@pytest.mark.parametrize("name", CODECS)
def test_a_codec_travels_to_another_process_and_tells_shapes(name, basis):
    codec = CODECS[name](basis) if name == "pca-int8" else CODECS[name]()
    maps = trunk_like(2)
    before = through(codec, maps)[0]
    assert torch.equal(through(pickle.loads(pickle.dumps(codec)), maps)[0], before)
    assert codec.shape_of(codec.quantise(maps)[0]) == SHAPE


@pytest.mark.parametrize("name", CODECS)
def test_bytes_of_something_else_are_refused(name, basis):
    codec = CODECS[name](basis) if name == "pca-int8" else CODECS[name]()
    data = b"".join(codec.pack(codec.quantise(trunk_like(1))[0]))
    other = FLOAT16 if name == "int8" else Int8()
    alien = b"".join(other.pack(other.quantise(trunk_like(1))[0]))
    for wrong in (b"", b"text" * 99, data[:-7], data + b"0", alien):
        with pytest.raises(ValueError, match=r".+"):
            codec.unpack(wrong)


def test_a_basis_of_other_channels_does_not_fit(basis):
    other = PcaInt8(fit_basis(torch.randn(4, 50, 7)))
    data = b"".join(other.pack(other.quantise(torch.randn(1, 7, 5, 5))[0]))
    with pytest.raises(ValueError, match="shape"):
        PcaInt8(basis).unpack(data)


def test_the_axes_are_orthonormal_and_projecting_can_be_undone(basis):
    assert torch.allclose(basis.axes @ basis.axes.T, torch.eye(SHAPE[0]), atol=1e-5)
    flat = vectors(trunk_like(1))[0]
    assert torch.allclose(basis.restore(basis.project(flat)), flat, atol=1e-4)


def test_the_first_basis_that_is_saved_counts_for_all(basis, tmp_path, refused):
    assert basis_sha256(tmp_path) == ""
    first = basis.save(tmp_path / "cache", MADE_BY)
    digest = basis_sha256(tmp_path / "cache")
    second = fit_basis(torch.randn(4, 50, 7)).save(tmp_path / "cache", replace(MADE_BY, trunk_sha256="def"))
    assert first.channels == second.channels == SHAPE[0]
    assert torch.equal(first.axes, second.axes)
    assert first.step == basis.step
    assert basis_sha256(tmp_path / "cache") == digest
    assert basis_identity(tmp_path / "cache") == MADE_BY
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [BASIS]


def test_a_basis_that_is_missing_or_changed_is_refused(basis, tmp_path, refused):
    refused(CacheError, lambda: Basis.load(tmp_path), where=BASIS, found="cannot be read")
    basis.save(tmp_path, MADE_BY)
    refused(CacheError, lambda: Basis.load(tmp_path, "0" * 64), where=BASIS, found="has SHA-256", expected="0" * 64)
    (tmp_path / BASIS).write_bytes(b"no tensors")
    refused(CacheError, lambda: Basis.load(tmp_path), where=BASIS, found="is no basis")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 65520.0, -1e9])
def test_a_map_that_float16_cannot_hold_is_refused_with_its_sample(value, refused):
    maps = torch.zeros(2, 3, 2, 2)
    maps[1, 2, 0, 1] = value
    call = lambda: require_float16_range(maps, ["good", "bad"])  # noqa: E731
    refused(CacheError, call, where="sample bad", found=f"{abs(value)}")


def test_float16_rounds_to_nearest_and_takes_the_largest_that_it_can():
    maps = torch.tensor([65504.0, 1.0 + 2**-12, 1.0 + 3 * 2**-12]).reshape(1, 3, 1, 1)  # near 1 it has steps of 2^-10
    require_float16_range(maps, ["a"])
    assert FLOAT16.quantise(maps).ravel().tolist() == [65504.0, 1.0, 1.0 + 2**-10]
    assert FLOAT16.quantise(maps.bfloat16()[:, 1:]).dtype == np.float16
