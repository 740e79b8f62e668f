import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.clip import Annotation
from datamodules.masks import encode_mask
from datamodules.views import View, Weather, truth_of

WIDTH, HEIGHT = 80, 40


def annotation(*boxes, masks=True, visible=None):
    drawn = []
    for left, top, right, bottom in boxes:
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[top:bottom, left:right] = True
        drawn.append(encode_mask(mask))
    count = len(boxes)
    return Annotation(
        identities=tuple(f"a{i}" for i in range(count)),
        boxes_xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        behaviours=(None,) * count,
        visible=np.ones(count, bool) if visible is None else np.array(visible),
        masks=tuple(drawn) if masks else None,
    )


def truth(animals, view):
    return truth_of(animals, view, width=WIDTH, height=HEIGHT, mask_size=8)


def test_the_whole_picture_keeps_boxes_and_covered_fractions():
    found = truth(annotation((20, 10, 45, 30)), View())
    torch.testing.assert_close(found.boxes, torch.tensor([[0.25, 0.25, 0.5625, 0.75]]))
    assert found.masks is not None
    # a mask pixel is 10 x 5: columns 2, 3 are full, column 4 half covered; rows 2 to 5
    torch.testing.assert_close(found.masks[0, 3], torch.tensor([0, 0, 1, 1, 0.5, 0, 0, 0]))
    assert found.masks[0, :2].sum() == 0


@pytest.mark.parametrize("masks", [True, False])
def test_mirrors_exchange_edges(masks):
    found = truth(annotation((8, 0, 24, 10), masks=masks), View(mirror_x=True, mirror_y=True))
    torch.testing.assert_close(found.boxes, torch.tensor([[0.7, 0.75, 0.9, 1.0]]))


@pytest.mark.parametrize("masks", [True, False])
def test_a_view_drops_what_is_mostly_outside_and_cuts_the_rest(masks):
    animals = annotation((30, 0, 50, 10), (36, 20, 80, 30), (0, 0, 10, 10), masks=masks)
    found = truth(animals, View(width=0.5))  # columns 0 to 40: half of the first, 4 of 44 columns of the second
    assert found.identities == ("a0", "a2")
    torch.testing.assert_close(found.boxes[0], torch.tensor([0.75, 0, 1.0, 0.25]))


def test_hidden_objects_are_not_there():
    assert truth(annotation((0, 0, 9, 9), (20, 0, 29, 9), visible=[False, True]), View()).identities == ("a1",)


def test_an_empty_picture_has_no_boxes_and_no_masks():
    found = truth(annotation(), View())
    assert found.boxes.shape == (0, 4)
    assert found.masks is not None
    assert found.masks.shape == (0, 8, 8)


@given(st.integers(0, 2**31))
def test_random_views_lie_inside_the_picture_and_boxes_inside_the_view(seed):
    view = View.random(np.random.default_rng(seed), zoom=0.5, mirror_y=True)
    left, top, right, bottom = view.pixels(WIDTH, HEIGHT)
    assert 0 <= left < right <= WIDTH
    assert 0 <= top < bottom <= HEIGHT
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[12:20, 30:50] = 255
    cut = view.of_image(image)
    assert cut.shape == (bottom - top, right - left, 3)
    found = truth(annotation((30, 12, 50, 20)), view)
    if len(found.boxes):  # the box is where the white pixels are
        x = np.flatnonzero(cut[..., 0].any(0))
        assert found.boxes[0, 0] * cut.shape[1] == pytest.approx(x[0], abs=1e-3)
        assert found.boxes[0, 2] * cut.shape[1] == pytest.approx(x[-1] + 1, abs=1e-3)


def test_no_weather_changes_nothing_and_weather_changes_brightness():
    pixels = torch.linspace(-1, 1, 48).view(3, 4, 4)
    rng = np.random.default_rng(0)
    torch.testing.assert_close(Weather.random(rng, 0.0)(pixels, rng), pixels)
    dark = Weather(torch.full((3, 1, 1), 0.5), 0.0, 0.0)(pixels, rng)
    torch.testing.assert_close(dark, (pixels + 1) / 2 - 1)  # black stays black
