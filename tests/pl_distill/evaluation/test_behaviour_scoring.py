"""Behaviours from tracks beside those from the truth: who answers for whom, and what the drop counts."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tqdm import tqdm
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from datamodules.behaviour_windows import Window
from datamodules.clip import Annotation
from datamodules.crops import Cropping
from datamodules.shards import read_shard_clips, write_shards
from datamodules.splits import load_split
from pl_distill.errors import ConfigError
from pl_distill.evaluation import chain as chaining
from pl_distill.evaluation.behaviour_scoring import Named, Said, name_animals, read_said, score_chain, summarise
from pl_distill.evaluation.behaviour_tables import behaviour_tables, format_behaviours
from pl_distill.evaluation.chain import TRUTH, Chain, describe_truth, is_described, open_chain
from pl_distill.evaluation.clip_files import ClipFiles, find_record
from pl_distill.evaluation.evaluate import evaluate
from pl_distill.evaluation.headline import headline
from pl_distill.evaluation.replay_recording import record_clip
from pl_distill.evaluation.report import report
from pl_distill.evaluation.results import read_results
from pl_distill.models.behaviour_head import BehaviourModel, TemporalHead, load_behaviour, save_behaviour
from pl_distill.models.embedder_files import save_embedder
from pl_distill.models.embedder_load import load_embedder

CLASSES = ("walk", "eat")
LABELS = {"walk": "walk", "run": "walk", "eat": "eat", "other": None}
HEAD = {"features": 32, "classes": 2, "hidden": 16}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return DINOv3ViTModel(
        DINOv3ViTConfig(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            patch_size=8,
            image_size=16,
        )
    )


@pytest.fixture(scope="module")
def embedder(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("embedder")
    save_embedder(network, folder, 16, Cropping())
    return folder


@pytest.fixture(scope="module")
def behaviour(embedder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("behaviour") / "head"
    folder.mkdir()
    head = TemporalHead(window=Window(1, 1), **HEAD).eval()
    identity = load_embedder(embedder).identity
    save_behaviour(folder, BehaviourModel(head, "temporal", CLASSES, Window(1, 1), 6.0, identity, LABELS, HEAD))
    return folder


@pytest.fixture
def chain(embedder, behaviour) -> Chain:
    return open_chain(str(embedder), str(behaviour), torch.device("cpu"))


@pytest.fixture(scope="module")
def clip(make_clip):
    """Six frames with two animals that run and eat; the second is hidden in frame 2, the first does other in 5."""
    plain = make_clip()
    for index, truth in plain.annotations.items():
        behaviours = ("other" if index == 5 else "run", "eat")
        plain.annotations[index] = Annotation(truth.identities, truth.boxes_xyxy, behaviours, truth.visible)
    return plain


@dataclass
class Told:
    ids: tuple[int, ...]
    boxes_xyxy: np.ndarray
    scores: np.ndarray
    masks: np.ndarray
    renamed: frozenset[int] = frozenset()


class Follower:
    """Tracks the squares as they are, the second one so many pixels beside where it is."""

    def __init__(self, clip, beside=0):
        self.clip, self.beside, self.index = clip, beside, 0

    def reset(self):
        self.index = 0

    def session_bytes(self):
        return 0

    def update(self, frame, timestamp_s):
        boxes = self.clip.source.boxes(self.index)
        boxes[1, [0, 2]] += self.beside
        self.index += 1
        masks = np.zeros((2, *frame.shape[:2]), bool)
        for mask, (left, top, right, bottom) in zip(masks, boxes.astype(int), strict=True):
            mask[top:bottom, left:right] = True
        return Told((7, 3), boxes, np.ones(2, np.float32), masks)


def run(clip, tracker, chain, out):
    with tqdm(disable=True) as bar:
        identity = {"chain": chain.identity}
        describe_truth(clip, chain, ClipFiles(out, TRUTH, clip.name), identity, max_frames=None, progress=bar)
        files = ClipFiles(out, "model", clip.name)
        record_clip(clip, tracker, files, identity, video=False, max_frames=None, progress=bar, chain=chain)
    return score_chain("model", [clip], out, chain.behaviour)


def test_a_tracker_without_a_fault_loses_nothing(clip, chain, tmp_path):
    found = run(clip, Follower(clip), chain, tmp_path)
    # 12 animal-frames, less one that is hidden and one whose label the head dropped on purpose
    assert found.truth.animal_frames == found.tracks.animal_frames == 10
    assert (found.covered, found.top1_drop, found.macro_f1_drop) == (100, 0, 0)
    assert found.truth == found.covered_truth == found.tracks
    assert found.right_of_all == found.truth.top1


def test_of_a_clip_with_a_label_in_every_third_frame_every_label_is_judged(clip, embedder, tmp_path_factory, tmp_path):
    """The Edinburgh clips and the head of behaviour/edinburgh.yaml: six frames a second, two observations."""
    folder = tmp_path_factory.mktemp("slow")
    head = TemporalHead(window=Window(1, 1), **HEAD).eval()
    identity = load_embedder(embedder).identity
    save_behaviour(folder, BehaviourModel(head, "temporal", CLASSES, Window(1, 1), 2.0, identity, LABELS, HEAD))
    sparse = replace(clip, annotations={index: one for index, one in clip.annotations.items() if index % 3 == 0})
    chain = open_chain(str(embedder), str(folder), torch.device("cpu"))
    found = run(sparse, Follower(sparse), chain, tmp_path)
    assert sorted(sparse.annotations) == [0, 3]
    assert found.truth.animal_frames == found.tracks.animal_frames == 4


def test_an_animal_whose_track_is_elsewhere_is_not_covered(clip, chain, tmp_path):
    found = run(clip, Follower(clip, beside=12), chain, tmp_path)
    assert (found.truth.animal_frames, found.tracks.animal_frames, found.covered) == (10, 5, 50)
    assert found.tracks.classes["eat"].animal_frames == 0
    assert found.right_of_all <= 50


def test_the_lines_of_a_clip_are_those_of_every_frame(clip, chain, tmp_path):
    run(clip, Follower(clip), chain, tmp_path)
    said = read_said(ClipFiles(tmp_path, "model", clip.name).animals)
    assert sorted(said) == [0, 1, 2, 3, 4, 5]
    assert {one.numbers for one in said.values()} == {(3, 7)}
    np.testing.assert_allclose(said[4].boxes_xyxy, clip.source.boxes(4)[::-1], atol=1e-3)
    assert {name for one in said.values() for name in one.behaviours} <= set(CLASSES)


def test_a_clip_whose_lines_were_cut_off_is_not_finished(clip, chain, tmp_path):
    run(clip, Follower(clip), chain, tmp_path)
    identity = {"chain": chain.identity}
    truth, files = ClipFiles(tmp_path, TRUTH, clip.name), ClipFiles(tmp_path, "model", clip.name)
    assert is_described(truth, identity)
    assert not is_described(truth, {"chain": {}})
    assert find_record(files, identity, video=False) is not None
    for one in (truth, files):
        one.animals.write_text(one.animals.read_text()[:-20])
    assert not is_described(truth, identity)
    assert find_record(files, identity, video=False) is None


def test_what_a_chain_of_other_code_said_is_not_taken_for_what_this_one_says(chain, monkeypatch):
    now = chain.identity
    monkeypatch.setattr(chaining, "code_sha256", lambda places: f"another state of {', '.join(places)}")
    assert chain.identity != now
    for name in ("pl_distill/monitor.py", "monitor_sinks.py", "evaluation/chain.py", "evaluation/embedding.py"):
        assert name in chain.identity["code_sha256"]


def test_the_drop_compares_the_same_animals_in_the_same_frames():
    found = summarise(
        [
            Named("walk", "walk", "walk"),
            Named("walk", "walk", "eat"),
            Named("eat", "eat", "eat"),
            Named("eat", "walk", "eat"),
            Named("eat", "walk", None),
        ],
        CLASSES,
    )
    assert found.truth.top1 == 60  # 3 of 5
    assert (found.covered_truth.top1, found.tracks.top1, found.top1_drop) == (75, 75, 0)
    assert (found.covered, found.right_of_all) == (80, 60)
    assert found.tracks.confusion == [[1, 1], [0, 2]]
    walk = found.tracks.classes["walk"]
    assert (walk.animal_frames, walk.precision, walk.recall) == (2, 100, 50)
    # F1 of walk 2/3 and eat 4/5 from tracks; from the truth the other way round
    assert found.tracks.macro_f1 == pytest.approx(100 * (2 / 3 + 4 / 5) / 2, abs=1e-3)
    assert found.macro_f1_drop == pytest.approx(0, abs=1e-3)


def test_nothing_to_judge_is_no_score():
    found = summarise([], CLASSES)
    assert (found.truth.top1, found.tracks.macro_f1, found.covered, found.top1_drop) == (None, None, None, None)


def test_a_track_answers_for_the_visible_animal_it_covers_best(behaviour):
    boxes = np.array([(0, 0, 10, 10), (20, 0, 30, 10)], np.float32)
    truth = {0: Annotation(("a", "b"), boxes, ("walk", "eat"), np.array([True, True]))}
    of_truth = {0: Said((0, 1), boxes, ("walk", "walk"))}
    shifted = np.array([(22, 0, 32, 10), (1, 0, 11, 10), (0, 4, 10, 14)], np.float32)
    of_tracks = {0: Said((5, 6, 7), shifted, ("eat", "walk", "eat"))}
    head = load_behaviour(behaviour)
    numbers = {"a": 0, "b": 1}
    assert name_animals(truth, numbers, of_truth, of_tracks, head) == [
        Named("walk", "walk", "walk"),
        Named("eat", "walk", "eat"),
    ]
    assert name_animals(truth, numbers, of_truth, {}, head) == [
        Named("walk", "walk", None),
        Named("eat", "walk", None),
    ]
    assert name_animals(truth, numbers, {}, of_tracks, head) == []  # the chain did not look at this frame


def test_a_head_remembers_the_class_of_every_raw_label(behaviour):
    head = load_behaviour(behaviour)
    assert [head.class_of(raw) for raw in ("run", "eat", "other", "sitting")] == ["walk", "eat", None, None]
    forgetful = BehaviourModel(head.head, "temporal", CLASSES, Window(1, 1), 6.0, head.embedder)
    assert [forgetful.class_of(raw) for raw in ("run", "eat")] == [None, "eat"]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory, clip):
    folder = tmp_path_factory.mktemp("labelled") / "shards"
    write_shards([clip], load_split("pen"), folder)
    return folder


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, teacher, embedder, behaviour, labelled):
    out = tmp_path_factory.mktemp("named")
    names = {"embedder": str(embedder), "behaviour": str(behaviour)}
    return out, evaluate(teacher, labelled, out, video=False, **names), names


def test_an_evaluation_names_behaviours_from_truth_and_from_tracks(evaluated, labelled):
    out, results, names = evaluated
    found = results.models["model"].behaviour
    assert found.truth.animal_frames == 10
    assert found.tracks.animal_frames <= 10
    assert (results.settings.embedder, results.settings.behaviour) == (names["embedder"], names["behaviour"])
    read = read_results(out / "results.json")
    assert read.models["model"].behaviour == found
    (clip,) = read_shard_clips(labelled, "test")
    assert score_chain("model", [clip], out, load_behaviour(names["behaviour"])) == found
    assert "boxes of truth, all animals (model)" in format_behaviours(results)
    rows = {row.label: row.values for row in headline(results)}
    assert rows["behaviour top-1 %"] == ("-" if found.tracks.top1 is None else f"{found.tracks.top1:.2f}",)
    board = EventAccumulator(str(out / "tensorboard" / "model")).Reload()
    assert board.Scalars("test/behaviour_top1_from_truth")[0].value == pytest.approx(found.truth.top1, rel=1e-6)
    page = report(out).read_text()
    assert behaviour_tables(results)[0].title in page


def test_what_was_described_is_reused_and_another_head_asks_anew(evaluated, teacher, labelled, tmp_path):
    out, results, names = evaluated
    lines = ClipFiles(out, TRUTH, "2026_01_26/000000").animals
    before = lines.stat().st_mtime_ns
    again = evaluate(teacher, labelled, out, video=False, **names)
    assert again.models["model"].behaviour == results.models["model"].behaviour
    assert lines.stat().st_mtime_ns == before
    head = load_behaviour(names["behaviour"])
    other = TemporalHead(window=Window(1, 1), **HEAD).eval()
    save_behaviour(tmp_path, BehaviourModel(other, "temporal", CLASSES, Window(1, 1), 6.0, head.embedder, LABELS, HEAD))
    evaluate(teacher, labelled, out, video=False, embedder=names["embedder"], behaviour=str(tmp_path))
    assert lines.stat().st_mtime_ns != before


def test_a_head_of_another_embedder_is_refused_before_anything_is_tracked(
    teacher, labelled, network, behaviour, tmp_path
):
    save_embedder(network, tmp_path / "other", 16, Cropping(margin=0.3))
    names = {"embedder": str(tmp_path / "other"), "behaviour": str(behaviour)}
    with pytest.raises(ConfigError, match="another embedder"):
        evaluate(teacher, labelled, tmp_path / "out", video=False, **names)
    assert not (tmp_path / "out").exists()
