"""`pl-distill cache`: look at a feature cache, hash every byte of it, ask the live teacher about some of its maps."""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from datamodules.cache_manifest import CacheManifest
from datamodules.errors import CacheError
from datamodules.feature_cache import FeatureCache
from datamodules.shard_manifest import ShardManifest
from datamodules.splits import Part
from pl_distill.errors import ConfigError


def info(cache: Path) -> None:
    """Show who made a cache, from how many frames, and how large it is.

    Example: pl-distill cache info --cache runs/demo/features

    Args:
        cache: Folder of feature shards, as `pl-distill predict` writes it.
    """
    print(_summary(cache, CacheManifest.load(cache)))


def verify(
    cache: Path, shards: Path | None = None, teacher: str | None = None, sample: int = 0, device: str = "auto"
) -> None:
    """Compare every feature shard with its SHA-256; reads the whole cache.

    With --sample also run the live teacher on some frames; fails where a cached map's cosine with it is less than the
    codec promises: 0.999 for float16, 0.998 for int8, 0.99 for pca-int8.
    Example: pl-distill cache verify --cache runs/demo/features --shards runs/demo/shards --teacher pen_teacher
    --sample 20

    Args:
        cache: Folder of feature shards, as `pl-distill predict` writes it.
        shards: Folder of image shards; with it, also see that the maps were made from those images, by the hashes in
            both manifests.
        teacher: The SAM 3 that made the cache, a folder or hub name; for --sample.
        sample: Frames to run it on, from all over the cache.
        device: Where it runs: ``auto``, ``cpu``, ``gpu``.
    """
    if sample < 0 or (sample > 0 and (teacher is None or shards is None)):
        found = f"is {sample}" + (" without --teacher and --shards" if sample > 0 else "")
        raise ConfigError("--sample", found, "a number of frames, with both", "Give all three, or none.")
    images = ShardManifest.load(shards) if shards is not None else None
    opened = FeatureCache.open(cache, shards=images)
    with tqdm(total=opened.manifest.bytes, desc="verify", unit="B", unit_scale=True) as bar:
        opened.verify(bar.update)
    made_from = f", made from the images of {shards}" if shards is not None else ""
    print(f"{cache}: the maps of {opened.manifest.samples} frames are as they were written{made_from}")
    if teacher is not None and images is not None and sample > 0:
        _ask_teacher(opened, images, teacher, sample, device)


def codecs(cache: Path, sample: int = 64, frames: int = 40) -> None:
    """Show what each codec would save on the maps of a float16 cache, and what it would lose, as a Markdown table.

    Bases are fitted on training frames and measured on validation frames, both from all over the split; whole pictures
    only. Bytes are parts of plain float16's, cosines those of the worst frame. `channels alike`: after each channel is
    divided by its root mean square. Example: pl-distill cache codecs --cache runs/demo/features

    Args:
        cache: Folder of feature shards with the splits train and val.
        sample: Frames to fit a basis on.
        frames: Frames to measure.
    """
    for name, value in (("--sample", sample), ("--frames", frames)):
        if value < 1:
            raise ConfigError(name, f"is {value}", "at least 1", "Give a positive number.")
    opened = FeatureCache.open(cache)
    if opened.codec.name != "float16":
        fix = "Cache some frames with --data.codec float16 and give that folder."
        raise ConfigError("--cache", f"stores {opened.codec.name}", "float16, the maps themselves", fix)
    from datamodules.codec_table import format_codecs, measure_codecs

    fitted, measured = _maps(opened, "train", sample), _maps(opened, "val", frames)
    print(f"{len(measured)} frames, bases fitted on {len(fitted)} others; teacher {opened.manifest.identity.teacher}\n")
    print(format_codecs(measure_codecs(fitted, measured)))


def _maps(cache: FeatureCache, split: Part, count: int) -> Tensor:
    """Return maps (F, C, h, w) from all over a split."""
    shards = cache.shards(split)
    places = [(shard, sample) for shard in shards for sample in range(len(shard))]
    if not places:
        raise CacheError(cache.folder, f"has no maps of {split}", "some of train and of val", "Cache these parts, too.")
    chosen = np.linspace(0, len(places) - 1, min(count, len(places))).astype(int)
    maps = [shard[sample][1] for shard, sample in (places[number] for number in chosen)]
    return torch.from_numpy(np.stack(maps))


def _ask_teacher(cache: FeatureCache, images: ShardManifest, teacher: str, sample: int, device: str) -> None:
    from pl_distill.modules.cache_comparison import compare_with_teacher  # seconds; not for `info`

    agreements = compare_with_teacher(cache, images, teacher, frames=sample, accelerator=device)
    worst = min(agreements, key=lambda one: -math.inf if math.isnan(one.cosine) else one.cosine)
    floor = cache.codec.floor
    if not worst.cosine >= floor:
        raise CacheError(
            f"{cache.folder}, {worst.split} frame {worst.key}, view {worst.view}",
            f"has a map whose cosine with the live teacher's is {worst.cosine:.5f}",
            f"at least {floor}, which {cache.codec.name} keeps",
            "See that nothing but the teacher's device has changed, or give another cache folder and run "
            "`pl-distill predict` again.",
        )
    mean = sum(one.cosine for one in agreements) / len(agreements)
    print(
        f"{len(agreements)} maps agree with the live teacher: mean cosine {mean:.6f}, "
        f"least {worst.cosine:.6f} ({worst.key}), floor {floor}"
    )


def _summary(cache: Path, manifest: CacheManifest) -> str:
    made, (channels, height, width) = manifest.identity, manifest.shape
    prepared = ", ".join(f"{name} {value}" for name, value in made.preprocessing.items())
    lines = {
        "cache": str(cache),
        "teacher": f"{made.teacher}, trunk {made.trunk_sha256}",
        "input": prepared,
        "computed": f"{made.precision}, attention {made.attention}, "
        + ", ".join(f"{name} {number}" for name, number in made.libraries.items()),
        "maps": f"{made.level}, {channels} channels x {height} x {width}, {made.codec}"
        + (f", basis {made.basis_sha256}" if made.basis_sha256 else ""),
        "views": ", ".join(f"{name} {value}" for name, value in made.views.items()),
    }
    for split, entries in manifest.splits.items():
        if not entries:
            lines[split] = "no frames"
            continue
        frames, maps = (sum(entry.samples * views for entry in entries) for views in (1, entries[0].views))
        size = sum(entry.bytes for entry in entries)
        part = size / (maps * 2 * channels * height * width)
        lines[split] = f"{maps} maps of {frames} frames in {len(entries)} shards, {size / 2**30:.3f} GiB"
        lines[split] += f", {part:.3f} of plain float16"
    return "\n".join(f"{name:<9} {value}" for name, value in lines.items())
