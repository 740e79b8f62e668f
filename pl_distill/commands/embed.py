"""`pl-distill embed`: what an embedder says about every animal of some clips, computed once."""

from pathlib import Path

from tqdm import tqdm

from datamodules.animal_features import MANIFEST
from datamodules.layouts import Layout, read_clips
from pl_distill.errors import ConfigError
from pl_distill.evaluation.devices import choose_device
from pl_distill.evaluation.embedding import describe_clips
from pl_distill.evaluation.replay import length
from pl_distill.models.embedder_load import PEN_EMBEDDER, load_embedder


def embed(
    clips: Path,
    out: Path,
    embedder: str = PEN_EMBEDDER,
    layout: Layout = "auto",
    tracks: Path | None = None,
    role: str = "student",
    max_frames: int | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> None:
    """Describe every animal of some clips by an embedder: what the behaviour recipes train on.

    Example: pl-distill embed --clips data/pen --out runs/features
    Example: pl-distill embed --clips data/pen --out runs/features_tracked --tracks runs/evaluation

    Args:
        clips: Folder of recordings: day folders (Edinburgh, drawn pens) or sequences (MOTChallenge).
        out: Folder of the features.
        embedder: A shipped one, a folder, a hub name, or a DINOv3 of timm.
        layout: edinburgh, mot, or auto to see which one it is.
        tracks: Folder of `pl-distill evaluate` over the same clips: its tracks stand for the boxes and identities of
            the truth, whose behaviours they take over where they cover an animal by half. Of a clip with labels only
            frames at their rate are described, as of the truth.
        role: Of the model in that folder: student, teacher or model.
        max_frames: Only the first so many frames of each clip.
        device: cpu, cuda, cuda:1, or auto.
        overwrite: Whether to replace older features in the same folder.
    """
    if max_frames is not None and max_frames < 1:
        raise ConfigError("--max_frames", f"is {max_frames}", "1 or more", "Correct it, or leave it out for all.")
    if (out / MANIFEST).exists() and not overwrite:
        raise ConfigError(
            f"--out {out}", "holds older features", "a new folder", "Name another, or give --overwrite true."
        )
    found = read_clips(clips, layout)
    model = load_embedder(embedder, choose_device(device))
    total = sum(length(clip, max_frames) for clip in found)
    with tqdm(total=total, desc="embed", unit="frame") as bar:
        rows = describe_clips(
            found, model, embedder, out, tracks=tracks, role=role, max_frames=max_frames, progress=bar.update
        )
    print(f"{rows} animals in {total} frames of {len(found)} clips, {model.feature_dimension} values each")
    print(f"features  {out}")
    print(f"next: pl-distill fit --config behaviour/pen.yaml --data.features {out}")
