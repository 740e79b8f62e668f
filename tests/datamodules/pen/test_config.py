from dataclasses import fields
from pathlib import Path

import pytest

from datamodules.errors import UserError
from datamodules.pen import PenConfig, load_pen_config

CHANGES = {  # domain -> what it may change against the default
    "day": set(),
    "dusk": {"brightness", "warmth", "noise"},
    "straw": {"straw_per_m2"},
    "black-coat": {"coat"},
    "low-camera": {"camera_height_m", "camera_tilt_deg", "camera_aim_x_m", "camera_aim_y_m", "view_width_m"},
    "crowded": {"num_animals"},
    "sheep": {"species", "coat", "body_length_m"},
    "farm-b": {"floor", "furniture", "straw_per_m2", "camera_height_m", "view_width_m", "coat", "body_length_m"},
}


@pytest.mark.parametrize("domain", CHANGES)
def test_each_domain_changes_its_one_thing(domain):
    config, default = load_pen_config(domain), PenConfig()
    changed = {field.name for field in fields(PenConfig) if getattr(config, field.name) != getattr(default, field.name)}
    assert config.domain == domain
    assert changed - {"domain"} == CHANGES[domain] & changed
    assert bool(changed) == (domain != "day")


def test_every_shipped_recipe_is_a_known_domain():
    assert {path.stem for path in (Path(__file__).parents[3] / "configs" / "pen").glob("*.yaml")} == set(CHANGES)


def test_only_crowded_has_other_than_eight_animals():
    assert {domain: load_pen_config(domain).num_animals for domain in CHANGES} == dict.fromkeys(CHANGES, 8) | {
        "crowded": 14
    }


def test_hash_covers_values_and_not_their_spelling():
    assert PenConfig(fps=6).sha256 == PenConfig(fps=6.0).sha256
    assert PenConfig(fps=6).sha256 != PenConfig(fps=12).sha256


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("heigth: 3", "unknown key 'heigth'"),
        ("- a\n- b", "holds a list"),
        ("a: [", "is not YAML"),
        ("a: 2019-13-01", "is not YAML"),
        ("domain: \udce9", "is not YAML"),  # a byte that is no UTF-8
        ("fps: fast", "is 'fast', expected a number"),
        ("num_animals: 41", "is 41, expected between 0 and 40"),
        ("num_animals: true", "is True, expected a whole number"),
        ("coat: blue", "expected one of pink, black, red, wool"),
        ("width: 641", "even"),
    ],
)
def test_a_wrong_recipe_is_refused_with_key_and_cure(tmp_path, text, words):
    path = tmp_path / "mine.yaml"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(UserError, match=r".") as caught:
        load_pen_config(path)
    assert words in str(caught.value)


def test_a_recipe_of_ones_own_keeps_the_other_defaults(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("domain: mine\nwidth: 320\nheight: 180\n")
    assert load_pen_config(path) == PenConfig(domain="mine", width=320, height=180)


@pytest.mark.parametrize("name", ["night", "../pen/day", "nowhere.yaml"])
def test_a_recipe_that_is_not_there_is_named(name):
    with pytest.raises(UserError, match=r"not a shipped domain|does not exist"):
        load_pen_config(name)
