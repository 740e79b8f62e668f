"""A behaviour head trains on features that are small enough to check, through the console's own functions."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Trainer, seed_everything
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from datamodules.animal_features import AnimalFeatures, write_features, write_manifest
from datamodules.behaviour import BehaviourDataModule
from datamodules.edinburgh_output import BEHAVIOURS
from datamodules.lies import lies_of
from datamodules.sampling import EpochSampler
from pl_distill.cli import main
from pl_distill.commands.parsing import find_recipe
from pl_distill.evaluation.behaviour_scores import score_behaviours
from pl_distill.models.behaviour_head import load_behaviour
from pl_distill.modules.behaviour import BehaviourModule
from tests.pl_distill.modules.stopping import KEEP_EACH_STEP, assert_same_weights, stop_at

PEN_DAYS = ("2026_01_01", "2026_01_02", "2026_01_21", "2026_01_26")


def separable(
    folder, days: tuple[str, ...] = PEN_DAYS, *, seed: int = 0, identity: str = "abc", fps: float = 6.0
) -> None:
    """Features that name the behaviour, beside boxes that say nothing."""
    rng = np.random.default_rng(seed)
    labels = [BEHAVIOURS.index(name) for name in ("sleep", "eat", "walk")]
    entries = {}
    for day in days:
        frame, animal = np.tile(np.arange(40, dtype=np.int32), 4), np.repeat(np.arange(4, dtype=np.int32), 40)
        kind = rng.choice(3, 160, p=(0.6, 0.3, 0.1))
        features = rng.normal(0, 0.3, (160, 6)).astype(np.float16)
        features[np.arange(160), kind] += 2
        boxes = np.tile(np.array((10, 10, 40, 30), np.float32), (160, 1)) + 20 * animal[:, None]
        clip = AnimalFeatures(
            *(day, day, fps, 200, 100, ("a", "b", "c", "d"), frame, animal, boxes, lies_of(boxes).astype(np.float32)),
            np.array(labels, np.int16)[kind],
            features,
        )
        entries[day] = write_features(folder, clip)
    embedder = {"source": "drawn", "identity": identity, "dimension": 3, "features": 6}
    write_manifest(folder, {"embedder": embedder, "boxes": "truth"}, entries)


def judged(folder):
    return json.loads((folder / "behaviour.json").read_text())


@pytest.mark.parametrize("head", ["temporal", "frame", "branched"])
def test_a_head_learns_beats_the_baselines_draws_its_mistakes_and_is_written(head, tmp_path, caplog):
    separable(tmp_path / "features")
    words = [
        *("fit", "--config", "behaviour/pen.yaml", "--data.features", str(tmp_path / "features")),
        *("--model.head", head, "--trainer.default_root_dir", str(tmp_path / "run"), "--data.batch_size", "64"),
        *("--trainer.max_steps", "60", "--trainer.val_check_interval", "30", "--model.hidden", "32"),
        *("--model.baseline_steps", "20"),
        *("--trainer.callbacks", "callbacks.behaviour_pictures.BehaviourPictures"),
        *("--trainer.callbacks+", "callbacks.sam3_export.Sam3Export"),
        *("--trainer.callbacks.folder", str(tmp_path / "model")),
        *("--data.window.init_args.past", "1", "--data.window.init_args.future", "1"),
    ]
    assert main(words) == 0
    assert caplog.text.index("baseline majority") < caplog.text.index("baseline geometry_and_motion")
    results = json.loads((tmp_path / "run" / "behaviour.json").read_text())
    assert results["stage"] == "val"
    assert results["scores"]["top1"] > 97 > 75 > results["baselines"]["geometry_and_motion"]["top1"]
    assert results["baselines"]["majority"]["macro_f1"] < 40
    assert "with_axes_of_masks" in results["baselines"]
    board = EventAccumulator(str(tmp_path / "run"), size_guidance={"images": 0}).Reload()
    assert {"val/confusion_counts", "val/confusion_normalised", "val/precision_recall"} <= set(board.Tags()["images"])
    assert {"val/top1", "val/macro_f1", "val/recall_eat", "baseline/majority_top1"} <= set(board.Tags()["scalars"])
    model = load_behaviour(tmp_path / "model")
    assert model.classes[:2] == ("sleep", "investigating")
    assert (model.embedder, model.fps, model.kind) == ("abc", 6.0, head)


@pytest.mark.parametrize(
    ("recipe", "days", "max_epochs"),
    [("pen", PEN_DAYS, -1), ("pen", PEN_DAYS, 100), ("edinburgh", ("2019_11_05", "2019_11_22", "2019_12_02"), -1)],
)
def test_a_head_that_was_stopped_goes_on_as_if_it_had_not_been(recipe, days, max_epochs, tmp_path):
    separable(tmp_path / "features", days)

    def fit(folder, *more):
        words = [
            *("fit", "--config", f"behaviour/{recipe}.yaml", "--data.features", str(tmp_path / "features")),
            *("--trainer.default_root_dir", str(folder), "--data.batch_size", "64", "--model.hidden", "32"),
            *("--trainer.max_steps", "7", "--trainer.val_check_interval", "2", "--model.baseline_steps", "2"),
            *("--trainer.max_epochs", str(max_epochs)),
            *("--trainer.callbacks", "callbacks.sam3_export.Sam3Export"),
            *("--trainer.callbacks.folder", str(folder / "model"), *KEEP_EACH_STEP, *more),
        ]
        return main(words)

    assert fit(tmp_path / "whole") == 0
    whole = tmp_path / "whole/checkpoints"
    for steps in (3, 5):
        checkpoints = tmp_path / str(steps) / "checkpoints"
        stop_at(steps, whole, checkpoints)
        assert fit(tmp_path / str(steps), "--ckpt_path", "last") == 0
        assert_same_weights(checkpoints / "last.ckpt", whole / "last.ckpt")
    ours, theirs = (load_behaviour(tmp_path / name / "model") for name in ("3", "whole"))
    assert all(torch.equal(value, theirs.head.state_dict()[name]) for name, value in ours.head.state_dict().items())


def test_a_checkpoint_is_judged_on_features_like_those_of_its_training_only(tmp_path, capsys):
    def run(verb, features, *more):
        words = [
            *(verb, "--config", "behaviour/pen.yaml", "--data.features", str(tmp_path / features)),
            *("--trainer.default_root_dir", str(tmp_path / "run"), "--model.hidden", "32", "--model.head", "frame"),
            *("--model.baseline_steps", "2", *more),
        ]
        return main(words)

    separable(tmp_path / "features")
    separable(tmp_path / "others", identity="def")
    separable(tmp_path / "slow", fps=2.0)
    steps = ("--trainer.max_steps", "2", "--trainer.val_check_interval", "2")
    assert run("fit", "features", *steps, *KEEP_EACH_STEP) == 0
    checkpoint = ("--ckpt_path", str(tmp_path / "run/checkpoints/last.ckpt"))
    assert run("validate", "features", *checkpoint) == 0
    assert (judged(tmp_path / "run")["stage"], judged(tmp_path / "run")["step"]) == ("val", 2)
    capsys.readouterr()
    assert run("validate", "features", *checkpoint, "--model.head", "temporal") == 1
    assert "Use weights of the same architecture" in capsys.readouterr().err
    for features, told in (
        ("others", "are of the embedder def, expected abc"),
        ("slow", "have 2 observations a second, expected 6"),
    ):
        assert run("validate", features, *checkpoint) == 1
        assert told in capsys.readouterr().err


def test_a_checkpoint_is_judged_with_the_classes_and_the_window_of_its_training_only(tmp_path, capsys):
    """Their number alone would fit: answers would mean another class, or the moment lie elsewhere in the window."""

    def run(verb, *more):
        words = [
            *(verb, "--config", str(tmp_path / "recipe.yaml"), "--data.features", str(tmp_path / "features")),
            *("--trainer.default_root_dir", str(tmp_path / "run"), "--model.hidden", "32", "--model.head", "temporal"),
            *("--model.baseline_steps", "2", *more),
        ]
        return main(words)

    separable(tmp_path / "features")
    recipe = yaml.safe_load(Path(find_recipe("behaviour/pen.yaml")).read_text())
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    steps = ("--trainer.max_steps", "2", "--trainer.val_check_interval", "2")
    assert run("fit", *steps, *KEEP_EACH_STEP) == 0
    checkpoint = ("--ckpt_path", str(tmp_path / "run/checkpoints/last.ckpt"))
    capsys.readouterr()
    assert run("validate", *checkpoint, "--data.window.past", "4", "--data.window.future", "8") == 1
    assert "data.window: is {'past': 4, 'future': 8}, expected {'past': 6, 'future': 6}" in capsys.readouterr().err
    classes = recipe["data"]["init_args"]["classes"]
    recipe["data"]["init_args"]["classes"] = {"eat": classes.pop("eat"), **classes}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    assert run("validate", *checkpoint) == 1
    assert "data.classes: is ['eat', 'sleep', " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("recipe", "days"), [("pen", PEN_DAYS), ("edinburgh", ("2019_11_05", "2019_11_22", "2019_12_02"))]
)
def test_random_frames_are_scored_under_their_own_name(recipe, days, tmp_path):
    separable(tmp_path / "features", days)
    words = [
        *("fit", "--config", f"behaviour/{recipe}.yaml", "--data.features", str(tmp_path / "features")),
        *("--data.division", "random_frames", "--trainer.default_root_dir", str(tmp_path / "run")),
        *("--trainer.max_steps", "2", "--trainer.val_check_interval", "2", "--model.head", "frame"),
        *("--model.baseline_steps", "2"),
        *("--trainer.callbacks", "callbacks.behaviour_pictures.BehaviourPictures"),
        *("--trainer.callbacks+", "callbacks.sam3_export.Sam3Export"),
    ]
    assert main(words) == 0
    results = json.loads((tmp_path / "run" / "behaviour.json").read_text())
    assert (results["stage"], results["division"]) == ("val_random_frames", "random_frames")
    scalars = EventAccumulator(str(tmp_path / "run")).Reload().Tags()["scalars"]
    assert "val_random_frames/top1" in scalars
    assert "val/top1" not in scalars


def test_the_test_part_has_a_name_of_its_own_and_the_step_of_its_checkpoint(tmp_path):
    separable(tmp_path / "features")
    words = [
        *("--config", "behaviour/pen.yaml", "--data.features", str(tmp_path / "features"), "--model.hidden", "32"),
        *("--trainer.default_root_dir", str(tmp_path / "run"), "--model.head", "frame", "--model.baseline_steps", "2"),
    ]
    assert main(["fit", *words, "--trainer.max_steps", "4", "--trainer.val_check_interval", "2", *KEEP_EACH_STEP]) == 0

    def board():
        return EventAccumulator(str(tmp_path / "run"), size_guidance={"images": 0, "scalars": 0}).Reload()

    def of_val(events):
        scalars = {
            tag: events.Scalars(tag) for tag in events.Tags()["scalars"] if tag.startswith(("val/", "baseline/"))
        }
        return scalars, events.Images("val/precision_recall")

    before = of_val(board())
    assert [one.step for one in before[1]] == [one.step for one in before[0]["val/top1"]] == [1, 3]
    checkpoint = ("--ckpt_path", str(tmp_path / "run/checkpoints/last.ckpt"), "--data.part", "test")
    assert main(["validate", *words, *checkpoint]) == 0
    after = board()
    assert of_val(after) == before
    assert [one.step for one in after.Scalars("test/top1")] == [3]
    assert [one.step for one in after.Images("test/confusion_counts")] == [3]
    assert "baseline_test/majority_top1" in after.Tags()["scalars"]
    found = judged(tmp_path / "run")
    assert (found["stage"], found["part"], found["step"]) == ("test", "test", 4)


def test_a_run_that_goes_on_draws_its_baselines_once(tmp_path):
    separable(tmp_path / "features")
    words = [
        *("fit", "--config", "behaviour/pen.yaml", "--data.features", str(tmp_path / "features")),
        *("--trainer.default_root_dir", str(tmp_path / "run"), "--model.head", "frame", "--model.baseline_steps", "2"),
        *("--trainer.val_check_interval", "2", "--trainer.callbacks", "lightning.pytorch.callbacks.ModelCheckpoint"),
        *("--trainer.callbacks.save_last", "true", "--trainer.callbacks.every_n_train_steps", "2"),
        *("--trainer.callbacks+", "callbacks.sam3_export.Sam3Export"),
        *("--trainer.callbacks.folder", str(tmp_path / "model"), "--ckpt_path", "last"),
    ]
    assert main([*words, "--trainer.max_steps", "2"]) == 0
    assert main([*words, "--trainer.max_steps", "4"]) == 0
    board = EventAccumulator(str(tmp_path / "run")).Reload()
    assert [one.step for one in board.Scalars("val/top1")] == [1, 3]
    assert [one.step for one in board.Scalars("baseline/majority_top1")] == [0]


def test_scores_by_hand():
    targets = torch.tensor([0, 0, 0, 1])
    said = torch.tensor([0, 0, 1, 1])
    scores = score_behaviours(torch.nn.functional.one_hot(said, 3).float(), targets, ("a", "b", "c"))
    assert scores.top1 == 75
    assert scores.confusion == ((2, 1, 0), (0, 1, 0), (0, 0, 0))
    assert scores.recall == pytest.approx((200 / 3, 100, 0))
    assert scores.precision == pytest.approx((100, 50, 0))
    # F1 of a: 2 * 1 * 2/3 / (5/3) = 0.8; of b: 2 * 0.5 / 1.5 = 2/3; c never occurs and does not count
    assert scores.macro_f1 == pytest.approx(100 * (0.8 + 2 / 3) / 2)
    assert "a" in scores.table()


def test_features_without_a_part_are_an_error_of_one_line(tmp_path, capsys):
    separable(tmp_path / "features")
    shutil.copy(tmp_path / "features" / "features.json", tmp_path / "kept.json")
    words = ["fit", "--config", "behaviour/pen.yaml", "--data.features", str(tmp_path / "none")]
    assert main(words) == 1
    assert "is not there" in capsys.readouterr().err


def test_a_head_goes_on_from_the_weights_of_another(tmp_path, capsys):
    def fit(name, *more):
        words = [
            *("fit", "--config", "behaviour/pen.yaml", "--data.features", str(tmp_path / "features")),
            *("--trainer.default_root_dir", str(tmp_path / name), "--model.hidden", "32", "--model.head", "frame"),
            *("--trainer.callbacks.init_args.folder", str(tmp_path / name / "model")),
            *("--model.baseline_steps", "2", "--trainer.max_steps", "2", "--trainer.val_check_interval", "2", *more),
        ]
        return main(words)

    separable(tmp_path / "features")
    assert fit("first") == 0
    first = load_behaviour(tmp_path / "first/model").head.state_dict()
    begin = ("--model.weights", str(tmp_path / "first/model"))
    assert fit("second", *begin, "--model.optimizer.lr", "0") == 0
    second = load_behaviour(tmp_path / "second/model").head.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    capsys.readouterr()
    assert fit("third", *begin, "--data.window.past", "2") == 1
    assert "expected {'past': 6, 'future': 6}, as model.weights was trained" in capsys.readouterr().err
    assert fit("fourth", "--model.weights", str(tmp_path / "none")) == 1
    assert "none: cannot be read" in capsys.readouterr().err


def test_herds_of_several_folders_are_one_set(tmp_path):
    separable(tmp_path / "features")
    separable(tmp_path / "more", PEN_DAYS[:2], seed=1)  # other herds, of the same days and names
    folders = [str(tmp_path / "features"), str(tmp_path / "more")]
    words = [
        *("fit", "--config", "behaviour/pen.yaml", "--data.features", json.dumps(folders)),
        *("--trainer.default_root_dir", str(tmp_path / "run"), "--model.head", "frame", "--model.baseline_steps", "2"),
        *("--trainer.max_steps", "2", "--trainer.val_check_interval", "2"),
    ]
    assert main(words) == 0
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["data"]["init_args"]["features"] == folders


def test_each_branch_of_a_head_has_a_loss_of_its_own(tmp_path):
    separable(tmp_path / "features")
    losses = {}
    for weight in (0.0, 0.5):
        seed_everything(0)
        data = BehaviourDataModule(str(tmp_path / "features"), {name: name for name in BEHAVIOURS}, batch_size=50)
        module = BehaviourModule(
            "branched", hidden=16, dropout=0, feature_dropout=0, branch_weight=weight, baseline_steps=2
        )
        kept = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
        trainer = Trainer(**kept, max_steps=1, limit_val_batches=0, default_root_dir=tmp_path)
        trainer.fit(module, data)
        losses[weight] = float(trainer.callback_metrics["train/loss"])
    # Two untrained branches are about as wrong as their sum: the loss of one, and half of that of each.
    assert losses[0.5] == pytest.approx(2 * losses[0.0], rel=0.2)


def test_windows_that_fill_a_ranks_share_up_are_not_scored(tmp_path, monkeypatch):
    separable(tmp_path / "features")
    data = BehaviourDataModule(str(tmp_path / "features"), {name: name for name in BEHAVIOURS}, batch_size=50)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    monkeypatch.setattr(EpochSampler, "fresh", 70)
    module = BehaviourModule("frame", hidden=8, baseline_steps=2)
    trainer.validate(module, data, verbose=False)
    assert len(module.targets) == len(module.probabilities) == 70 < len(data.windows("val"))


def test_smoothing_spreads_a_target_evenly_whatever_the_classes_weigh():
    """Of a common class too: torch's own `weight` would give the rare ones more of it."""
    module = BehaviourModule(smoothing=0.3)
    module._weights = torch.tensor([0.5, 1.0, 4.0])
    logits = torch.zeros(1, 3, requires_grad=True)
    probabilities = logits.softmax(1)
    module._loss(logits, torch.tensor([0])).backward()
    expected = torch.tensor([[0.7 + 0.1, 0.1, 0.1]])
    torch.testing.assert_close(probabilities.detach() - logits.grad, expected)
    both = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    each = [float(module._loss(both[row : row + 1], torch.tensor([label]))) for row, label in ((0, 0), (1, 2))]
    assert float(module._loss(both, torch.tensor([0, 2]))) == pytest.approx((0.5 * each[0] + 4 * each[1]) / 4.5)
