"""The files of one clip and one model, and how an evaluation that was killed finds them again.

A clip has a text file of tracks, some pictures, perhaps a video, and last of all a record. The record says which model,
prompt, policy and data made the tracks; a clip whose record says the same, and whose files are whole, is not replayed
again. Scores are always computed from the text file, so that it does not matter in which run it was written.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datamodules.files import atomic_path, sha256_of

RECORD_SCHEMA = 2


@dataclass(frozen=True)
class ClipFiles:
    """Where the files of one clip and model lie.

    Args:
        folder: Of the evaluation.
        role: Of the model: ``model``, ``teacher`` or ``student``; ``teacher-stock`` and the like of baselines.
        clip: Name of the clip.
    """

    folder: Path
    role: str
    clip: str

    @property
    def stem(self) -> str:
        """The clip's name without folders, as in the shards."""
        return self.clip.replace("/", "-")

    @property
    def tracks(self) -> Path:
        """MOTChallenge text."""
        return self.folder / "tracks" / self.role / f"{self.stem}.txt"

    @property
    def masks(self) -> Path:
        """MOTS text: the masks of the same tracks."""
        return self.folder / "tracks" / self.role / f"{self.stem}.masks.txt"

    @property
    def record(self) -> Path:
        """JSON: identity, times, memory and number of tracks per frame."""
        return self.folder / "tracks" / self.role / f"{self.stem}.json"

    @property
    def animals(self) -> Path:
        """JSON lines: what the chain behind the tracker says of each animal, see `monitor_sinks.AnimalLines`."""
        return self.folder / "animals" / self.role / f"{self.stem}.jsonl"

    @property
    def video(self) -> Path:
        """Annotated mp4."""
        return self.folder / "videos" / self.role / f"{self.stem}.mp4"

    @property
    def strips(self) -> Path:
        """Folder of the strips of pictures of this model's errors."""
        return self.folder / "failures" / self.role

    def picture(self, frame: int) -> Path:
        """Annotated JPEG of one frame."""
        return self.folder / "pictures" / self.role / f"{self.stem}-f{frame:06d}.jpg"


@dataclass(frozen=True)
class ReplayRecord:
    """What is remembered of a replay; lists have one entry per frame.

    Args:
        identity: Everything that the tracks depend on, as plain values.
        seconds: Wall time, with decoding, drawing and writing.
        peak_rss_bytes: Largest resident set of the process meanwhile.
        peak_vram_bytes: Largest memory allocated on the GPU meanwhile; None without one.
        update_ms: Time in the tracker.
        rss_bytes: Resident set after the update; None where the system does not tell.
        session_bytes: What the tracker kept for the next frames, without the network.
        objects: Number of tracks.
        animals: Number of visible animals; None where the frame is not labelled.
        pictures: Frames of which there is an annotated picture.
        tracks_sha256: Of the text file of tracks.
        masks_sha256: Of the text file of masks.
        animals_sha256: Of the lines about animals; None where nothing described them.
        streaming_bytes: Peaks meanwhile by the names of `PhaseMeter`; empty in records of older versions.
    """

    identity: dict[str, Any]
    seconds: float
    peak_rss_bytes: int
    peak_vram_bytes: int | None
    update_ms: list[float]
    rss_bytes: list[int | None]
    session_bytes: list[int]
    objects: list[int]
    animals: list[int | None]
    pictures: list[int]
    tracks_sha256: str
    masks_sha256: str
    animals_sha256: str | None = None
    streaming_bytes: dict[str, int] = field(default_factory=dict)

    @property
    def frames_per_second(self) -> float | None:
        """Frames over the time spent in the tracker; None for a clip without frames."""
        spent = sum(self.update_ms) / 1000
        return len(self.update_ms) / spent if spent > 0 else None


def find_record(files: ClipFiles, identity: Mapping[str, Any], video: bool) -> ReplayRecord | None:
    """Return the record of an earlier replay of the same identity; None where a file of it is absent or damaged."""
    try:
        record = read_record(files.record)
        whole = (
            record.identity == dict(identity)
            and sha256_of(files.tracks) == record.tracks_sha256
            and sha256_of(files.masks) == record.masks_sha256
            and (record.animals_sha256 is None or sha256_of(files.animals) == record.animals_sha256)
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return record if whole and all(path.is_file() for path in _shown(files, record, video)) else None


def copy_replay(source: ClipFiles, files: ClipFiles, record: ReplayRecord, video: bool) -> None:
    """Copy a finished replay of another evaluation, its record last: what a kill leaves is not taken for whole."""
    files.record.unlink(missing_ok=True)
    pairs = [(source.tracks, files.tracks), (source.masks, files.masks)]
    if record.animals_sha256 is not None:
        pairs.append((source.animals, files.animals))
    pairs += zip(_shown(source, record, video), _shown(files, record, video), strict=True)
    for old, new in (*pairs, (source.record, files.record)):
        with atomic_path(new) as temporary:
            shutil.copyfile(old, temporary)


def _shown(files: ClipFiles, record: ReplayRecord, video: bool) -> list[Path]:
    """Return where the pictures and the video of a replay lie."""
    return [files.picture(frame) for frame in record.pictures] + ([files.video] if video else [])


def read_record(path: Path) -> ReplayRecord:
    """Read a record.

    Raises:
        OSError, ValueError, TypeError, KeyError: It is absent, or no record of this version.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.pop("schema") != RECORD_SCHEMA:
        raise ValueError(f"{path} has another schema than {RECORD_SCHEMA}")
    return ReplayRecord(**content)
