"""What stands in the plots of a report, and that everybody can read it."""

import re
from importlib.resources import files

import pytest

from pl_distill.evaluation.curves import Curve
from pl_distill.evaluation.plots import MAX_CLIPS, draw_curves, draw_domains, draw_scores
from pl_distill.evaluation.results import ClipResult, ModelIdentity, ModelResult
from tests.pl_distill.evaluation.reporting import scores


def model(misses_of: dict[str, int]) -> ModelResult:
    identity = ModelIdentity("runs/model", "sam3", "ab" * 32, 3, 2, 1, 112)
    clips = {name: ClipResult(scores(misses)) for name, misses in misses_of.items()}
    return ModelResult(scores(1), clips, identity, 18.2, 4.0, 2**30)


def words(svg: str) -> list[str]:
    return re.findall(r">([^<>\s][^<>]*)</t", svg)


def test_dollars_in_names_are_text_and_no_formula():
    drawn = draw_scores({"model": model({"pen$_$1/000": 3, "a$b/000": 2})}, "mota", "MOTA by clip")
    assert drawn is not None
    assert {"pen$_$1/000", "a$b/000"} <= set(words(drawn.svg))
    domains = draw_domains({"farm$^$": {"student": 80.0}}, "MOTA")
    assert domains is not None
    assert "farm$^$" in words(domains.svg)


def test_ticks_of_a_curve_that_spans_decades_are_plain_numbers():
    (drawn,) = draw_curves({"loss": {"train": Curve((0, 1, 2), (100.0, 1.0, 0.01))}})
    assert {"0.01", "1", "100"} <= set(words(drawn.svg))
    assert "$" not in drawn.svg


def test_a_path_as_the_name_of_a_clip_leaves_room_for_its_score():
    name = "a_farm_of_a_long_name/camera-17-pen-4/2026_01_29/000003"
    drawn = draw_scores({"model": model({name: 3, "2026_01_29/000003": 2})}, "mota", "MOTA by clip")
    assert drawn is not None
    assert {"…-17-pen-4/2026_01_29/000003", "2026_01_29/000003"} <= set(words(drawn.svg))


def test_of_many_clips_of_one_model_those_with_the_lowest_score_are_shown():
    misses = {f"clip{number:02d}": 60 - 2 * number for number in range(MAX_CLIPS + 3)}  # the first ones are worst
    drawn = draw_scores({"model": model(misses)}, "mota", "MOTA by clip")
    assert drawn is not None
    shown = [word for word in words(drawn.svg) if word.startswith("clip")]
    assert shown == [f"clip{number:02d}" for number in reversed(range(MAX_CLIPS))]  # drawn from below: the worst on top
    assert "The 20 of 23 clips with the lowest score." in drawn.caption


def test_of_many_clips_of_two_models_those_where_they_differ_most_are_shown():
    misses = {f"clip{number:02d}": 5 for number in range(MAX_CLIPS + 1)}
    two = {"teacher": model(misses), "student": model({name: 5 + int(name[4:]) for name in misses})}
    drawn = draw_scores(two, "mota", "MOTA by clip")
    assert drawn is not None
    assert "clip00" not in words(drawn.svg)
    assert "The 20 of 21 clips where the models differ most." in drawn.caption


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_coloured_text_stands_out_from_what_it_is_written_on(scheme):
    style = (files("pl_distill.evaluation") / "report.css").read_text(encoding="utf-8")
    found = {name: re.findall(rf"--{name}: (#\w+)", style)[scheme] for name in re.findall(r"--([\w-]+): #", style)}
    for text in ("ink", "muted", "teacher", "student", "good", "bad"):
        for ground in ("paper", "card"):
            high, low = sorted((luminance(found[text]), luminance(found[ground])), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)
