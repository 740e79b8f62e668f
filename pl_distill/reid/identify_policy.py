"""By which rules a track gets the name of an animal, and the limits that the shipped embedder was calibrated to."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from pl_distill.errors import ConfigError
from pl_distill.reid.gallery import BoundedGallery, HeldGallery, RunningMeans
from pl_distill.reid.matching import MatchPolicy

GalleryKind = Literal["mean", "sightings"]
CALIBRATED: Mapping[GalleryKind, MatchPolicy] = {
    "mean": MatchPolicy(threshold=0.71, margin=0.115),  # the pen's embedder in `reid year`: docs/animal-record.md
    "sightings": MatchPolicy(threshold=0.74, margin=0.105),
}
CALIBRATED_EMBEDDER = "93d3e06ebeab8b0f913a6fced584857e0f1217e2caef9fad2706d98a7b65272c"
"""Identity of the embedder of which `CALIBRATED` was found: the shipped one."""


@dataclass(frozen=True)
class IdentifierPolicy:
    """When a track is asked about, and what is held in memory.

    Args:
        evidence: Embeddings of a track before it is asked about.
        patience: Embeddings after which a track that stays unsure becomes a new animal, or its best guess in a herd
            that is complete; a minute at six a second.
        gallery: ``mean`` compares with one mean vector of each animal, ``sightings`` with the best of its vectors.
            docs/animal-record.md has the measurement behind the default.
        half_life_days: Of a vector's weight in the mean; None lets all count alike.
        per_animal: The most sightings of one animal in memory.
        decay_per_day: What a day of age takes off a sighting's cosine.
        match: Threshold, margin and size of the herd; what is not given is what the gallery was calibrated to.
    """

    evidence: int = 4
    patience: int = 360
    gallery: GalleryKind = "mean"
    half_life_days: float | None = None
    per_animal: int = 512
    decay_per_day: float = 0.0
    match: MatchPolicy | None = None

    def __post_init__(self) -> None:
        for name, least in (("evidence", 1), ("patience", 0), ("per_animal", 1), ("decay_per_day", 0)):
            if not getattr(self, name) >= least:
                raise ConfigError(f"identify.{name}", f"is {getattr(self, name):g}", f"{least} or more", "Correct it.")
        if self.half_life_days is not None and not self.half_life_days > 0:
            raise ConfigError(
                "identify.half_life_days", f"is {self.half_life_days}", "a number of days above 0", "Correct it."
            )

    def make_gallery(self) -> HeldGallery:
        """Begin to learn animals."""
        if self.gallery == "mean":
            return RunningMeans(self.half_life_days)
        return BoundedGallery(self.per_animal, self.decay_per_day)

    def completed_match(self) -> MatchPolicy:
        """Threshold, margin and size of the herd; the first two from the calibration where they are not given."""
        given, calibrated = self.match or MatchPolicy(), CALIBRATED[self.gallery]
        return replace(
            given,
            threshold=calibrated.threshold if given.threshold is None else given.threshold,
            margin=calibrated.margin if given.margin is None else given.margin,
        )
