"""What recognising animals by their looks costs: a frame of the shipped teacher with it over the same frame without."""

import statistics
import time

from datamodules.pen import load_pen_config, pen_frames
from pl_distill.models.embedder_load import load_embedder
from pl_distill.models.prompts import choose_prompt, load_prompts
from pl_distill.models.sam3 import load_preprocessing, load_sam3
from pl_distill.streaming import Appearance, PruningPolicy, StreamingTracker
from tests.benchmarks.measure import Figure

TEACHER = "pen_teacher"
SETTLED = 10  # by then all animals have a track


def measure(frames: int = 60) -> list[Figure]:
    """Stream a drawn pen of eight animals twice, both trackers in turn on each frame."""
    model, prompt = load_sam3(TEACHER), choose_prompt(load_prompts(TEACHER), "pig")
    preprocessing, rules = load_preprocessing(TEACHER), Appearance()
    plain = StreamingTracker(model, prompt, preprocessing)
    policy = PruningPolicy(appearance=rules)
    known = StreamingTracker(model, prompt, preprocessing, policy, load_embedder(rules.embedder))
    ratios = []
    for index, frame in enumerate(pen_frames(load_pen_config("day"), seed=1, frames=frames)):
        seconds = []
        for tracker in (known, plain):
            begin = time.process_time()
            tracker.update(frame.image, index / 6)
            seconds.append(time.process_time() - begin)
        ratios.append(seconds[0] / seconds[1])
    kept = known.session_bytes() - plain.session_bytes()
    return [
        Figure("recognition.frame_with_over_without", statistics.median(ratios[SETTLED:]), "ratio"),
        Figure("recognition.kept_bytes", kept, "B"),
    ]
