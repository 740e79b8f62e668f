"""Who keeps what a `Monitor` sees: a file of lines, a pool of embeddings with the record of each animal."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pl_distill.monitor import Observation
from pl_distill.reid.identifier import Identifier
from pl_distill.reid.longitudinal import RecordWriter, Sighting

ANIMALS = "animals.jsonl"


class AnimalLines:
    """``animals.jsonl``: a line of JSON for each animal and observed frame, written as it comes.

    Keys: `image_id` counts frames from 1 as `tracks.txt` does; `track_id`; `time_s` since the first frame; `bbox` left,
    top, width, height in pixels; `behaviour` and its `probability`, null without a head; `animal`, where a pool knows it.

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
    """

    def __init__(self, identifier: Identifier, record: RecordWriter | None, started_s: float) -> None:
        self.identifier = identifier
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
        if self.record is not None:
            self.record.observe(
                time_s,
                [
                    Sighting(named[one.number], one.box_xyxy, one.behaviour, one.embedding)
                    for one in observations
                    if one.number in named
                ],
            )

    def close(self) -> None:
        """Write what is left and let go of the camera's name."""
        if self.record is not None:
            self.record.close()
        self.identifier.close()
