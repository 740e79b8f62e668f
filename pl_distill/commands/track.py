"""`pl-distill track`: follow the animals of a video or a camera."""

import math
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import torch

from datamodules.locks import held
from datamodules.sources import PictureFiles, Source, VideoFiles, begun, open_source
from pl_distill.commands.stopping import sigterm_as_ctrl_c
from pl_distill.deploy.envelope import check, load_envelope
from pl_distill.errors import ConfigError
from pl_distill.evaluation.devices import choose_device
from pl_distill.evaluation.memory import STREAMING, held_bytes
from pl_distill.evaluation.models import open_model, plan_model
from pl_distill.evaluation.track_output import MASKS, TRACKS, VIDEO
from pl_distill.evaluation.track_stream import EVENTS, RUN, track_stream
from pl_distill.evaluation.trackers import load_recogniser
from pl_distill.models.embedder_load import PEN_EMBEDDER, load_embedder
from pl_distill.monitor import Monitor, Sink
from pl_distill.monitor_sinks import ANIMALS, AnimalLines, open_behaviour, open_pool
from pl_distill.reid.identify_policy import IdentifierPolicy
from pl_distill.reid.pen_map import PenMap
from pl_distill.reid.sampling import SamplingPolicy
from pl_distill.streaming import PruningPolicy

DEFAULT_POLICY = PruningPolicy(mode="bounded", encode_singly=True)  # a camera may run for months, on a small device
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CAMERA = "camera"
DEFAULT_PLACE = PenMap()
DEFAULT_IDENTIFY = IdentifierPolicy()


def track(
    video: str,
    model: str,
    out: Path,
    teacher: str | None = None,
    prompt: str = "pig",
    annotated: bool = True,
    masks: bool = True,
    text: bool = True,
    max_frames: int | None = None,
    picture_fps: float = 6.0,
    patience_s: float = 600.0,
    file_pause_s: float = 0.0,
    pool: Path | None = None,
    camera: str = CAMERA,
    began: str | None = None,
    embedder: str = PEN_EMBEDDER,
    behaviour: str | None = None,
    place: PenMap = DEFAULT_PLACE,
    identify: IdentifierPolicy = DEFAULT_IDENTIFY,
    sampling: SamplingPolicy | None = None,
    policy: PruningPolicy = DEFAULT_POLICY,
    device: str = "auto",
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    envelope: str | None = None,
    limit: Literal["warn", "fail"] = "warn",
    overwrite: bool = False,
) -> None:
    """Follow the animals of a video or a camera: identities, boxes, masks, an annotated video.

    Everything is written as it goes: tracks.txt (MOTChallenge), masks.jsonl (COCO run-length masks), annotated.mp4,
    events.log (tracks that end, cameras that drop out) and run.json. Ctrl-C or SIGTERM ends a camera's run.
    With a pool or a behaviour head every animal is described, too: animals.jsonl says what each did and, with a pool,
    who it is, over gaps, days and restarts.
    Example: pl-distill track pen.mp4 --model runs/demo/student --out runs/pen
    Example: pl-distill track pen.mp4 --model pen_teacher --out runs/pen --pool runs/pool --behaviour pen_behaviour
    Example: pl-distill track rtsp://user:password@10.0.0.7/pen --model sam3 --prompt pig --out runs/camera

    Args:
        video: A video, a picture, a folder of pictures, a pattern in quotes ('day/*.mp4': one stream), the address of a
            camera (rtsp://, http:// and the like) or a device (/dev/video0). May stand first without --video.
        model: A SAM 3 (folder or hub name), a student (folder, shipped, or checkpoint of `pl-distill fit`), or a bundle
            of `pl-distill package`.
        out: Folder of everything that is written.
        teacher: The SAM 3 to put a student into; a student knows its own.
        prompt: What to look for: a word whose embedding is stored beside the SAM 3.
        annotated: Whether to write the annotated video.
        masks: Whether to write the masks, about half a kilobyte per frame and animal.
        text: Whether to write tracks.txt and animals.jsonl, a quarter of a kilobyte per frame and animal: a gigabyte a
            day of eight animals. A pool and its record need neither.
        max_frames: Only the first so many frames.
        picture_fps: Frames per second that pictures stand for; videos and cameras have their own. Those of a time-lapse
            may lie no further apart than policy.retirement.pause_s.
        patience_s: How long to reach for a camera that dropped out, in seconds.
        file_pause_s: Seconds from the end of each video of a pattern to the begin of the next, 0 where a recording was
            cut into pieces. Over a pause of more than policy.retirement.pause_s no identity goes on.
        pool: Folder of the embeddings that outlive this run (pool.duckdb) and of the hours of each animal (record/).
        camera: Name of the camera in the pool; two cameras need two names.
        began: When a video began, as 2026-01-31T08:00:00 (UTC unless it says otherwise). By default now, as a camera.
        embedder: Describes the animals for pool and behaviour: a shipped one, a folder, a hub name, a DINOv3 of timm.
        behaviour: Names what they do: a shipped head (pen_behaviour) or a folder. By default with a pool the shipped
            head, if it belongs to the embedder.
        place: Where feeder and drinkers are in the picture, and how large a metre is: for the record.
        identify: When a track of a pool is asked about, with what it is compared, and from which score on it is known.
        sampling: Which embeddings the pool keeps. By default those that it was made for: 7 float32 vectors an hour.
        policy: What the tracker forgets, when tracks end, and whether animals are recognised by their looks. By default
            nothing may grow; `evaluate` uses exact.
        device: cpu, cuda, cuda:1, or auto.
        precision: Of weights and activations.
        envelope: The device, a shipped profile such as orin-nx-16gb or a YAML file, that the memory at the end is
            compared with: on a GPU what torch's allocator held, on a CPU the whole process's.
        limit: Whether more than the device has ends with exit code 1.
        overwrite: Whether to replace the tracks of an older run in the same folder.
    """
    _refuse_unused(
        pool, behaviour, embedder, text, camera=camera != CAMERA, began=began is not None, place=place != DEFAULT_PLACE,
        identify=identify != DEFAULT_IDENTIFY, sampling=sampling is not None,
    )  # fmt: skip
    for option, value in (("max_frames", max_frames), ("picture_fps", picture_fps)):
        if value is not None and not (0 < value < math.inf):
            raise ConfigError(f"--{option}", f"is {value}", "a number above 0", "Correct it.")
    for option, value in (("file_pause_s", file_pause_s), ("patience_s", patience_s)):
        if not 0 <= value < math.inf:
            raise ConfigError(f"--{option}", f"is {value}", "0 or more seconds", "Correct it.")
    _refuse_older_run(out, overwrite)
    profile = None if envelope is None else load_envelope(envelope)  # a wrong name shows now, not after days
    planned = plan_model(model, teacher)
    source = open_source(video, picture_fps=picture_fps, patience_s=patience_s, file_pause_s=file_pause_s)
    _refuse_own_input(out, source)
    if pool is not None and isinstance(source, PictureFiles) and picture_fps * place.max_gap_s < 1:
        raise ConfigError(
            f"--picture_fps {picture_fps}", f"puts {1 / picture_fps:.1f} s between pictures",
            f"at most --place.max_gap_s ({place.max_gap_s:g} s), above which a record counts nothing",
            "Raise --place.max_gap_s.",
        )  # fmt: skip
    pause_s = 0.0 if policy.retirement is None else policy.retirement.pause_s
    if isinstance(source, PictureFiles) and 0 < pause_s < 1 / picture_fps:
        raise ConfigError(
            f"--picture_fps {picture_fps}", f"puts {1 / picture_fps:.1f} s between pictures",
            f"at most --policy.retirement.pause_s ({pause_s:g} s), above which every track ends",
            "Raise --policy.retirement.pause_s, or switch it off with 0.",
        )  # fmt: skip
    if pool is not None and began is None and source.num_frames is not None:
        print("note: without --began the recording counts as one that begins now: hours of the record are of today")
    opened = open_model(planned, prompt, choose_device(device), DTYPES[precision])
    for note in opened.notes:
        print(f"note: {note}")
    with ExitStack() as stack:
        stack.enter_context(sigterm_as_ctrl_c())  # first, so that it is given back when all else is written
        model_of_animals = head = keeper = monitor = None
        given = None if began is None else _read_time(began)
        if pool is not None or behaviour is not None:
            model_of_animals = load_embedder(embedder, choose_device(device))
        loaded = {} if model_of_animals is None else {embedder: model_of_animals}
        recogniser = load_recogniser(policy, choose_device(device), loaded)
        if model_of_animals is not None:
            head = open_behaviour(behaviour, model_of_animals)
        frames = begun(source)  # nothing is replaced, or left behind, for a camera that does not answer
        started = given or datetime.now(UTC)  # when the first frame came, from which frames count their seconds
        if model_of_animals is not None and pool is not None:
            length_s = _length_s(source, max_frames)
            end = None if length_s is None else started + timedelta(seconds=length_s)
            keeper = stack.enter_context(
                open_pool(pool, model_of_animals, head, camera, started, place, identify, sampling, end)
            )
        if not stack.enter_context(held(out / ".lock", wait=False)):
            raise ConfigError(
                f"--out {out}", "is written by another run", "a folder for each", "Name another, or wait for its end."
            )
        _refuse_older_run(out, overwrite)  # one that began and ended while this one loaded its model
        (out / ANIMALS).unlink(missing_ok=True)  # an older run's, which this one may not write
        if model_of_animals is not None:
            lines = AnimalLines(out / ANIMALS, keeper) if text else None
            sinks: list[Sink] = [sink for sink in (keeper, lines) if sink is not None]
            monitor = Monitor(model_of_animals, head, sinks)
        done = track_stream(
            source, frames, opened, out, policy=policy, video=annotated, masks=masks, text=text, max_frames=max_frames,
            recogniser=recogniser, monitor=monitor,
        )  # fmt: skip
    speed = f"{done.frames_per_second:.2f} frames/s in the tracker"
    print(f"{done.state} after {done.frames} frames with {done.tracks} tracks, {speed}")
    peaks = done.memory.get(STREAMING, {})
    print(f"memory at most: {', '.join(f'{name} {size / 2**30:.2f} GiB' for name, size in peaks.items())}\n")
    if text:
        print(f"tracks    {out / TRACKS}")
    if masks:
        print(f"masks     {out / MASKS}")
    if annotated and done.frames:
        print(f"video     {out / VIDEO}")
    if monitor is not None and text:
        print(f"animals   {out / ANIMALS}")
    if pool is not None:
        print(f"pool      {pool}")
    print(f"events    {out / EVENTS}")
    if profile is not None and peaks:
        verdict = check(profile, {"stream": held_bytes(peaks)})
        print(f"device    {verdict}")
        if limit == "fail":
            verdict.enforce()
    if done.state == "stopped" and source.ends:
        raise SystemExit(130)  # as the shell has it for Ctrl-C; a camera's run has no other end


def _refuse_unused(pool: Path | None, behaviour: str | None, embedder: str, text: bool, **given: bool) -> None:
    """Refuse what was `given` for a pool where there is none, and what describes animals for nobody."""
    for name in (name for name, is_given in given.items() if is_given and pool is None):
        raise ConfigError(
            f"--{name}", "is given without --pool", "the pool that it belongs to", "Add --pool FOLDER, or leave it out."
        )
    if pool is None and behaviour is not None and not text:
        raise ConfigError(
            "--behaviour", "is given with --text false and without --pool", "animals.jsonl or a pool to write to",
            "Leave one of the two out, or add --pool FOLDER.",
        )  # fmt: skip
    if pool is None and behaviour is None and embedder != PEN_EMBEDDER:
        raise ConfigError(
            "--embedder", "is given without --pool and without --behaviour", "one that it describes animals for",
            "Add one; to recognise animals by their looks within a run, give --policy.appearance.embedder instead.",
        )  # fmt: skip


def _refuse_older_run(out: Path, overwrite: bool) -> None:
    older = next((name for name in (TRACKS, RUN) if (out / name).exists()), None)
    if older is not None and not overwrite:
        raise ConfigError(
            f"--out {out}", f"holds {older} of an older run", "a new folder", "Name another, or give --overwrite true."
        )


def _refuse_own_input(out: Path, source: Source) -> None:
    """Refuse a source of which a file would be deleted or written over."""
    written = {(out / name).resolve() for name in (TRACKS, MASKS, VIDEO, ANIMALS, EVENTS, RUN)}
    for path in source.paths:
        if path.resolve() in written:
            raise ConfigError(
                f"--out {out}", f"would write over {path}, which is to be tracked",
                "a folder apart from what is tracked", "Name another folder, or narrow the pattern.",
            )  # fmt: skip


def _length_s(source: Source, max_frames: int | None) -> float | None:
    """Give the seconds that a recording takes, None of a camera; less where its files leave pauses out."""
    if source.num_frames is None or not source.fps:
        return None
    if max_frames is not None and max_frames < source.num_frames:
        return max_frames / source.fps
    if isinstance(source, VideoFiles):
        return sum(info.num_frames / info.fps for info in source.infos) + source.pause_s * (len(source.infos) - 1)
    return source.num_frames / source.fps


def _read_time(began: str) -> datetime:
    """Read when a video began."""
    try:
        started = datetime.fromisoformat(began)
    except ValueError as error:
        raise ConfigError(f"--began {began}", "is no time", "a time as 2026-01-31T08:00:00", "Correct it.") from error
    return started if started.tzinfo is not None else started.replace(tzinfo=UTC)
