"""SAM 3 frame by frame with bounded memory, usable without Lightning."""

from pl_distill.streaming.baselines import DetectionTracker, StockTracker
from pl_distill.streaming.policy import Appearance, PruningPolicy, Retirement
from pl_distill.streaming.postprocess import Tracks
from pl_distill.streaming.tracker import StreamingTracker

__all__ = [
    "Appearance",
    "DetectionTracker",
    "PruningPolicy",
    "Retirement",
    "StockTracker",
    "StreamingTracker",
    "Tracks",
]
