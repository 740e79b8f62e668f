"""SAM 3 frame by frame with bounded memory, usable without Lightning."""

from pl_distill.streaming.policy import PruningPolicy, Retirement
from pl_distill.streaming.postprocess import Tracks
from pl_distill.streaming.tracker import StreamingTracker

__all__ = ["PruningPolicy", "Retirement", "StreamingTracker", "Tracks"]
