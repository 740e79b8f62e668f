import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pl_distill.errors import ConfigError
from pl_distill.losses.direction_then_scale import (
    DirectionThenScaleLoss,
    direction,
    pyramid_direction,
    pyramid_value,
    value,
)
from pl_distill.losses.feature_loss import Progress

WEIGHTS = ("direction_weight", "pyramid_direction_weight", "value_weight", "pyramid_value_weight")


def vectors(*rows):
    """One picture, one row of cells: each row of numbers is the channel vector of a cell."""
    return torch.tensor(rows, dtype=torch.float32).T[None, :, None, :]  # (1, C, 1, w)


def random_map(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_direction_is_one_minus_the_cosine_of_each_location():
    student = vectors([2, 0], [0, 1], [-1, 0], [1, 1])
    teacher = vectors([1, 0], [3, 0], [2, 0], [1, 0])
    assert direction(student, teacher).item() == pytest.approx((0 + 1 + 2 + 1 - math.sqrt(0.5)) / 4)


def test_pyramid_levels_count_the_same_however_many_cells():
    right = vectors(*[[1, 0]] * 9)
    left = vectors([-1, 0])
    teacher = vectors([1, 0])
    assert pyramid_direction([right, left], [right, teacher]).item() == pytest.approx((0 + 2) / 2)


def test_value_is_the_squared_error_over_the_teachers_squares():
    teacher = vectors([3, 4], [0, 5])  # squares add up to 50
    student = vectors([3, 6], [1, 5])  # errors of 2 and 1
    assert value(student, teacher).item() == pytest.approx((4 + 1) / 50)


def test_the_value_of_pyramids_counts_levels_the_same_however_large_they_are():
    large, small = vectors(*[[100, 0]] * 9), vectors([0.1, 0])
    assert pyramid_value([large, 2 * small], [large, small]).item() == pytest.approx((0 + 1) / 2)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.floats(0.01, 100))
def test_equal_maps_lose_nothing(seed, size):
    features = random_map(seed, 2, 5, 3, 3) * size
    levels = [random_map(seed + 1, 2, 4, 6, 6), random_map(seed + 2, 2, 4, 3, 3)]
    terms = DirectionThenScaleLoss()(features, features, levels, levels)
    assert all(term.abs().item() < 1e-6 for term in terms.values())


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.floats(0.1, 10))
def test_direction_does_not_see_length_and_value_does(seed, factor):
    teacher = random_map(seed, 2, 5, 3, 3)
    assert direction(teacher * factor, teacher).item() == pytest.approx(0, abs=1e-5)
    assert value(teacher * factor, teacher).item() == pytest.approx((factor - 1) ** 2, rel=1e-4, abs=1e-6)
    assert direction(-teacher, teacher).item() == pytest.approx(2, abs=1e-5)


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.floats(0.01, 100))
def test_the_unit_of_the_features_does_not_matter(seed, unit):
    student, teacher = random_map(seed, 2, 5, 3, 3), random_map(seed + 1, 2, 5, 3, 3)
    for term in (direction, value):
        assert term(student * unit, teacher * unit).item() == pytest.approx(term(student, teacher).item(), rel=1e-3)


def test_an_empty_location_gives_finite_values_and_gradients():
    student = torch.zeros(1, 4, 2, 2, requires_grad=True)
    terms = DirectionThenScaleLoss()(student, torch.zeros(1, 4, 2, 2))
    terms["loss"].backward()
    assert all(torch.isfinite(term) for term in terms.values())
    assert torch.isfinite(student.grad).all()
    other = torch.zeros(1, 4, 2, 2, requires_grad=True)
    DirectionThenScaleLoss()(other, torch.randn(1, 4, 2, 2))["loss"].backward()
    assert torch.isfinite(other.grad).all()


def test_terms_are_unweighted_and_the_loss_is_their_weighted_sum():
    student, teacher = random_map(0, 2, 5, 3, 3), random_map(1, 2, 5, 3, 3)
    ours, theirs = [random_map(2, 2, 4, 6, 6)], [random_map(3, 2, 4, 6, 6)]
    loss = DirectionThenScaleLoss(2.0, 3.0, 5.0, 7.0)
    terms = loss(student, teacher, ours, theirs)
    assert next(iter(terms)) == "loss"
    assert set(terms) == {"loss", "direction", "value", "pyramid_direction", "pyramid_value"}
    assert terms["direction"].item() == pytest.approx(direction(student, teacher).item())
    weights = {"direction": 2, "pyramid_direction": 3, "value": 5, "pyramid_value": 7}
    total = sum(weight * terms[name].item() for name, weight in weights.items())
    assert terms["loss"].item() == pytest.approx(total, rel=1e-5)


def test_directions_lead_and_values_follow():
    student, teacher = random_map(0, 2, 5, 3, 3), random_map(1, 2, 5, 3, 3)
    levels = [random_map(2, 2, 4, 6, 6)], [random_map(3, 2, 4, 6, 6)]
    loss = DirectionThenScaleLoss(ramp=(0.25, 0.75))
    at = {step: loss(student, teacher, *levels, Progress(step, 100)) for step in (0, 25, 50, 75, 100)}
    first, rest = (sum(at[0][f"{where}{name}"].item() for where in ("", "pyramid_")) for name in ("direction", "value"))
    for step, part in ((0, 0), (25, 0), (50, 0.5), (75, 1), (100, 1)):
        assert at[step]["loss"].item() == pytest.approx(first + part * rest, rel=1e-5)


@settings(max_examples=50)
@given(st.integers(1, 1000), st.floats(0, 1), st.floats(0, 1))
def test_the_ramp_rises_from_0_to_1(total, start, length):
    loss = DirectionThenScaleLoss(ramp=(start, start + (1 - start) * length))
    values = [loss.ramp_at(Progress(step, total)) for step in range(0, total + 1, max(1, total // 50))]
    assert all(0 <= value <= 1 for value in values)
    assert values == sorted(values)
    assert loss.ramp_at(Progress(total, total)) == 1


def test_an_empty_ramp_switches():
    loss = DirectionThenScaleLoss(ramp=(0.5, 0.5))
    assert [loss.ramp_at(Progress(step, 10)) for step in (4, 5)] == [0, 1]


def test_without_their_weights_the_pyramid_terms_are_not_asked_for():
    without = DirectionThenScaleLoss(pyramid_direction_weight=0.0, pyramid_value_weight=0.0)
    assert without.pyramid_images(16) == 0
    assert DirectionThenScaleLoss(pyramid_direction_weight=0.0).pyramid_images(16) == 16
    assert DirectionThenScaleLoss(pyramid_value_weight=0.0).pyramid_images(16) == 16


def test_the_share_of_images_is_rounded_up_to_whole_ones():
    loss = DirectionThenScaleLoss(pyramid_share=0.125)
    assert [loss.pyramid_images(images) for images in (16, 8, 9, 1)] == [2, 1, 2, 1]


def test_half_precision_maps_are_compared_in_float32():
    student, teacher = random_map(0, 2, 5, 3, 3).bfloat16(), random_map(1, 2, 5, 3, 3).bfloat16()
    terms = DirectionThenScaleLoss()(student, teacher)
    assert {term.dtype for term in terms.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"pyramid_value_weight": -1.0}, "none negative"),
        (dict.fromkeys(WEIGHTS, 0.0), "one positive"),
        ({"ramp": (0.5, 0.2)}, "start <= end"),
        ({"ramp": (100, 200)}, "end <= 1"),
        ({"pyramid_share": 0.0}, "pyramid_share"),
        ({"pyramid_share": 1.5}, "pyramid_share"),
    ],
)
def test_senseless_settings_are_refused(arguments, words):
    with pytest.raises(ConfigError, match=words):
        DirectionThenScaleLoss(**arguments)


def test_a_student_of_pyramids_is_judged_by_the_means_over_its_levels():
    ours, theirs = [[random_map(seed, 2, 4, side, side) for side in (6, 3)] for seed in (0, 1)]
    loss = DirectionThenScaleLoss(2.0, 3.0, 5.0, 7.0)
    terms = loss(None, None, ours, theirs, Progress(99, 100))
    assert set(terms) == {"loss", "pyramid_direction", "pyramid_value"}
    directions, values = (
        sum(one(a, b).item() for a, b in zip(ours, theirs, strict=True)) / 2 for one in (direction, value)
    )
    assert [terms["pyramid_direction"].item(), terms["pyramid_value"].item()] == pytest.approx([directions, values])
    assert terms["loss"].item() == pytest.approx((2 + 3) * directions + (5 + 7) * values, rel=1e-5)
