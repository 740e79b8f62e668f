"""`pl-distill data`: draw a pen, write and verify shards, show a split."""

import sys
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from tqdm import tqdm

from datamodules.clip import Clip
from datamodules.layouts import Layout, read_clips
from datamodules.pen import EVALUATION_SEED, draw_pen, load_pen_config
from datamodules.shards import ShardManifest, verify_shards, write_shards
from datamodules.splits import PARTS, format_day, load_split, parse_day
from pl_distill.errors import ConfigError


def pen(
    out: Path,
    domain: str = "day",
    days: str = "2026_01_01..2026_01_06,2026_01_21,2026_01_26..2026_01_27",
    clips_per_day: int = 1,
    frames_per_clip: int = 120,
    seed: int = 0,
    herds: int = 1,
    split: str = "pen",
) -> None:
    """Draw clips of a pen in the layout of the Edinburgh data set, with masks.

    A second run keeps the clips that are finished and of the same settings.
    Example: pl-distill data pen --out data/pen --domain day --days 2026_01_01..2026_01_06,2026_01_21,2026_01_26

    Args:
        out: Folder that gets the day folders.
        domain: Which pen: a name of configs/pen, or the path of a .yaml file.
        days: Days YYYY_MM_DD and ranges first..last, joined by commas; each has its own straw.
        clips_per_day: Clips of each day.
        frames_per_clip: Frames of each clip.
        seed: Below 1,000,000. Days in the split's test part get 1,000,000 more: other animals than those of training.
        herds: Different herds. The first day shows that of `seed`, the next that of `seed` + 1, and so on in turn.
        split: A name of configs/splits, or the path of a .yaml file.
    """
    if herds < 1:
        raise ConfigError("--herds", f"is {herds}", "at least 1", "Choose another value.")
    if not 0 <= seed <= EVALUATION_SEED - herds:
        most = EVALUATION_SEED - herds
        raise ConfigError("--seed", f"is {seed}", f"0 to {most}", "Larger seeds are kept for test days.")
    config, division = load_pen_config(domain), load_split(split)
    seeds: dict[int, list[str]] = {}
    for number, day in enumerate(expand_days(days)):
        offset = EVALUATION_SEED if division.part_of(day) == "test" else 0
        seeds.setdefault(offset + seed + number % herds, []).append(day)
    clips: list[Path] = []
    total = sum(map(len, seeds.values())) * clips_per_day * frames_per_clip
    with tqdm(total=total, desc=f"draw {config.domain}", unit="frame") as bar:
        for one_seed, its_days in seeds.items():
            clips += draw_pen(
                out,
                config,
                days=its_days,
                clips_per_day=clips_per_day,
                frames_per_clip=frames_per_clip,
                seed=one_seed,
                progress=bar.update,
            )
    print(f"{len(clips)} clips in {out}, {clips[0].relative_to(out)} to {clips[-1].relative_to(out)}")
    print(f"next: pl-distill data shards --clips {out} --out SHARDS --split {split}")


def shards(
    clips: Path,
    out: Path,
    split: str = "edinburgh",
    layout: Layout = "auto",
    samples_per_shard: int = 500,
    jpeg_quality: int = 95,
) -> None:
    """Write clips as WebDataset shards with a manifest, divided by day into train, val and test.

    A killed run goes on where it stopped; a second one reuses what is there.
    Example: pl-distill data shards --clips data/edinburgh --out data/shards --split edinburgh

    Args:
        clips: Folder of recordings: day folders (Edinburgh, drawn pens) or sequences (MOTChallenge).
        out: Folder that gets the shards.
        split: A name of configs/splits, or the path of a .yaml file.
        layout: edinburgh, mot, or auto to see which one it is.
        samples_per_shard: The most frames in a shard; shards of a part differ by at most one.
        jpeg_quality: Of the pictures, 1 to 100.
    """
    for option, value, most in (("samples_per_shard", samples_per_shard, None), ("jpeg_quality", jpeg_quality, 100)):
        if value < 1 or (most is not None and value > most):
            expected = "at least 1" if most is None else f"1 to {most}"
            raise ConfigError(f"--{option}", f"is {value}", expected, "Choose another value.")
    division = load_split(split)
    found = read_clips(clips, layout)
    manifest = write_shards(
        found,
        division,
        out,
        samples_per_shard=samples_per_shard,
        jpeg_quality=jpeg_quality,
    )
    print(summary(manifest))
    for part in PARTS:
        labels = [label_counts(clip) for clip in found if division.part_of(clip.day) == part]
        print(f"{part:<6}{sum(one[0] for one in labels):>6} labelled frames, {sum(one[1] for one in labels)} boxes")
    warn_of_empty_labels(found)
    for part in PARTS:
        if not manifest.num_samples(part):
            days = ", ".join(map(str, division.days(part))) or "no day"
            print(f"warning: {out} has no frame in {part}: no clip is of its days ({days})", file=sys.stderr)
    recipe = "cache/pen.yaml" if manifest.split_name == "pen" else "cache/edinburgh.yaml"
    print(f"next: pl-distill predict --config {recipe} --model.teacher TEACHER --data.shards {out}")


def verify(shards: Path) -> None:
    """Compare every shard with the manifest: SHA-256, number and names of the samples.

    Example: pl-distill data verify --shards data/shards

    Args:
        shards: Folder that `pl-distill data shards` wrote.
    """
    manifest = verify_shards(shards)
    print(summary(manifest))
    print("every shard is as its manifest says")


def split(clips: Path, split: str = "edinburgh", layout: Layout = "auto") -> None:
    """Show to which part each clip of a folder would go, without writing anything.

    Example: pl-distill data split --clips data/edinburgh --split edinburgh

    Args:
        clips: Folder of recordings.
        split: A name of configs/splits, or the path of a .yaml file.
        layout: edinburgh, mot, or auto to see which one it is.
    """
    division = load_split(split)
    found = read_clips(clips, layout)
    print(f"split {division.name}, SHA-256 {division.sha256}")
    for part in PARTS:
        print(f"{part}: {', '.join(map(str, division.days(part))) or 'no day'}")
    for clip in found:
        part = division.part_of(clip.day)
        labelled, boxes, animals = label_counts(clip)
        labels = f"{labelled} of them labelled" + (f", {boxes} boxes of {animals} animals" if labelled else "")
        print(f"{part:<6} {clip.name}  {clip.num_frames} frames, {labels}")
    counts = Counter(division.part_of(clip.day) for clip in found)
    print(", ".join(f"{counts[part]} clips in {part}" for part in PARTS))
    warn_of_empty_labels(found)


def label_counts(clip: Clip) -> tuple[int, int, int]:
    """Return how many frames are labelled, how many boxes they have, and of how many animals."""
    frames = clip.annotations.values()
    return len(frames), sum(map(len, frames)), len({name for animals in frames for name in animals.identities})


def warn_of_empty_labels(clips: Sequence[Clip]) -> None:
    """Say on stderr which clips are labelled without a single box: rarely are there no animals."""
    for clip in clips:
        labelled, boxes, _ = label_counts(clip)
        if labelled and not boxes:
            print(
                f"warning: {clip.name} has {labelled} labelled frames and no box: whatever is found there counts as "
                "false. If there are animals, export its labels again; if nobody labelled it, remove them",
                file=sys.stderr,
            )


def expand_days(text: str) -> list[str]:
    """Read days and ranges of days: ``2026_01_01..2026_01_03,2026_01_21`` are four days.

    Raises:
        SplitError: A part of the text is no day.
        ConfigError: A range ends before it begins.
    """
    days: list[str] = []
    for item in text.split(","):
        first, dots, last = item.partition("..")
        begin = parse_day("--days", first)
        end = parse_day("--days", last) if dots else begin
        if end < begin:
            raise ConfigError(
                "--days", f"has {item.strip()}, which ends before it begins", "first..last", "Exchange them."
            )
        days += [format_day(begin + timedelta(days=number)) for number in range((end - begin).days + 1)]
    return list(dict.fromkeys(days))


def summary(manifest: ShardManifest) -> str:
    """Return a table of what a folder of shards holds."""
    lines = [f"{manifest.folder}: split {manifest.split_name}, SHA-256 {manifest.split_sha256[:12]}"]
    for part in PARTS:
        entries = manifest.splits[part]
        clips = sum(clip.split == part for clip in manifest.clips.values())
        size_mb = sum(entry.bytes for entry in entries) / 1e6
        frames = manifest.num_samples(part)
        lines.append(f"{part:<6}{clips:>6} clips{frames:>9} frames{len(entries):>6} shards{size_mb:>10.1f} MB")
    return "\n".join(lines)
