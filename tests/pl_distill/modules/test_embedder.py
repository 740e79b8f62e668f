"""Drawn pens from crops to a trained embedder and what it says of clips, through the console's own functions."""

import json

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from datamodules.animal_features import read_features, read_manifest
from datamodules.clip import Clip
from datamodules.edinburgh_output import BEHAVIOURS
from datamodules.layouts import read_clips
from datamodules.lies import lies_of
from datamodules.masks import decode_masks
from datamodules.pen import PenConfig, draw_pen
from datamodules.sampling import EpochSampler
from pl_distill.cli import main
from pl_distill.errors import CheckpointError
from pl_distill.evaluation.clip_files import ClipFiles
from pl_distill.evaluation.mask_files import write_masks
from pl_distill.evaluation.track_files import FrameBoxes, write_frame
from pl_distill.models.embedder_load import load_embedder
from pl_distill.modules.embedder import EmbedderModule, unexplained
from tests.pl_distill.modules.stopping import KEEP_EACH_STEP, assert_same_weights, stop_at

PEN = PenConfig(domain="small", width=128, height=72, num_animals=2)
RECIPE = "domain: small\nwidth: 128\nheight: 72\nnum_animals: 2\n"


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    """Words for a recipe that trains on small pens of two animals, which are drawn once."""
    folder = tmp_path_factory.mktemp("crops")
    (folder / "small.yaml").write_text(RECIPE)
    pens = [{"domain": str(folder / "small.yaml"), "pens": 4}]
    return [
        *("--data.folder", str(folder / "data"), "--data.train", json.dumps(pens), "--data.val", json.dumps(pens)),
        *("--data.frames_per_pen", "4", "--data.size", "32", "--data.pens_per_batch", "2", "--data.processes", "1"),
    ]


def fit_embedder(crops, folder, steps, *more):
    """Train a small one; it checkpoints at every step."""
    words = [
        *("fit", "--config", "embedder/pen.yaml", "--trainer.default_root_dir", str(folder / "run"), *crops),
        *("--trainer.max_steps", str(steps), "--trainer.precision", "32", "--trainer.val_check_interval", "1"),
        *("--model.image_size", "32", "--model.hidden_size", "16", "--model.heads", "2", "--model.dimension", "16"),
        *("--trainer.callbacks", "callbacks.sam3_export.Sam3Export"),
        *("--trainer.callbacks.folder", str(folder / "model"), *KEEP_EACH_STEP, *more),
    ]
    return main(words)


@pytest.fixture(scope="module")
def embedder(crops, tmp_path_factory):
    """Train one for two steps."""
    folder = tmp_path_factory.mktemp("embedder")
    assert fit_embedder(crops, folder, 2) == 0
    return folder / "model"


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    draw_pen(folder, PEN, days=["2026_01_01"], clips_per_day=1, frames_per_clip=3, seed=3)
    return folder


def test_an_embedder_trains_and_is_one(embedder):
    loaded = load_embedder(embedder)
    assert (loaded.image_size, loaded.dimension, loaded.cropping.align) == (32, 16, True)


def test_an_embedder_that_was_stopped_goes_on_as_if_it_had_not_been(crops, tmp_path):
    """After the first and after the second of two steps an epoch."""
    assert fit_embedder(crops, tmp_path / "whole", 5) == 0
    whole = tmp_path / "whole/run/checkpoints"
    for steps in (1, 2):
        checkpoints = tmp_path / f"{steps}/run/checkpoints"
        stop_at(steps, whole, checkpoints)
        assert fit_embedder(crops, tmp_path / str(steps), 5, "--ckpt_path", "last") == 0
        assert_same_weights(checkpoints / "last.ckpt", whole / "last.ckpt")
    assert load_embedder(tmp_path / "1/model").identity == load_embedder(tmp_path / "whole/model").identity


SMALL = {"image_size": 32, "hidden_size": 16, "heads": 2, "dimension": 16}


def test_a_training_can_begin_with_an_embedder(embedder):
    stored = load_embedder(embedder)
    module = EmbedderModule(**SMALL, weights=str(embedder))
    module.configure_model()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        identity, posture = module.eval()(images)
    embeddings, features = stored.describe(images)
    torch.testing.assert_close(torch.nn.functional.normalize(identity, dim=-1), embeddings)
    torch.testing.assert_close(posture, features)
    learning = {name for name, weights in module.named_parameters() if weights.requires_grad}
    assert {name for name, _ in module.named_parameters()} - learning == {"backbone.model.embeddings.mask_token"}
    who, how = module.train()(images)
    sum(one.sum() for one in (who, how, module.marks(who), module.probe(how), module.pose(how))).backward()
    unused = {name for name, weights in module.named_parameters() if name in learning and weights.grad is None}
    assert not unused, "DDP waits for the gradients of all"
    with pytest.raises(CheckpointError, match="other shapes"):
        EmbedderModule(**SMALL | {"dimension": 8}, weights=str(embedder)).configure_model()


def test_what_a_pose_leaves_unexplained_is_relative_to_its_variance():
    true = torch.tensor([(0.0, 0.0), (2.0, 0.0)])
    mean_of_it, nearly = torch.tensor([(1.0, 0.0)]).expand(2, 2), true + torch.tensor((0.0, 0.05))
    torch.testing.assert_close(unexplained(mean_of_it, true), torch.tensor((1.0, 0.0)))
    # The second value never differs: it is judged as if its variance were 0.04.
    torch.testing.assert_close(unexplained(nearly, true), torch.tensor((0.0, 0.0625)))


def test_an_embedder_is_validated_without_a_checkpoint_as_its_training_was(
    crops, embedder, tmp_path, capsys, monkeypatch
):
    sizes = ("--model.image_size=32", "--model.hidden_size=16", "--model.heads=2", "--model.dimension=16")
    words = ["validate", "--config", "embedder/pen.yaml", *crops, *sizes, "--trainer.precision=32"]
    words += [f"--trainer.default_root_dir={tmp_path}", "--trainer.callbacks=[]"]
    assert main([*words, f"--model.weights={embedder}"]) == 0
    (logged,) = EventAccumulator(str(tmp_path)).Reload().Scalars("val/rank1")
    trained = EventAccumulator(str(embedder.parent / "run")).Reload().Scalars("val/rank1")[-1]
    assert logged.value == pytest.approx(trained.value, abs=3)  # the export is in half precision
    monkeypatch.setattr(EpochSampler, "fresh", 1)  # of four pens, as if other ranks had the rest
    pens = []
    validated = EmbedderModule.on_validation_epoch_end
    monkeypatch.setattr(
        EmbedderModule, "on_validation_epoch_end", lambda self: (pens.append(len(self._behaviours)), validated(self))
    )
    assert main([*words, f"--model.weights={embedder}"]) == 0
    assert pens == [1]
    assert main(words) == 1
    assert "--ckpt_path: is missing" in capsys.readouterr().err


def test_embedding_clips_describes_every_visible_animal_of_truth(embedder, clips, tmp_path, capsys):
    words = ["embed", "--clips", str(clips), "--out", str(tmp_path / "f"), "--embedder", str(embedder)]
    assert main(words) == 0
    manifest = read_manifest(tmp_path / "f")
    assert manifest["embedder"]["identity"] == load_embedder(embedder).identity
    (clip,) = read_clips(clips)
    stored = read_features(tmp_path / "f", clip.name, manifest["clips"][clip.name])
    expected = {
        (index, name): (annotation.boxes_xyxy[row], annotation.behaviours[row])
        for index, annotation in clip.annotations.items()
        for row, name in enumerate(annotation.identities)
        if annotation.visible[row]
    }
    assert len(stored) == len(expected) > 0
    for row in range(len(stored)):
        box, behaviour = expected[int(stored.frame[row]), stored.animals[stored.animal[row]]]
        np.testing.assert_array_equal(stored.boxes_xyxy[row], box)
        assert BEHAVIOURS[stored.behaviour[row]] == behaviour
    frame = next(iter(clip.frames()))
    truth = frame.annotation
    seen = load_embedder(embedder).describe_animals(frame.image, truth.boxes_xyxy, decode_masks(truth.masks))
    first = stored.features[(stored.frame == 0) & (stored.animal == stored.animals.index(truth.identities[0]))][0]
    np.testing.assert_allclose(first, seen.features[0].numpy(), atol=0.02)
    row = (stored.frame == 0) & (stored.animal == stored.animals.index(truth.identities[0]))
    np.testing.assert_array_equal(
        stored.lies[row], lies_of(truth.boxes_xyxy, decode_masks(truth.masks))[:1].astype("f4")
    )
    assert main(words) == 1
    assert "holds older features" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "wrong"), [("--clips", "clipz"), ("--embedder", "embedderz"), ("--tracks", "trackz")]
)
def test_older_features_stay_where_what_replaces_them_cannot_begin(embedder, clips, tmp_path, option, wrong):
    out = tmp_path / "f"
    words = ["embed", "--clips", str(clips), "--out", str(out), "--embedder", str(embedder), "--max_frames", "1"]
    assert main(words) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert main([*words, "--overwrite", "true", option, str(tmp_path / wrong)]) == 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert main([*words, "--overwrite", "true"]) == 0


def test_tracks_stand_for_truth_and_take_its_behaviours(embedder, clips, tmp_path):
    (clip,) = read_clips(clips)
    files = ClipFiles(tmp_path / "scores", "student", clip.name)
    files.tracks.parent.mkdir(parents=True)
    write_tracks(clip, files)
    words = ["embed", "--clips", str(clips), "--out", str(tmp_path / "f"), "--embedder", str(embedder)]
    assert main([*words, "--tracks", str(tmp_path / "scores")]) == 0
    manifest = read_manifest(tmp_path / "f")
    assert manifest["boxes"] == "tracks"
    stored = read_features(tmp_path / "f", clip.name, manifest["clips"][clip.name])
    truth = clip.annotations[0]
    names = {"7": BEHAVIOURS.index(truth.behaviours[0]), "8": -1}
    for row in np.flatnonzero(stored.frame == 0):
        assert stored.behaviour[row] == names[stored.animals[stored.animal[row]]]
    assert stored.animals == ("7", "8")


def write_tracks(clip: Clip, files: ClipFiles) -> None:
    """Track 7 is the first animal, track 8 a corner that covers nobody."""
    with files.tracks.open("w") as tracks, files.masks.open("w") as masks:
        for index, truth in clip.annotations.items():
            seen = decode_masks(truth.masks)
            corner = np.zeros_like(seen[:1])
            corner[0, :6, :6] = True
            boxes = np.concatenate([truth.boxes_xyxy[:1], np.array([[0, 0, 6, 6]], np.float32)])
            write_frame(tracks, index, FrameBoxes((7, 8), boxes, np.ones(2, np.float32)))
            write_masks(masks, index, (7, 8), np.concatenate([seen[:1], corner]))


def test_missing_tracks_are_named(embedder, clips, tmp_path, capsys):
    words = ["embed", "--clips", str(clips), "--out", str(tmp_path / "f"), "--embedder", str(embedder)]
    assert main([*words, "--tracks", str(tmp_path / "none")]) == 1
    assert "2026_01_01-000000.txt: is not there" in capsys.readouterr().err
    assert not (tmp_path / "f" / "features.json").exists()
