"""One long stream in a process of its own: what grows with every frame, and whether frames take longer.

A clip of a drawn pen runs to and fro through SAM 3, at most eight tracks that never end, so that the number of animals
stays the same and all growth is that of memory. ``--mode stock`` is transformers' own session and model, nothing of
ours.
Example, half an hour: ``python -m tests.benchmarks.slope --mode exact --frames 10000 --out runs/slope-exact.json``
"""

import argparse
import gc
import resource
import statistics
import time
from array import array
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tqdm import tqdm
from transformers import Sam3VideoProcessor
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import logging as transformers_logging

from datamodules.clip import Image
from datamodules.files import write_json
from datamodules.pen import load_pen_config, pen_frames
from pl_distill.evaluation.memory import rss_bytes
from pl_distill.models.prompts import choose_prompt, load_prompts
from pl_distill.models.sam3 import load_preprocessing, load_sam3, write_random_sam3
from pl_distill.models.sam3_source import check_source
from pl_distill.streaming import PruningPolicy, StreamingTracker
from pl_distill.streaming.session import StreamingSession

MODES = ("exact", "bounded", "none", "stock")
SETTLED = 100  # frames until pointers and memories fill their windows
MEDIAN_OF = 200
SAMPLED = 100  # frames between two looks at what is slow to count
LOOP = 60  # frames of the clip
ANIMALS = 8

Step = Callable[[Image, int], object]
Stream = tuple[Step, Any]
"""What takes a picture and its index, and the session that it fills."""


@dataclass(frozen=True)
class Slope:
    """What a long stream costs more from frame to frame.

    Growth is from the second third to the last: before, animals still gather the conditioning frames they may keep.

    Args:
        mode: One of `MODES`.
        frames: How many were reached.
        stopped: Why it ended.
        objects: Fewest and most animals alive once settled.
        conditioning: Most conditioning frames of an animal at the end.
        tensor_bytes: Growth of the session's tensors per frame.
        rss_bytes: Growth of the process's resident set per frame, between medians.
        session_entries: Growth of the entries in the session's containers per frame.
        python_objects: Growth of all containers of the process per frame, as the garbage collector counts them.
        early_ms: Median processor time of the first `MEDIAN_OF` settled frames.
        late_ms: The same of the last ones.
        old_over_young: Processor time of a frame in this stream at its end over that in a new one of `SETTLED` frames,
            measured in turn: `late_over_early` without what else the machine did meanwhile.
        end_tensor_bytes: Of the session's tensors at the end.
        peak_rss_bytes: Of the process.
        series: Every `SAMPLED` frames: ``frame``, ``tensor_bytes`` (the most since the last), ``rss_bytes``,
            ``session_entries``, ``python_objects``, ``median_ms`` (of the frames since the last).
    """

    mode: str
    frames: int
    stopped: str
    objects: tuple[int, int]
    conditioning: int
    tensor_bytes: float
    rss_bytes: float
    session_entries: float
    python_objects: float
    early_ms: float
    late_ms: float
    old_over_young: float
    end_tensor_bytes: int
    peak_rss_bytes: int
    series: dict[str, list[float]]

    @property
    def late_over_early(self) -> float:
        """How much longer a late frame takes than an early one; 1 is no longer."""
        return self.late_ms / self.early_ms


def main() -> None:
    """Read the command line, stream, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=MODES, default="exact")
    parser.add_argument("--frames", type=int, default=3000, help=f"at least {6 * SAMPLED}")
    parser.add_argument("--model", help="a SAM 3, pen_teacher for one; left out, a small one of random weights")
    parser.add_argument("--recondition", type=int, help="let animals be reconditioned every so many frames; 0: never")
    parser.add_argument("--most-gib", type=float, default=2.0, help="end when the process has grown by so much")
    parser.add_argument("--most-seconds", type=float, help="end after so long")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        source = (
            check_source(options.model) if options.model else write_random_sam3("tiny", Path(folder) / "sam3", seed=0)
        )
        model = load_sam3(source)
        if options.recondition is not None:
            model.recondition_every_nth_frame = options.recondition
            model.high_conf_thresh, model.high_iou_thresh, model.assoc_iou_thresh = 0.1, 0.0, 0.05  # random ones pass
        begin = _stock(model, source) if options.mode == "stock" else _ours(model, source, options.mode)
    slope = run(options.mode, begin, options.frames, options.most_gib * 2**30, options.most_seconds)
    write_json(options.out, {**asdict(slope), "late_over_early": slope.late_over_early, "threads": 1, "loop": LOOP})
    print(f"{replace(slope, series={})}\nwritten to {options.out}")


def run(
    mode: str,
    begin: Callable[[], Stream],
    frames: int,
    most_bytes: float,
    most_seconds: float | None,
) -> Slope:
    """Stream `frames` frames of a clip to and fro, or as many as memory and time allow, and measure."""
    stream, session = begin()
    config = replace(load_pen_config("day"), width=320, height=180)
    pictures = [frame.image for frame in pen_frames(config, seed=1, frames=LOOP)]
    milliseconds, resident, alive = (array("d", bytes(8 * frames)) for _ in range(3))
    series: dict[str, list[float]] = {
        name: [] for name in ("frame", "tensor_bytes", "rss_bytes", "session_entries", "python_objects", "median_ms")
    }
    started, at_first, stopped, done, most_held = time.perf_counter(), rss_bytes() or 0, "all frames are done", 0, 0
    for index in tqdm(range(frames), desc=mode, unit="frame", mininterval=5):
        milliseconds[index] = _milliseconds(stream, _shown(pictures, index), index)
        done, most_held = index + 1, max(most_held, StreamingSession.tensor_bytes(session))
        resident[index], alive[index] = rss_bytes() or 0, len(session.obj_ids)
        if done % SAMPLED == 0:
            series["frame"].append(done)
            series["tensor_bytes"].append(most_held)
            most_held = 0
            series["rss_bytes"].append(resident[index])
            series["session_entries"].append(StreamingSession.python_entries(session))
            series["python_objects"].append(len(gc.get_objects()))
            series["median_ms"].append(statistics.median(milliseconds[done - SAMPLED : done]))
        if resident[index] - at_first > most_bytes:
            stopped = f"the process grew by {most_bytes / 2**30:.1f} GiB"
            break
        if most_seconds is not None and time.perf_counter() - started > most_seconds:
            stopped = f"{most_seconds:.0f} s are over"
            break
    if done < 6 * SAMPLED:
        raise SystemExit(f"{stopped} after {done} frames, too few for a slope: allow more than {6 * SAMPLED}")
    window = min(MEDIAN_OF, done // 6)
    third = max(SETTLED, done // 3)
    early, middle, late = (slice(first, first + window) for first in (SETTLED, third, done - window))
    slope = Slope(
        mode=mode,
        frames=done,
        stopped=stopped,
        objects=(int(min(alive[SETTLED:done])), int(max(alive[SETTLED:done]))),
        conditioning=max(len(each["cond_frame_outputs"]) for each in session.output_dict_per_obj.values()),
        tensor_bytes=_growth(series, "tensor_bytes"),
        rss_bytes=(statistics.median(resident[late]) - statistics.median(resident[middle])) / (done - window - third),
        session_entries=_growth(series, "session_entries"),
        python_objects=_growth(series, "python_objects"),
        early_ms=statistics.median(milliseconds[early]),
        late_ms=statistics.median(milliseconds[late]),
        end_tensor_bytes=StreamingSession.tensor_bytes(session),
        old_over_young=0.0,
        peak_rss_bytes=1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        series=series,
    )
    return replace(slope, old_over_young=_old_over_young(stream, done, begin()[0], pictures))


def _old_over_young(old: Step, age: int, young: Step, pictures: list[Image]) -> float:
    """Let a stream of `age` frames and a new one take the same frames in turn: other load on the machine hits both."""
    for index in range(SETTLED):
        young(_shown(pictures, age + index), index)
    times = []
    for index in range(SETTLED, SETTLED + MEDIAN_OF):
        picture = _shown(pictures, age + index)
        times.append((_milliseconds(old, picture, age + index - SETTLED), _milliseconds(young, picture, index)))
    return statistics.median(one for one, _ in times) / statistics.median(other for _, other in times)


def _shown(pictures: list[Image], index: int) -> Image:
    """Return a frame's picture: to and fro, for where a clip begins anew every animal jumps and is a new one."""
    place = index % (2 * len(pictures) - 2)
    return pictures[min(place, 2 * len(pictures) - 2 - place)]


def _milliseconds(stream: Step, picture: Image, index: int) -> float:
    start = time.process_time()
    stream(picture, index)
    return 1000 * (time.process_time() - start)


def _growth(series: dict[str, list[float]], name: str) -> float:
    """Mean growth per frame between the maxima of the second and the last third: none where it goes up and down."""
    values, third = series[name], len(series["frame"]) // 3
    return (max(values[-third:]) - max(values[-2 * third : -third])) / (third * SAMPLED)


def _ours(model: Any, source: str | Path, mode: str) -> Callable[[], Stream]:
    policy = PruningPolicy(mode, retirement=None, max_objects=ANIMALS)  # type: ignore[arg-type]  # checked by the command line
    prompt, preprocessing = choose_prompt(load_prompts(source), "pig"), load_preprocessing(source)

    def begin() -> Stream:
        tracker = StreamingTracker(model, prompt, preprocessing, policy)
        return lambda picture, index: tracker.update(picture, index / 6), tracker.session

    return begin


def _stock(model: Any, source: str | Path) -> Callable[[], Stream]:
    transformers_logging.set_verbosity_error()  # it warns in every frame that no more animals are taken
    processor = Sam3VideoProcessor.from_pretrained(source)
    prompt = choose_prompt(load_prompts(source), "pig")

    def begin() -> Stream:
        session = processor.init_video_session()
        number = session.add_prompt(prompt.word)
        session.prompt_embeddings[number] = BaseModelOutputWithPooling(pooler_output=prompt.embedding)
        session.prompt_attention_masks[number] = prompt.attention_mask

        def step(picture: Image, index: int) -> object:
            inputs = processor(images=picture, return_tensors="pt")
            output = model(inference_session=session, frame=inputs.pixel_values[0], frame_idx=index)
            return processor.postprocess_outputs(session, output, original_sizes=inputs.original_sizes)

        return step, session

    return begin


if __name__ == "__main__":
    main()
