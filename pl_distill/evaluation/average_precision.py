"""Average precision: of rankings, and of boxes found in pictures, with precision and recall at one score."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

HIT_IOU = 0.5
"""From which overlap on a detection counts as a hit; that of PASCAL VOC."""


def average_precisions(likeness: Array, right: NDArray[np.bool_]) -> Array:
    """Give the average precision (Q,), 0-1, of rankings; 0 of one that has nothing right in it.

    Args:
        likeness: (Q, M) of queries with the gallery's vectors.
        right: (Q, M), which of them are of the query's animal.
    """
    order = np.argsort(-likeness, axis=1, kind="stable")
    sorted_right = np.take_along_axis(right, order, axis=1)
    found = np.cumsum(sorted_right, axis=1)
    precision = found / np.arange(1, likeness.shape[1] + 1)
    number = sorted_right.sum(1)
    result: Array = (precision * sorted_right).sum(1) / np.maximum(number, 1)
    return result


class BoxScores:
    """Collects detections of one word over pictures; matching as in PASCAL VOC: by falling score, each object once."""

    def __init__(self) -> None:
        self.objects = 0
        self._scores: list[Array] = []
        self._hits: list[NDArray[np.bool_]] = []

    @classmethod
    def join(cls, parts: Sequence["BoxScores"]) -> "BoxScores":
        """Return one over the pictures of all of `parts`, which there is at least one of."""
        whole = cls()
        whole.objects = sum(part.objects for part in parts)
        whole._scores = [scores for part in parts for scores in part._scores]
        whole._hits = [hits for part in parts for hits in part._hits]
        return whole

    def add(self, scores: Array, overlaps: Array) -> list[tuple[int, int]]:
        """Take one picture.

        Args:
            scores: (Q,), 0-1.
            overlaps: (Q, N), IoU of every detection with every object.

        Returns:
            The hits as pairs of detection and object.
        """
        order = np.argsort(-scores, kind="stable")
        free = np.ones(overlaps.shape[1], bool)
        hits = np.zeros(len(scores), bool)
        pairs = []
        for query in order:
            candidates = np.where(free, overlaps[query], -1.0)
            if candidates.size and candidates.max() >= HIT_IOU:
                best = int(candidates.argmax())
                free[best] = False
                hits[query] = True
                pairs.append((int(query), best))
        self.objects += overlaps.shape[1]
        self._scores.append(scores)
        self._hits.append(hits)
        return pairs

    def average_precision(self) -> float:
        """Area under precision over recall, every point used, 0-100; NaN without objects."""
        scores, hits = _join(self._scores), _join(self._hits).astype(bool)
        if not self.objects:
            return float("nan")
        hits = hits[np.argsort(-scores, kind="stable")]
        true = np.cumsum(hits)
        precision = true / np.arange(1, len(hits) + 1)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        return float(100 * envelope[hits].sum() / self.objects)

    def precision_recall(self, score: float) -> tuple[float, float]:
        """Precision and recall of detections from `score` on, 0-100; precision is 100 where there are none."""
        scores, hits = _join(self._scores), _join(self._hits).astype(bool)
        chosen = hits[scores >= score]
        precision = 100 * chosen.mean() if len(chosen) else 100.0
        return float(precision), float(100 * chosen.sum() / max(self.objects, 1))


def _join(parts: Sequence[NDArray[np.float64] | NDArray[np.bool_]]) -> Array:
    return np.concatenate(parts).astype(np.float64) if parts else np.zeros(0)
