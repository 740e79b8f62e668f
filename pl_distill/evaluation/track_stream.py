"""Track a video or a camera without truth, frame by frame, and write what was found as it goes."""

import platform
import sys
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from datamodules.clip import Frame
from datamodules.files import write_json
from datamodules.sources import Source
from datamodules.stops import stops_wait
from pl_distill.evaluation.event_log import events_to
from pl_distill.evaluation.memory import STREAMING, PhaseMeter
from pl_distill.evaluation.models import OpenedModel
from pl_distill.evaluation.track_output import TrackOutput
from pl_distill.models.embedder import Embedder
from pl_distill.monitor import Monitor
from pl_distill.streaming import PruningPolicy, StreamingTracker

RUN, EVENTS = "run.json", "events.log"
RUN_SCHEMA = 1
RECORD_S = 10.0
_LOGGED_S = 60.0  # between lines of progress where nobody looks: what a service writes for months is kept
"""How often the record is written anew while a run goes on: what a killed one did is known but for so long."""

_VERSIONS = ("pl-distill", "torch", "transformers", "timm", "numpy")


@dataclass
class TrackedStream:
    """What a run did.

    Args:
        state: ``running``, ``finished`` (the source ended, or `max_frames` were done), or ``stopped`` (Ctrl-C,
            SIGTERM or an error).
        frames: Written so far.
        tracks: Identities so far.
        tracker_s: Time in the tracker; decoding, drawing and waiting for a camera are not in it.
        memory: Phase -> quantity -> bytes, as in results.json: ``streaming`` has ``allocated`` and ``reserved`` on a
            GPU, ``rss`` elsewhere.
    """

    state: str = "running"
    frames: int = 0
    tracks: int = 0
    tracker_s: float = 0.0
    memory: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def frames_per_second(self) -> float:
        """Of the tracker."""
        return round(self.frames / self.tracker_s, 3) if self.tracker_s else 0.0


def track_stream(
    source: Source,
    frames: Iterator[Frame],
    opened: OpenedModel,
    out: Path,
    *,
    policy: PruningPolicy,
    video: bool,
    masks: bool,
    text: bool,
    max_frames: int | None,
    recogniser: Embedder | None = None,
    monitor: Monitor | None = None,
) -> TrackedStream:
    """Give every frame of a source to a tracker, and write tracks, masks, video, events and a record into `out`.

    KeyboardInterrupt ends it as the end of the video does, with the state ``stopped``; the files are whole. The record
    is written anew every `RECORD_S` seconds, so that a run that was killed still says how far it came.

    Args:
        source: What to track.
        frames: All of its frames; the first should be there (`begun`), since files are replaced without one, too.
        opened: The model.
        out: Folder; the files of an older run in it are replaced.
        policy: What the tracker forgets, when tracks end, and whether animals are recognised by their looks.
        video: Whether to write the annotated video.
        masks: Whether to write the masks.
        text: Whether to write the boxes.
        max_frames: Only the first so many frames.
        recogniser: What `policy.appearance` names, loaded; None without it.
        monitor: Describes the animals and hands them on; closed at the end.

    Raises:
        ClipError: The source is damaged further on, or a camera did not come back; what was written stays.
    """
    done, started = TrackedStream(), datetime.now(UTC)
    alive: set[int] = set()  # ids that were seen and may be again
    total = source.num_frames
    if max_frames is not None:
        total = max_frames if total is None else min(total, max_frames)

    meter, device = PhaseMeter(), next(opened.sam3.parameters()).device
    done.memory = meter.peaks_bytes

    def record() -> None:
        meter.note(device)
        write_json(
            out / RUN, {"schema": RUN_SCHEMA, **asdict(done), "frames_per_second": done.frames_per_second, **about}
        )

    about = {
        "source": source.name,
        "started": started.isoformat(timespec="milliseconds"),
        "fps": source.fps,
        "prompt": opened.prompt.word,
        "policy": asdict(policy),
        "model": asdict(opened.identity),
        "versions": {name: version(name) for name in _VERSIONS} | {"python": platform.python_version()},
        "notes": list(opened.notes),
    }
    tracker = StreamingTracker(opened.sam3, opened.prompt, opened.preprocessing, policy, recogniser)
    out.mkdir(parents=True, exist_ok=True)
    record()
    recorded = time.monotonic()
    often_s = 0.1 if sys.stderr.isatty() else _LOGGED_S
    meter.enter(STREAMING, device)
    try:
        with (
            events_to(out / EVENTS),
            tracker,
            TrackOutput(out, fps=source.fps, video=video, masks=masks, text=text) as output,
            tqdm(total=total, desc="track", unit="frame", mininterval=often_s, maxinterval=max(often_s, 10.0)) as bar,
            closing(monitor) if monitor is not None else nullcontext(),
        ):
            try:
                for frame in islice(frames, max_frames):
                    began = time.perf_counter()
                    tracks = tracker.update(frame.image, frame.timestamp_s)
                    done.tracker_s += time.perf_counter() - began
                    with stops_wait():  # or one file would have this frame and another not
                        output.write(frame, tracks)
                        if monitor is not None:
                            monitor.update(frame.image, tracks, frame.index, frame.timestamp_s)
                        done.frames, done.tracks = done.frames + 1, done.tracks + len(set(tracks.ids) - alive)
                        alive = (alive | set(tracks.ids)) & tracker.remembered()
                    bar.set_postfix_str(f"{len(tracks)} animals now, {done.tracks} tracks", refresh=False)
                    bar.update()
                    if time.monotonic() - recorded >= RECORD_S:
                        record()
                        recorded = time.monotonic()
                done.state = "finished"
            except KeyboardInterrupt:
                done.state = "stopped"
    except BaseException:  # of the frames, or of closing what they were written to
        done.state = "stopped"
        raise
    finally:
        record()
    return done
