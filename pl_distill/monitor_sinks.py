"""Who keeps what a `Monitor` sees: a file of lines, a pool of embeddings with the record of each animal."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import numpy as np

from pl_distill.assets import shipped_models
from pl_distill.models.behaviour_head import MODEL_TYPE, PEN_BEHAVIOUR, BehaviourModel, load_behaviour
from pl_distill.models.embedder import Embedder
from pl_distill.monitor import Observation
from pl_distill.reid.by_animal import vectors_by_animal
from pl_distill.reid.identifier import Identifier
from pl_distill.reid.identify_policy import IdentifierPolicy
from pl_distill.reid.longitudinal import RecordWriter, Sighting
from pl_distill.reid.pen_map import PenMap
from pl_distill.reid.pool import EmbeddingPool
from pl_distill.reid.record_files import RECORD
from pl_distill.reid.record_identities import follow_identities
from pl_distill.reid.recordings import require_new, session_of
from pl_distill.reid.sampling import SamplingPolicy
from pl_distill.reid.storage import Vectors
from pl_distill.reid.thumbnails import Thumbnails

ANIMALS = "animals.jsonl"


class AnimalLines:
    """``animals.jsonl``: a line of JSON for each animal and observed frame, written as it comes.

    Keys: `image_id` counts frames from 1 as `tracks.txt` does; `track_id`; `time_s` since the first frame; `bbox` left,
    top, width, height in pixels; `behaviour` and its `probability`, null without a head; `animal`, where it is known.

    Args:
        path: The file; an older one is replaced.
        keeper: Says which animal a track is; None knows none.
    """

    def __init__(self, path: Path, keeper: "PoolSink | None" = None) -> None:
        self._file = path.open("w", encoding="utf-8", buffering=1)  # a kill cannot take what was written
        self._keeper = keeper

    def observe(self, observations: Sequence[Observation]) -> None:
        """Append the animals of one frame."""
        for one in observations:
            left, top, right, bottom = (float(value) for value in one.box_xyxy)
            record = {
                "image_id": one.frame + 1,
                "track_id": one.number,
                "time_s": round(one.time_s, 4),
                "bbox": [round(value, 3) for value in (left, top, right - left, bottom - top)],
                "behaviour": one.behaviour,
                "probability": None if one.behaviour is None else round(one.probability, 4),
                "animal": None if self._keeper is None else self._keeper.animal_of(one.number),
            }
            self._file.write(json.dumps(record) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class PoolSink:
    """Gives every embedding to a pool, which says who it is, and every recognised animal to the record.

    Args:
        identifier: Links tracks into animals.
        record: Adds up what they do; None keeps no record.
        started_s: Seconds since 1970 (UTC) at which observations count from 0.
        thumbnails: Keeps a picture of each animal and day; None keeps none.
    """

    def __init__(
        self,
        identifier: Identifier,
        record: RecordWriter | None,
        started_s: float,
        thumbnails: Thumbnails | None = None,
    ) -> None:
        self.identifier = identifier
        self.thumbnails = thumbnails
        self.record = record
        self.started_s = started_s

    def animal_of(self, number: int) -> str | None:
        """Give the animal of a track, None while it is not recognised."""
        return self.identifier.animal_of(number)

    def observe(self, observations: Sequence[Observation]) -> None:
        """Take the animals of one frame."""
        time_s = self.started_s + observations[0].time_s
        named = self.identifier.observe(
            time_s,
            [one.number for one in observations],
            np.stack([one.embedding for one in observations]),
            [min(1.0, max(0.0, one.score)) for one in observations],
        )
        if self.thumbnails is not None:
            for one in observations:
                if one.number in named:
                    picture, track = one.crop.permute(1, 2, 0).cpu().numpy(), self.identifier.track_of(one.number)
                    self.thumbnails.offer(named[one.number], time_s, picture, track)
        if self.record is not None:
            self.record.observe(
                time_s,
                [
                    Sighting(named[one.number], one.box_xyxy, one.behaviour, one.embedding, one.number, one.is_renamed)
                    for one in observations
                    if one.number in named
                ],
                [one.box_xyxy for one in observations if one.number not in named],
            )

    def close(self) -> None:
        """Write what is left of the record."""
        if self.record is not None:
            self.record.close()


def open_behaviour(source: str | None, embedder: Embedder) -> BehaviourModel | None:
    """Load a behaviour head; without a name the shipped one where it belongs to the embedder, otherwise none."""
    if source is not None:
        return load_behaviour(source)
    if PEN_BEHAVIOUR not in shipped_models(MODEL_TYPE):
        return None
    head = load_behaviour(PEN_BEHAVIOUR)
    return head if head.embedder == embedder.identity else None


@contextmanager
def open_pool(
    folder: Path,
    embedder: Embedder,
    behaviour: BehaviourModel | None,
    camera: str,
    started: datetime,
    place: PenMap,
    identify: IdentifierPolicy,
    sampling: SamplingPolicy | None = None,
    end: datetime | None = None,
) -> Iterator[PoolSink]:
    """Open a pool with the record beside it, for one run of one camera.

    Args:
        folder: Holds ``pool.duckdb`` and ``record/``; made if need be.
        embedder: Makes the embeddings; a pool of another one is refused.
        behaviour: Names the classes of the record.
        camera: Its name; another process that has it is refused.
        started: When observations count from 0, of any time zone; in UTC it names the session, too.
        place: Where things are in the picture.
        identify: When a track is asked about, and with what it is compared.
        sampling: Which embeddings are kept; None keeps to that of the pool, or to the default for a new one.
        end: When the recording ends; None of a camera that runs.

    Raises:
        PoolError: The pool is of another embedder, damaged, in use, or holds this recording, or one of the same time.
        RecordError: The camera's name is no name of a folder, or the record of a day that the recording touches names
            other behaviours.
    """
    classes = () if behaviour is None else behaviour.classes
    session = session_of(started)
    with (
        EmbeddingPool(folder, embedder.identity, embedder.dimension, sampling) as pool,
        Identifier(pool, camera, session, identify) as identifier,
    ):
        require_new(pool, folder / RECORD, camera, started, end)
        follow_identities(folder / RECORD, pool)  # a `reid merge` may have been killed before it was done
        record = RecordWriter(folder / RECORD, camera, place, classes, first_days(pool), session=session)
        record.check(started, end)
        yield PoolSink(identifier, record, started.timestamp(), Thumbnails(folder))


def first_days(pool: EmbeddingPool) -> dict[str, Vectors]:
    """Return each known animal's mean embedding over the first day that the pool holds of it, (D,), of length 1."""
    found = {}
    for stored in vectors_by_animal(pool, first_s=86_400):
        mean = stored.vectors.mean(axis=0)
        found[str(stored.animals[0])] = mean / max(float(np.linalg.norm(mean)), 1e-12)
    return found
