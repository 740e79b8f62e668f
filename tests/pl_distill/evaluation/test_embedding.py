"""Whose behaviour a track has that is described for training."""

import numpy as np

from datamodules.clip import Annotation, Frame
from pl_distill.evaluation.clip_files import ClipFiles
from pl_distill.evaluation.embedding import animals_of_tracks
from pl_distill.evaluation.mask_files import write_masks
from pl_distill.evaluation.track_files import write_frame
from pl_distill.streaming.postprocess import Tracks


def test_a_track_has_the_label_of_the_visible_animal_under_which_another_is_hidden(tmp_path):
    """Piles: the hidden one fits better, but what is seen is the upper one, as in every score."""
    files = ClipFiles(tmp_path, "student", "clip")
    files.tracks.parent.mkdir(parents=True)
    mask = np.zeros((1, 20, 20), bool)
    mask[0, 0:10, 2:12] = True
    tracks = Tracks((4,), np.array([[2, 0, 12, 10]], np.float32), np.ones(1, np.float32), mask)
    with files.tracks.open("w") as text, files.masks.open("w") as masks:
        write_frame(text, 0, tracks)
        write_masks(masks, 0, tracks.ids, tracks.masks)
    boxes = np.array([[0, 0, 10, 10], [2, 0, 12, 10]], np.float32)
    truth = Annotation(("upper", "lower"), boxes, ("sleep", "walk"), np.array([True, False]))
    found = animals_of_tracks(files)(Frame(0, 0.0, np.zeros((20, 20, 3), np.uint8), truth))
    assert found is not None
    assert (found.names, found.behaviours) == (("4",), ("sleep",))
