import hashlib
from dataclasses import replace

import numpy as np
import pytest

from datamodules.pen import Age, PenConfig, PenRenderer, Year, load_pen_config, pen_frames, simulate

SMALL = replace(PenConfig(), width=320, height=180)


def picture(day=None, seed=3, year=None):
    age = None if day is None else (year or Year()).on(day, seed)
    state = next(simulate(SMALL, seed, 1))
    return PenRenderer(SMALL, seed, age=age).render(state)


def test_a_day_without_change_draws_what_was_always_drawn():
    assert (picture().image == PenRenderer(SMALL, 3, age=Age(day=0)).render(next(simulate(SMALL, 3, 1))).image).all()


@pytest.mark.parametrize(
    ("domain", "pixels"),
    [
        ("day", "12b8edcec6e15941"),
        ("farm-b", "298bcb9d7233b2b8"),
        ("sheep", "ec1603818f8ab329"),
    ],
)
def test_the_domains_draw_the_pixels_that_they_drew_before_there_were_years(domain, pixels):
    config = replace(load_pen_config(domain), width=320, height=180)
    drawn = [frame.image.astype(np.int64) for frame in pen_frames(config, seed=1, frames=2, every=6)]
    # Sums over blocks: another build of OpenCV may round a pixel otherwise, a change of the drawing moves blocks.
    blocks = np.stack([image.reshape(6, 30, 8, 40, 3).mean((1, 3)) for image in drawn])
    assert hashlib.sha256(np.round(blocks / 4).astype(np.int64).tobytes()).hexdigest()[:16] == pixels


def test_animals_grow_and_their_names_stay():
    young, old = picture(0), picture(364)
    assert young.names == old.names
    share = old.masks.sum() / young.masks.sum()
    assert 1.5 < share < 2.2  # 0.72 of the length is half of the area


def test_marks_fade_and_dirt_comes_within_weeks_but_not_overnight():
    still = Year(young=1.0, summer=0.0, weather=0.0, fading=0.0)
    days = [picture(day, year=still) for day in (100, 101, 130)]
    inside = days[0].masks.any(0)
    overnight, month = (np.abs(days[0].image.astype(int) - other.image)[inside].mean() for other in days[1:])
    assert overnight < 0.5 * month
    assert month > 4


def test_summer_is_brighter_than_winter():
    bare = Year(dirt=0.0, weather=0.0)
    assert picture(190, year=bare).image.mean() > 1.2 * picture(5, year=bare).image.mean()


def test_the_same_day_is_the_same_and_a_whole_year_can_be_drawn():
    assert (picture(50).image == picture(50).image).all()
    for day in (0, 364, 2000):
        age = Year().on(day, 1)
        assert 0.7 <= age.growth <= 1
        assert 0.4 <= age.brightness <= 1.5
