"""Which tracks are described for training, and whose behaviour they have."""

from dataclasses import replace

import numpy as np
import pytest

from datamodules.animal_features import read_features, read_manifest
from datamodules.clip import Annotation, Frame
from pl_distill.evaluation.clip_files import ClipFiles
from pl_distill.evaluation.embedding import animals_of_tracks, describe_clips, labelled_moments
from pl_distill.evaluation.mask_files import write_masks
from pl_distill.evaluation.track_files import write_frame
from pl_distill.models.embedder_load import PEN_EMBEDDER, load_embedder
from pl_distill.streaming.postprocess import Tracks


def test_a_track_has_the_label_of_the_visible_animal_under_which_another_is_hidden(tmp_path):
    """Piles: the hidden one fits better, but what is seen is the upper one, as in every score."""
    files = ClipFiles(tmp_path, "student", "clip")
    files.tracks.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((1, 20, 20), bool)
    mask[0, 0:10, 2:12] = True
    tracks = Tracks((4,), np.array([[2, 0, 12, 10]], np.float32), np.ones(1, np.float32), mask)
    with files.tracks.open("w") as text, files.masks.open("w") as masks:
        write_frame(text, 0, tracks)
        write_masks(masks, 0, tracks.ids, tracks.masks)
    boxes = np.array([[0, 0, 10, 10], [2, 0, 12, 10]], np.float32)
    truth = Annotation(("upper", "lower"), boxes, ("sleep", "walk"), np.array([True, False]))
    found = animals_of_tracks(files, {0})(Frame(0, 0.0, np.zeros((20, 20, 3), np.uint8), truth))
    assert found is not None
    assert (found.names, found.behaviours) == (("4",), ("sleep",))


def test_tracks_are_described_at_the_rate_of_the_labels_and_of_a_clip_without_any_all_are(make_clip, tmp_path):
    """As of Edinburgh: every frame has tracks, every third one a label, and the truth has rows of these alone."""
    labelled = make_clip("2026_01_26/000000", every=3)
    plain = replace(make_clip("2026_01_26/000001", shift=5), annotations={})
    for clip in (labelled, plain):
        files = ClipFiles(tmp_path / "scores", "student", clip.name)
        files.tracks.parent.mkdir(parents=True, exist_ok=True)
        with files.tracks.open("w") as text, files.masks.open("w") as masks:
            for index in range(clip.num_frames):
                mask = np.zeros((1, clip.height, clip.width), bool)
                left, top, right, bottom = clip.source.boxes(index)[0].astype(int)
                mask[0, top:bottom, left:right] = True
                write_frame(text, index, Tracks((4,), clip.source.boxes(index)[:1], np.ones(1, np.float32), mask))
                write_masks(masks, index, (4,), mask)
    embedder = load_embedder(PEN_EMBEDDER)

    def frames(out, clips, tracks):
        describe_clips(clips, embedder, PEN_EMBEDDER, out, tracks=tracks)
        entries = read_manifest(out)["clips"]
        return [sorted(set(read_features(out, name, entry).frame.tolist())) for name, entry in entries.items()]

    (tmp_path / "truth").mkdir()
    (tmp_path / "tracked").mkdir()
    assert frames(tmp_path / "truth", [labelled], None) == [[0, 3]]
    assert frames(tmp_path / "tracked", [labelled, plain], tmp_path / "scores") == [[0, 3], [*range(6)]]


def test_labels_that_slip_by_a_frame_have_no_second_moment_beside_them():
    labels = [round(number * 2.997) for number in range(600)]
    moments = np.array(sorted(labelled_moments(labels, 1830)))
    assert set(labels) <= set(moments)
    assert np.diff(moments).min() >= 2
    assert len(moments) == 611, "and those after the last label"


@pytest.mark.parametrize(
    ("labels", "expected"),
    [((), {*range(12)}), ((4,), {*range(12)}), ((1, 4, 10), {1, 4, 7, 10}), ((0, 3, 6, 8), {0, 3, 6, 8})],
)
def test_a_missing_label_leaves_no_hole_in_the_tracks(labels, expected):
    assert set(labelled_moments(labels, 12)) == expected
