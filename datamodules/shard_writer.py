"""Write clips as WebDataset tars: a JPEG and a JSON per frame, a manifest last.

Layout: ``<out>/<part>/<part>-000000.tar`` with ``<key>.jpg`` and ``<key>.json`` (`datamodules.shard_sample`), and
``<out>/manifest.json`` (`datamodules.shard_manifest`). Equal clips give equal bytes: headers carry no time.
All frames of a clip are written, labelled or not: a student learns from pictures, and trackers need every one.
"""

import hashlib
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from datamodules.clip import Clip, Fingerprinted, Frame
from datamodules.errors import ClipError, DataError, ShardError
from datamodules.files import atomic_path, sha256_of
from datamodules.images import encode_jpeg
from datamodules.locks import held
from datamodules.shard_journal import ShardJournal, is_there
from datamodules.shard_manifest import FILE, ClipEntry, ShardEntry, ShardManifest
from datamodules.shard_plan import PlannedShard, plan_shards
from datamodules.shard_sample import SampleRecord, key_prefix, sample_key
from datamodules.splits import PARTS, Part, Split

log = logging.getLogger(__name__)

LOCK = ".lock"
MAX_NAME = 70
"""Characters of a clip's name: a tar's names have 100, and frame, view and kind of a cached map follow."""


def write_shards(
    clips: Sequence[Clip],
    split: Split,
    out: str | Path,
    *,
    samples_per_shard: int = 500,
    jpeg_quality: int = 95,
) -> ShardManifest:
    """Write clips as shards, divided by day; or finish what an interrupted run began. Shows progress bars.

    A finished folder of the same clips, split and options is left as it is. Shards appear whole under their names and
    the manifest last, so that at no time anything half written can be read.

    Args:
        clips: In the order in which they are to lie within their part.
        split: Says by its day to which part a clip belongs.
        out: The folder to write.
        samples_per_shard: The most samples that a shard may hold; shards of a part differ by at most one sample.
        jpeg_quality: libjpeg's, 1 to 100.

    Returns:
        The manifest.

    Raises:
        ValueError: `samples_per_shard` or `jpeg_quality` is out of range.
        SplitError: A clip's day is in no part; nothing has been written then.
        ShardError: `out` holds shards of something else, or two clips would share their samples' names.
        ClipError: Pictures are missing or damaged; finished shards stay for the next run.
    """
    if samples_per_shard < 1 or not 1 <= jpeg_quality <= 100:
        raise ValueError(f"samples_per_shard {samples_per_shard} or jpeg_quality {jpeg_quality} is out of range")
    _check_names(clips)
    parts: dict[str, Part] = {clip.name: split.part_of(clip.day) for clip in clips}
    plan = {
        part: plan_shards(part, [(c.name, c.num_frames) for c in clips if parts[c.name] == part], samples_per_shard)
        for part in PARTS
    }
    wanted = ShardManifest(
        folder=Path(out),
        split_name=split.name,
        split_sha256=split.sha256,
        jpeg_quality=jpeg_quality,
        clips={
            clip.name: _clip_entry(clip, parts[clip.name]) for clip in tqdm(clips, desc="hash", unit="clip", delay=1)
        },
        splits={part: tuple(_unwritten(shard) for shard in shards) for part, shards in plan.items()},
    )
    _warn_of_copies(wanted)
    if (whole := _whole(wanted)) is not None:
        return whole
    _refuse_foreign(wanted.folder, ShardJournal(wanted.folder, wanted.recipe_sha256))
    lock = wanted.folder / LOCK
    with held(lock, wait=False) as is_mine:
        if is_mine:
            return _complete(wanted, clips)
    tqdm.write(f"{wanted.folder}: waiting for another process that writes there", file=sys.stderr)
    with held(lock, wait=True):
        return _complete(wanted, clips)


def _complete(wanted: ShardManifest, clips: Sequence[Clip]) -> ShardManifest:
    """Write what is missing; another process may have written all of it meanwhile."""
    if (whole := _whole(wanted)) is not None:
        return whole
    journal = ShardJournal(wanted.folder, wanted.recipe_sha256)
    if (found := _finished_folder(wanted)) is not None:
        journal.finished = _there(found)
    return _write(wanted, journal, {clip.name: clip for clip in clips})


def _whole(wanted: ShardManifest) -> ShardManifest | None:
    """Return the manifest that lies in the folder where all of its shards do, too."""
    found = _finished_folder(wanted)
    if found is None or len(there := _there(found)) < sum(map(len, found.splits.values())):
        return None
    ShardJournal(wanted.folder, wanted.recipe_sha256).end()  # of a kill between the manifest and its end
    tqdm.write(f"{found.folder}: reusing all {len(there)} shards", file=sys.stderr)
    return found


def _there(found: ShardManifest) -> dict[str, ShardEntry]:
    entries = [entry for shards in found.splits.values() for entry in shards]
    return {entry.file: entry for entry in entries if is_there(found.folder, entry)}


def _refuse_foreign(folder: Path, journal: ShardJournal) -> None:
    """Refuse a folder of somebody else's tars, before anything is written there."""
    if not journal.exists and not (folder / FILE).exists() and any(folder.glob("*/*.tar")):
        raise ShardError(
            folder,
            "holds tars but neither manifest.json nor a journal",
            "an empty folder, or one that this command has written",
            "Give another folder.",
        )


def _write(wanted: ShardManifest, journal: ShardJournal, clips: dict[str, Clip]) -> ShardManifest:
    folder = wanted.folder
    files = {shard.file for shards in wanted.splits.values() for shard in shards}
    journal.begin()
    (folder / FILE).unlink(missing_ok=True)  # it is about to be untrue; the journal keeps what it knew
    if journal.finished:
        tqdm.write(f"{folder}: reusing {len(journal.finished)} of {len(files)} shards", file=sys.stderr)
    for path in folder.glob("*/*.tar"):  # of an interrupted run with other clips or options
        if path.relative_to(folder).as_posix() not in files:
            path.unlink()
    for path in folder.glob("*/.*.partial-*"):  # of a run that was killed
        path.unlink()
    missing = [shard for shards in wanted.splits.values() for shard in shards if shard.file not in journal.finished]
    runs = _FrameRuns(clips)
    with tqdm(total=sum(shard.samples for shard in missing), desc="shards", unit="frame") as bar:
        for shard in missing:
            journal.append(_write_shard(folder, shard, runs, wanted.jpeg_quality, bar))
    manifest = replace(
        wanted,
        splits={
            part: tuple(journal.finished[shard.file] for shard in shards) for part, shards in wanted.splits.items()
        },
    )
    manifest.save()
    journal.end()
    return manifest


def _write_shard(
    folder: Path, shard: ShardEntry, runs: "_FrameRuns", jpeg_quality: int, bar: "tqdm[NoReturn]"
) -> ShardEntry:
    from webdataset import TarWriter  # imports torch: seconds that a mistake in the arguments need not wait for

    path = folder / shard.file
    with atomic_path(path) as temporary:
        with (
            temporary.open("wb") as file,
            TarWriter(file, user="", group="", mode=0o644, mtime=0, encoder=False, compress=False) as tar,
        ):
            for segment in shard.clips:
                for frame in runs.take(segment.clip, segment.first_frame, segment.frames):
                    key = sample_key(segment.clip, frame.index)
                    record = SampleRecord(segment.clip, frame.index, frame.timestamp_s, frame.annotation)
                    picture = encode_jpeg(frame.image, jpeg_quality)
                    tar.write({"__key__": key, "jpg": picture, "json": record.to_json()})
                    bar.update()
        digest, size = sha256_of(temporary), temporary.stat().st_size
    return ShardEntry(shard.file, digest, size, shard.samples, shard.clips)


class _FrameRuns:
    """Frames of clips in order; each clip is decoded once, unless a finished shard lies between, which is skipped."""

    def __init__(self, clips: dict[str, Clip]) -> None:
        self._clips = clips
        self._name = ""
        self._frames: Iterator[Frame] = iter(())
        self._next = 0

    def take(self, name: str, first: int, count: int) -> Iterator[Frame]:
        """Yield `count` frames of a clip from number `first` on."""
        clip = self._clips[name]
        if name != self._name or first < self._next:
            self._name, self._frames, self._next = name, clip.frames(), 0
        for frame in islice(self._frames, first - self._next, first - self._next + count):
            if frame.image.shape != (clip.height, clip.width, 3):
                raise ClipError(
                    f"{name}, frame {frame.index}",
                    f"is a picture of shape {frame.image.shape}",
                    f"{(clip.height, clip.width, 3)}, the size of the clip",
                    "All pictures of a clip must have one size: its boxes are in pixels.",
                )
            self._next = frame.index + 1
            yield frame
        if self._next != first + count:
            raise ClipError(
                name, f"ends after {self._next} frames", f"{clip.num_frames}", "Copy or export this clip again."
            )


def _finished_folder(wanted: ShardManifest) -> ShardManifest | None:
    """Return the manifest that lies in the folder, None without one; refuse one of something else."""
    if not (wanted.folder / FILE).exists():
        return None
    found = ShardManifest.load(wanted.folder)
    if found.recipe_sha256 == wanted.recipe_sha256:
        return found
    differing = [
        what
        for what, left, right in (
            ("split", found.split_sha256, wanted.split_sha256),
            ("quality of the pictures", found.jpeg_quality, wanted.jpeg_quality),
            ("clips", found.clips, wanted.clips),
        )
        if left != right
    ]
    raise ShardError(
        wanted.folder,
        f"holds shards that differ in {', '.join(differing) or 'their size or the order of clips'}",
        "an empty folder, or shards of the same clips, split and options",
        "Give another folder, or delete this one.",
    )


def _check_names(clips: Sequence[Clip]) -> None:
    if not clips:
        raise DataError("the clips to write", "are none", "at least one clip", "Check the folder that was read.")
    for clip in clips:
        if len(key_prefix(clip.name)) > MAX_NAME:
            raise ShardError(
                f"clip {clip.name}",
                f"has a name of {len(key_prefix(clip.name))} characters",
                f"at most {MAX_NAME}, which a tar's names have room for beside frame and kind",
                "Rename its folder.",
            )
    for prefix, count in Counter(key_prefix(clip.name) for clip in clips).items():
        if count > 1:
            names = [clip.name for clip in clips if key_prefix(clip.name) == prefix]
            raise ShardError(
                f"clips {' and '.join(names)}",
                f"would both name their samples {prefix}-f...",
                "names that differ in letters and digits",
                "Rename one of the folders.",
            )


def _warn_of_copies(wanted: ShardManifest) -> None:
    """Say it where the same recording is in two parts: a model would be judged on what it has learned."""
    first: dict[str, str] = {}
    for name, clip in wanted.clips.items():
        other = first.setdefault(clip.source_sha256, name)
        if wanted.clips[other].split != clip.split:
            log.warning(
                "clip %s (%s) has the very pictures of %s (%s): leave one of them out",
                name, clip.split, other, wanted.clips[other].split,
            )  # fmt: skip


def _clip_entry(clip: Clip, part: Part) -> ClipEntry:
    return ClipEntry(clip.day, clip.fps, clip.width, clip.height, clip.num_frames, part, _source_sha256(clip))


def _source_sha256(clip: Clip) -> str:
    """Hash pictures and labels: by the source's own fingerprint, or by decoding it where it has none."""
    digest = hashlib.sha256()
    if isinstance(clip.source, Fingerprinted):
        digest.update(clip.source.fingerprint().encode())
    else:
        for image in clip.source:
            digest.update(repr(image.shape).encode() + image.tobytes())
    for index, animals in sorted(clip.annotations.items()):
        digest.update(SampleRecord(clip.name, index, index / clip.fps, animals).to_json())
    return digest.hexdigest()


def _unwritten(shard: PlannedShard) -> ShardEntry:
    return ShardEntry(shard.file, "", 0, shard.samples, shard.segments)
