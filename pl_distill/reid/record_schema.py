"""The record's columns: one row for each animal and hour. docs/animal-record.md says the same in a table."""

from collections.abc import Sequence

import pyarrow as pa

from pl_distill.errors import ConfigError

BEHAVIOURS = ("sleep", "investigating", "standing", "eat", "lying", "walk", "nose-to-nose", "fight", "drink")
"""The nine classes of the pen; a record names its own in its schema."""

ORIGIN = ("tracked_as", "nearest_as", "tracks", "began_in", "nearest_each", "last_at")
"""Columns by which a row follows the pool's identities, see `record_identities`, or is gone on with after a restart; of
older records they are absent."""

_TRACK = pa.struct([("session", pa.string()), ("number", pa.int64()), ("seen_s", pa.float64())])
_NEAREST = pa.struct([("animal", pa.string()), ("seconds", pa.float64())])
_LAST_AT = pa.struct([("place", pa.string()), ("time_s", pa.float64())])

_COLUMNS: tuple[tuple[str, pa.DataType, str], ...] = (
    ("animal", pa.string(), "name of the animal, as the pool has it; empty where its tracks have lost theirs"),
    ("hour", pa.timestamp("us", "UTC"), "begin of the hour"),
    ("camera", pa.string(), "name of the camera"),
    ("seen_s", pa.float64(), "seconds in which the animal was tracked: at most 3600; divide by it"),
    ("distance_m", pa.float64(), "metres walked, without the jitter of boxes"),
    ("feeder_visits", pa.int64(), "visits to the feeder that began in this hour; null where the picture shows none"),
    ("feeder_s", pa.float64(), "seconds at the feeder; null where the picture shows none"),
    ("drinker_visits", pa.int64(), "visits to a drinker that began in this hour; null where the picture shows none"),
    ("drinker_s", pa.float64(), "seconds at a drinker; null where the picture shows none"),
    ("neighbours", pa.float64(), "mean number of other animals within reach while it was tracked"),
    ("nearest", pa.string(), "the animal that was nearest for longest; null where it was alone"),
    ("nearest_s", pa.float64(), "for how many seconds"),
    ("embeddings", pa.int64(), "embeddings that `drift` rests on"),
    (
        "drift",
        pa.float64(),
        "1 - cosine of the hour's mean embedding and the first day's; null without embeddings and in the first hour",
    ),
    ("tracked_as", pa.string(), "name that the animal had when the row was written; it stays"),
    ("nearest_as", pa.string(), "the same of `nearest`"),
    ("tracks", pa.list_(_TRACK), "tracks of the camera that the row rests on, and for how many seconds"),
    ("began_in", pa.string(), "session that began the row; later ones may have gone on with it"),
    ("nearest_each", pa.list_(_NEAREST), "everybody who was nearest, by the name of then, and for how many seconds"),
    ("last_at", pa.list_(_LAST_AT), "when it was last seen at feeder and drinker, seconds since 1970"),
)


def behaviour_column(behaviour: str) -> str:
    """Name of the column with the seconds of a behaviour."""
    return f"{behaviour.replace('-', '_')}_s"


def record_schema(behaviours: Sequence[str] = BEHAVIOURS) -> pa.Schema:
    """Give the schema of a record that names these behaviours; each field says in its metadata what it holds.

    Raises:
        ConfigError: Two behaviours, or a behaviour and another quantity, would share a column.
    """
    fields = [pa.field(name, kind, metadata={"meaning": meaning}) for name, kind, meaning in _COLUMNS]
    for behaviour in behaviours:
        meaning = {"meaning": f"seconds of the behaviour '{behaviour}'", "behaviour": behaviour}
        fields.append(pa.field(behaviour_column(behaviour), pa.float64(), metadata=meaning))
    names = [field.name for field in fields]
    if len(set(names)) < len(names):
        raise ConfigError("behaviours", f"are {', '.join(behaviours)}", "names without a clash", "Rename one.")
    return pa.schema(fields, metadata={"pl_distill_record": "1"})


def behaviours_of(schema: pa.Schema) -> list[str]:
    """Behaviours that a schema has columns for."""
    return [field.metadata[b"behaviour"].decode() for field in schema if b"behaviour" in (field.metadata or {})]
