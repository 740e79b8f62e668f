import json

import pytest

from pl_distill.commands.steps import Steps
from pl_distill.errors import ConfigError


def chain(folder, settings, calls):
    steps = Steps(folder / "log.json", settings, total=2)
    for name in ("draw", "train"):
        product = folder / name

        def action(name=name, product=product):
            calls.append(name)
            product.write_text(name)

        steps.run(name, f"{name} it", product, action)
    return steps


def test_a_second_run_reuses_every_step_and_says_so(tmp_path, capsys):
    calls = []
    chain(tmp_path, {"seed": 0}, calls)
    capsys.readouterr()
    again = chain(tmp_path, {"seed": 0}, calls)
    assert calls == ["draw", "train"]
    assert capsys.readouterr().out.count("reused") == 2
    assert set(again.done) == {"draw", "train"}


def test_a_steps_peak_is_that_of_its_largest_process(tmp_path):
    steps = Steps(tmp_path / "log.json", {}, total=2)
    steps.run("apart", "start a process", tmp_path, lambda: steps.note_peak(2**50))
    steps.run("alone", "do it alone", tmp_path, lambda: None)
    assert steps.done["apart"].peak_rss_bytes == 2**50
    assert 0 < steps.done["alone"].peak_rss_bytes < 2**40


def test_a_step_that_failed_is_done_again_and_the_one_before_it_is_not(tmp_path):
    calls = []
    steps = Steps(tmp_path / "log.json", {}, total=2)
    steps.run("draw", "draw it", tmp_path / "draw", lambda: (tmp_path / "draw").write_text(""))
    with pytest.raises(KeyboardInterrupt):
        steps.run("train", "train it", tmp_path / "train", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    chain(tmp_path, {}, calls)
    assert calls == ["train"]


def test_a_step_whose_product_was_deleted_is_done_again_and_so_are_those_after_it(tmp_path):
    calls = []
    chain(tmp_path, {}, calls)
    (tmp_path / "draw").unlink()
    chain(tmp_path, {}, calls)
    assert calls == ["draw", "train", "draw", "train"]
    (tmp_path / "train").unlink()
    chain(tmp_path, {}, calls)
    assert calls == ["draw", "train", "draw", "train", "train"]


def test_other_settings_are_refused_by_name(tmp_path):
    chain(tmp_path, {"seed": 0, "frames": 10}, [])
    with pytest.raises(ConfigError, match=r"run with frames 10, expected frames 12 as asked for now\. Give another"):
        chain(tmp_path, {"seed": 0, "frames": 12}, [])


def test_a_step_without_its_product_is_not_done(tmp_path):
    steps = Steps(tmp_path / "log.json", {}, total=1)
    with pytest.raises(ConfigError, match=r"draw: is not there after the step 'draw'"):
        steps.run("draw", "draw it", tmp_path / "draw", lambda: None)
    assert Steps(tmp_path / "log.json", {}, total=1).done == {}


def test_what_a_killed_first_step_left_is_not_gone_on_with_under_other_settings(tmp_path):
    steps = Steps(tmp_path / "log.json", {"seed": 0}, total=2)
    assert not (tmp_path / "log.json").exists(), "who only looks writes nothing"
    with pytest.raises(KeyboardInterrupt):
        steps.run("train", "train it", tmp_path / "train", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(ConfigError, match=r"run with seed 0, expected seed 1"):
        Steps(tmp_path / "log.json", {"seed": 1}, total=2)
    assert Steps(tmp_path / "log.json", {"seed": 0}, total=2).done == {}


def test_a_product_that_a_killed_repetition_left_is_not_taken_for_a_whole_one(tmp_path):
    chain(tmp_path, {}, [])
    (tmp_path / "draw").unlink()
    steps = Steps(tmp_path / "log.json", {}, total=2)

    def die():
        (tmp_path / "draw").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        steps.run("draw", "draw it", tmp_path / "draw", die)
    calls = []
    chain(tmp_path, {}, calls)
    assert calls == ["draw", "train"]


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"settings": {}}), json.dumps({"settings": {}, "steps": 3})])
def test_a_damaged_log_is_refused(tmp_path, content):
    (tmp_path / "log.json").write_text(content)
    with pytest.raises(ConfigError, match=r"log\.json: cannot be read"):
        Steps(tmp_path / "log.json", {}, total=1)


def test_time_and_memory_of_a_step_are_written_down(tmp_path):
    chain(tmp_path, {"seed": 0}, [])
    step = json.loads((tmp_path / "log.json").read_text())["steps"]["draw"]
    assert 0 <= step["seconds"] < 10
    assert step["peak_rss_bytes"] > 1_000_000
