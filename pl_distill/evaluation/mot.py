"""Tracking scores of a clip and of many: CLEAR MOT and IDF1 counted by motmetrics, HOTA by our own counting.

CLEAR MOT: Bernardin and Stiefelhagen, EURASIP Journal on Image and Video Processing 2008. IDF1: Ristani et al.,
arXiv 1609.01775. motmetrics counts events; the ratios are computed here from counts, so that clips are pooled by adding
counts (a long clip weighs more than a short one) and an undefined score is None instead of NaN. Identities belong to
one clip.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from pl_distill.evaluation.hota import NOTHING, HotaCounts, count_hota
from pl_distill.evaluation.pairing import IOU_THRESHOLD, FramePair


@dataclass(frozen=True)
class TrackingScores:
    """Scores of a clip or of several; percentages are 0-100, MOTA can be negative.

    None means undefined: `mota` and `idr` without animals, `idp` without tracks, `motp` without a match, the others
    with neither animals nor tracks. With animals and no tracks, `mota`, `idf1` and `hota` are 0; with tracks and no
    animals, `idf1` and `hota` are 0.

    Args:
        mota: 100 * (1 - (misses + false_positives + id_switches) / truth_boxes).
        idf1: Share of boxes that carry the right identity, under the best one-to-one naming of tracks over the clip.
        hota: Geometric mean of detection and association, averaged over overlap thresholds.
        id_switches: How often an animal goes on under another track than before.
        misses: Boxes of visible animals without a track.
        false_positives: Boxes of tracks without an animal.
        fragmentations: How often an animal is lost and found again.
        motp: Mean overlap of the matched boxes.
        idp: Identity precision.
        idr: Identity recall.
        deta: The detection part of HOTA.
        assa: The association part of HOTA.
        scored_frames: Frames that were judged, that is labelled ones.
        truth_boxes: Boxes of visible animals in these frames.
        track_boxes: Boxes of tracks in these frames, less those that cover a hidden animal.
        matches: Boxes of animals that have a track, id switches included.
        animals: Animals that are visible at least once.
        mostly_tracked: Animals with a track in at least 80 % of their boxes.
        mostly_lost: Animals with a track in less than 20 % of their boxes.
    """

    mota: float | None
    idf1: float | None
    hota: float | None
    id_switches: int
    misses: int
    false_positives: int
    fragmentations: int
    motp: float | None
    idp: float | None
    idr: float | None
    deta: float | None
    assa: float | None
    scored_frames: int
    truth_boxes: int
    track_boxes: int
    matches: int
    animals: int
    mostly_tracked: int
    mostly_lost: int


@dataclass(frozen=True, eq=False)
class TrackingCounts:
    """What all scores are computed from; counts of clips add up. Names as in `TrackingScores`.

    Args:
        id_true_positives: Boxes that carry the right identity.
        iou_sum: Sum of the overlaps of the matched boxes.
        hota: Counts for HOTA.
    """

    scored_frames: int = 0
    truth_boxes: int = 0
    track_boxes: int = 0
    matches: int = 0
    id_switches: int = 0
    misses: int = 0
    false_positives: int = 0
    fragmentations: int = 0
    id_true_positives: int = 0
    animals: int = 0
    mostly_tracked: int = 0
    mostly_lost: int = 0
    iou_sum: float = 0.0
    hota: HotaCounts = NOTHING

    def __add__(self, other: "TrackingCounts") -> "TrackingCounts":
        return TrackingCounts(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def scores(self) -> TrackingScores:
        """Compute the scores, percentages rounded to four decimals."""
        errors = self.misses + self.false_positives + self.id_switches
        hota, deta, assa = self.hota.percentages() or (None, None, None)
        return TrackingScores(
            mota=None if self.truth_boxes == 0 else round(100 * (1 - errors / self.truth_boxes), 4),
            idf1=_percentage(2 * self.id_true_positives, self.truth_boxes + self.track_boxes),
            hota=None if hota is None else round(hota, 4),
            id_switches=self.id_switches,
            misses=self.misses,
            false_positives=self.false_positives,
            fragmentations=self.fragmentations,
            motp=_percentage(self.iou_sum, self.matches),
            idp=_percentage(self.id_true_positives, self.track_boxes),
            idr=_percentage(self.id_true_positives, self.truth_boxes),
            deta=None if deta is None else round(deta, 4),
            assa=None if assa is None else round(assa, 4),
            scored_frames=self.scored_frames,
            truth_boxes=self.truth_boxes,
            track_boxes=self.track_boxes,
            matches=self.matches,
            animals=self.animals,
            mostly_tracked=self.mostly_tracked,
            mostly_lost=self.mostly_lost,
        )


def _percentage(part: float, whole: float) -> float | None:
    return None if whole == 0 else round(100 * part / whole, 4)


_COUNTED_BY_MOTMETRICS = {
    "num_switches": "id_switches",
    "num_misses": "misses",
    "num_false_positives": "false_positives",
    "num_fragmentations": "fragmentations",
    "num_detections": "matches",
    "idtp": "id_true_positives",
    "mostly_tracked": "mostly_tracked",
    "mostly_lost": "mostly_lost",
}


def count_clip(frames: Sequence[FramePair]) -> TrackingCounts:
    """Count the events of one clip.

    Args:
        frames: The judged frames in order, from `pl_distill.evaluation.pairing`.
    """
    truth_boxes = sum(len(frame.truth) for frame in frames)
    track_boxes = sum(len(frame.tracks) for frame in frames)
    hota = count_hota(frames)
    animals = len({name for frame in frames for name in frame.truth})
    size = {"scored_frames": len(frames), "truth_boxes": truth_boxes, "track_boxes": track_boxes, "animals": animals}
    if truth_boxes == 0 or track_boxes == 0:  # motmetrics gives NaN here, where the counts are plain
        return TrackingCounts(
            **size,
            misses=truth_boxes,
            false_positives=track_boxes,
            mostly_lost=animals if truth_boxes else 0,
            hota=hota,
        )
    import motmetrics  # and pandas: `track` reads names of scores from here and computes none, on a device

    accumulator, _ = _accumulate(frames)
    computed = motmetrics.metrics.create().compute(
        accumulator, metrics=[*_COUNTED_BY_MOTMETRICS, "motp"], return_dataframe=False
    )
    events = {ours: int(computed[theirs]) for theirs, ours in _COUNTED_BY_MOTMETRICS.items()}
    # motp is the mean distance of the matched boxes, NaN where none is
    iou_sum = events["matches"] * (1 - float(computed["motp"])) if events["matches"] else 0.0
    return TrackingCounts(**size, **events, iou_sum=iou_sum, hota=hota)


@dataclass(frozen=True)
class FrameEvents:
    """What CLEAR MOT decides about one judged frame; the counts of `count_clip` are these, counted.

    Args:
        matches: Animal -> the track that stands for it, switches included.
        switches: Animals that go on under another track than before.
        misses: Animals without a track.
        false_tracks: Tracks without an animal.
    """

    matches: dict[str, int] = field(default_factory=dict)
    switches: list[str] = field(default_factory=list)
    misses: list[str] = field(default_factory=list)
    false_tracks: list[int] = field(default_factory=list)


def list_events(frames: Sequence[FramePair]) -> list[FrameEvents]:
    """Return the events of one clip, one entry for each judged frame; arguments as of `count_clip`."""
    accumulator, names = _accumulate(frames)
    events = [FrameEvents() for _ in frames]
    table = accumulator.mot_events
    rows = zip(table.index.get_level_values(0), table["Type"], table["OId"], table["HId"], strict=True)
    for index, kind, animal, track in rows:
        frame = events[int(index)]
        if kind in ("MATCH", "SWITCH"):
            frame.matches[names[int(animal)]] = int(track)
        if kind == "SWITCH":
            frame.switches.append(names[int(animal)])
        elif kind == "MISS":
            frame.misses.append(names[int(animal)])
        elif kind == "FP":
            frame.false_tracks.append(int(track))
    return events


def _accumulate(frames: Sequence[FramePair]) -> tuple[Any, list[str]]:
    """Let motmetrics match a clip; return its accumulator, and the animals by its numbers for them."""
    import motmetrics

    names = list(dict.fromkeys(name for frame in frames for name in frame.truth))
    number = {name: index for index, name in enumerate(names)}
    accumulator = motmetrics.MOTAccumulator()
    for index, frame in enumerate(frames):
        distance = np.where(frame.iou >= IOU_THRESHOLD, 1 - frame.iou, np.nan)  # NaN forbids the pair
        accumulator.update([number[name] for name in frame.truth], list(frame.tracks), distance, frameid=index)
    return accumulator, names
