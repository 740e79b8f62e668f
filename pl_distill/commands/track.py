"""`pl-distill track`: follow the animals of a video or a camera."""

import math
from pathlib import Path
from typing import Literal

import torch

from datamodules.sources import open_source
from pl_distill.errors import ConfigError
from pl_distill.evaluation.devices import choose_device
from pl_distill.evaluation.models import is_student, open_model, plan_models
from pl_distill.evaluation.track_output import MASKS, TRACKS, VIDEO
from pl_distill.evaluation.track_stream import EVENTS, track_stream
from pl_distill.streaming import PruningPolicy

DEFAULT_POLICY = PruningPolicy(mode="bounded", encode_singly=True)  # a camera may run for months, on a small device
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def track(
    video: str,
    model: str,
    out: Path,
    teacher: str | None = None,
    prompt: str = "pig",
    annotated: bool = True,
    masks: bool = True,
    max_frames: int | None = None,
    picture_fps: float = 6.0,
    patience_s: float = 600.0,
    policy: PruningPolicy = DEFAULT_POLICY,
    device: str = "auto",
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    overwrite: bool = False,
) -> None:
    """Follow the animals of a video or a camera: identities, boxes, masks, an annotated video.

    Everything is written as it goes: tracks.txt (MOTChallenge), masks.jsonl (COCO run-length masks), annotated.mp4,
    events.log (tracks that end, cameras that drop out) and run.json. Ctrl-C ends a camera's run.
    Example: pl-distill track pen.mp4 --model runs/demo/student --out runs/pen
    Example: pl-distill track rtsp://user:password@10.0.0.7/pen --model facebook/sam3 --prompt pig --out runs/camera

    Args:
        video: A video, a picture, a folder of pictures, a pattern in quotes ('day/*.mp4': one stream), the address of a
            camera (rtsp://, http:// and the like) or a device (/dev/video0). May stand first without --video.
        model: A SAM 3 (folder or hub name), a student (its folder, or a checkpoint of `pl-distill fit`), or a bundle of
            `pl-distill package`.
        out: Folder of everything that is written.
        teacher: The SAM 3 to put a student into; a student knows its own.
        prompt: What to look for: a word whose embedding is stored beside the SAM 3.
        annotated: Whether to write the annotated video.
        masks: Whether to write the masks, about half a kilobyte per frame and animal.
        max_frames: Only the first so many frames.
        picture_fps: Frames per second that pictures stand for; videos and cameras have their own.
        patience_s: How long to reach for a camera that dropped out, in seconds.
        policy: What the tracker forgets, and when tracks end. By default nothing may grow; `evaluate` uses exact.
        device: cpu, cuda, cuda:1, or auto.
        precision: Of weights and activations.
        overwrite: Whether to replace the tracks of an older run in the same folder.
    """
    for option, value in (("max_frames", max_frames), ("picture_fps", picture_fps)):
        if value is not None and not (0 < value < math.inf):
            raise ConfigError(f"--{option}", f"is {value}", "a number above 0", "Correct it.")
    if (out / TRACKS).exists() and not overwrite:
        raise ConfigError(
            f"--out {out}", f"holds {TRACKS} of an older run", "a new folder", "Name another, or give --overwrite true."
        )
    if teacher is not None and not is_student(model):
        raise ConfigError("--teacher", f"is given, but {model} is no student", "a student in --model", "Leave it out.")
    source = open_source(video, picture_fps=picture_fps, patience_s=patience_s)
    opened = open_model(plan_models(model, teacher)[-1], prompt, choose_device(device), DTYPES[precision])
    for note in opened.notes:
        print(f"note: {note}")
    done = track_stream(source, opened, out, policy=policy, video=annotated, masks=masks, max_frames=max_frames)
    speed = f"{done.frames_per_second:.2f} frames/s in the tracker"
    print(f"{done.state} after {done.frames} frames with {done.tracks} tracks, {speed}\n")
    print(f"tracks    {out / TRACKS}")
    if masks:
        print(f"masks     {out / MASKS}")
    if annotated and done.frames:
        print(f"video     {out / VIDEO}")
    print(f"events    {out / EVENTS}")
    if done.state == "stopped" and source.num_frames is not None:
        raise SystemExit(130)  # as the shell has it for Ctrl-C; a camera's run has no other end
