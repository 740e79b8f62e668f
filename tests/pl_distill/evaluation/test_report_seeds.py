"""A report of several seeds: what is over all of them, and what of the first alone."""

from dataclasses import replace

import pytest

from pl_distill.errors import ConfigError
from pl_distill.evaluation.caveats import one_seed
from pl_distill.evaluation.report import report
from pl_distill.evaluation.results import Settings, read_results, write_results
from tests.pl_distill.evaluation.reporting import make, page, scores


def test_students_of_other_seeds_are_compared_together(tmp_path):
    note = "2 clips of 2 days and one seed: differences between teacher and student are not established"
    paths = [make(tmp_path / name, seed=seed) for seed, name in enumerate("abc")]
    for path in paths:
        results = read_results(path)
        write_results(path, replace(results, notes=["mind the straw", one_seed(results.models)]))
    assert note in page(report(paths[0])).text
    together = page(report(paths[0], seeds=paths[1:])).text
    assert "2 clips, 2 days, 3 seeds" in together
    assert "mind the straw" in together
    assert note not in together


def test_what_another_seed_warns_of_is_told_with_its_place(tmp_path):
    paths = [make(tmp_path / name, seed=seed) for seed, name in enumerate("abc")]
    silent = "No 'pig' was found in any judged frame by the student."
    results = read_results(paths[1])
    write_results(paths[1], replace(results, notes=[*results.notes, silent]))
    together = page(report(paths[0], seeds=paths[1:])).text
    assert f"{paths[1]}: {silent}" in together
    assert together.count("mind the straw") == 1  # what all say has no place
    assert f"{paths[0]}: mind the straw" not in together


def test_each_seed_has_a_line_and_what_is_of_the_first_alone_says_so(tmp_path):
    paths = [make(tmp_path / name, seed=seed) for seed, name in enumerate("abc")]
    better = scores(9)
    results = read_results(paths[2])
    models = results.models | {"student": replace(results.models["student"], overall=better)}
    write_results(paths[2], replace(results, models=models))
    together = page(report(paths[0], seeds=paths[1:])).text
    assert "Seed by seed" in together
    assert f"{paths[1]} 90.00 84.00 -6.00 " in together
    assert f"{paths[2]} 90.00 91.00 +1.00 " in together
    mean = (84 + 84 + 91) / 3
    assert f"mean 90.00 {mean:.2f} {mean - 90:+.2f} " in together
    for heading in ("Scores, speed and size", "Clip by clip", "Beside the paper", "Time and memory"):
        assert f"{heading} first of 3 seeds" in together
    assert "Is the difference real? first" not in together
    alone = page(report(paths[0])).text
    assert "Seed by seed" not in alone
    assert "first of" not in alone


def test_what_are_no_seeds_of_one_comparison_is_refused(tmp_path):
    first = make(tmp_path / "a", seed=0)
    settings = Settings("runs/shards", "pen", "test", "pig", {"mode": "bounded"}, 0.5, None, "cpu")
    strangers = {
        r"has the very student of .*a": {"seed": 0},
        "is of other clips": {"names": ("2026_01_29/000000",)},
        "compares no student": {"roles": ("model",)},
        "is of other settings": {"settings": settings},
        "is of other pictures": {"data_sha256": "b" * 64},
        "is of other kinds of student": {"kind": "TinyViTDual"},
    }
    for number, (message, changes) in enumerate(strangers.items(), start=1):
        other = make(tmp_path / str(number), **{"seed": number, **changes})
        with pytest.raises(ConfigError, match=message):
            report(first, seeds=[other])
    other = make(tmp_path / "of another teacher", seed=9)
    other.write_text(other.read_text().replace("ab" * 32, "ba" * 32))
    with pytest.raises(ConfigError, match="is of other teachers"):
        report(first, seeds=[other])
