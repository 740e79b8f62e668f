import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pl_distill.errors import ConfigError
from pl_distill.losses.baselines import EfficientSAM3Loss, MeanSquaredErrorLoss, RelationalLoss

BASELINES = [MeanSquaredErrorLoss, EfficientSAM3Loss, RelationalLoss]


def vectors(*rows):
    """One picture, one row of cells: each row of numbers is the channel vector of a cell."""
    return torch.tensor(rows, dtype=torch.float32).T[None, :, None, :]  # (1, C, 1, w)


def random_map(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def softmax(*values):
    total = sum(math.exp(value) for value in values)
    return [math.exp(value) / total for value in values]


def test_mean_squared_error_by_hand():
    terms = MeanSquaredErrorLoss()(vectors([1, 2], [0, 0]), vectors([1, 0], [2, 0]))
    assert terms["mse"].item() == terms["loss"].item() == pytest.approx((0 + 4 + 4 + 0) / 4)


def test_efficientsam3_sums_over_channels_and_adds_the_cosine():
    terms = EfficientSAM3Loss(cosine_weight=3.0)(vectors([1, 2], [0, 3]), vectors([1, 2], [4, 0]))
    assert terms["sum_mse"].item() == pytest.approx((0 + 25) / 2)
    assert terms["direction"].item() == pytest.approx((0 + 1) / 2)
    assert terms["loss"].item() == pytest.approx(12.5 + 3 * 0.5)


def test_relations_within_a_picture_by_hand():
    student, teacher = vectors([2, 0], [0, 5], [0, 1]), vectors([3, 0], [1, 0], [0, 4])
    terms = RelationalLoss(temperature=0.5)(student, teacher)
    like_one, like_the_other, alike = softmax(2, 0), softmax(0, 2), softmax(0, 0)  # of the two other locations
    rows = [kl(like_one, alike), kl(like_one, like_the_other), kl(alike, like_the_other)]
    assert terms["within"].item() == pytest.approx(sum(rows) / 3, rel=1e-4)


def test_relations_between_pictures_look_at_the_teachers_vectors():
    teacher = torch.cat([vectors([1, 0], [1, 0]), vectors([0, 3], [0, 3])])  # references: (1, 0) and (0, 1)
    student = torch.cat([vectors([0, 2], [0, 2]), vectors([4, 3], [4, 3])])
    loss = RelationalLoss(temperature=0.5)
    assert loss(teacher, teacher)["between"].item() == pytest.approx(0, abs=1e-6)
    first = kl(softmax(2, 0), softmax(0, 2))  # the teacher's picture is like the first reference, the student's is not
    second = kl(softmax(0, 2), softmax(1.6, 1.2))
    assert loss(student, teacher)["between"].item() == pytest.approx((first + second) / 2, rel=1e-4)


@pytest.mark.parametrize("kind", BASELINES)
@settings(max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_equal_maps_lose_nothing_and_others_something(kind, seed):
    teacher, other = random_map(seed, 2, 5, 3, 3), random_map(seed + 1, 2, 5, 3, 3)
    assert kind()(teacher, teacher)["loss"].abs().item() < 1e-5
    assert kind()(other, teacher)["loss"].item() > 0


def test_relations_know_no_scale():
    student, teacher = random_map(0, 2, 5, 3, 3), random_map(1, 2, 5, 3, 3)
    loss = RelationalLoss()
    assert loss(100 * student, teacher)["loss"].item() == pytest.approx(loss(student, teacher)["loss"].item(), rel=1e-4)


def test_large_maps_are_compared_at_evenly_spread_locations():
    features = random_map(0, 1, 4, 10, 10)
    assert RelationalLoss(locations=30)._spread(features).shape == (1, 25, 4)  # every fourth of a hundred
    assert RelationalLoss(locations=100)._spread(features).shape == (1, 100, 4)


@pytest.mark.parametrize("kind", BASELINES)
def test_without_a_trunk_map_levels_count_the_same(kind):
    ours, theirs = [[random_map(seed, 2, 4, side, side) for side in (4, 2)] for seed in (0, 1)]
    loss = kind()
    each = [loss(a, b)["loss"].item() for a, b in zip(ours, theirs, strict=True)]
    assert loss(None, None, ours, theirs)["loss"].item() == pytest.approx(sum(each) / 2, rel=1e-5)
    assert not loss.uses_pyramids


def test_senseless_settings_are_refused():
    with pytest.raises(ConfigError, match="positive temperature"):
        RelationalLoss(temperature=0)
