"""A year in the pen: animals grow, their coats fade and get dirty, the light follows the seasons.

`Year` says how much; `Year.on` gives the state of one day, which `PenRenderer` draws. Without it nothing changes: every
domain draws the pixels that it drew before.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from datamodules.pen.coats import ALONG, AROUND, FAMILIES, CoatOf, Skin
from datamodules.pen.config import Coat, PenConfig
from datamodules.pen.seeds import generator
from datamodules.pen.state import Body

_DUNG = np.array((74, 60, 46), np.float32)
_PATCH_DAYS = 12.0  # how long a cake of dung stays, more or less


@dataclass(frozen=True)
class Year:
    """How a pen changes with the days. The defaults are pigs from 30 kg on.

    Args:
        young: Length on the first day, relative to the grown animal.
        growing_days: Days in which two thirds of what is missing are grown.
        dirt: How much of the skin dung covers on the dirtiest days, 0 to 1.
        fading: How much of their contrast the marks lose in a year, 0 to 1: the winter coat grows over them.
        summer: By how much more light there is in summer than in winter, relative to the mean.
        weather: How much the light differs from day to day, relative to the mean.
    """

    young: float = 0.72
    growing_days: float = 110.0
    dirt: float = 0.45
    fading: float = 0.35
    summer: float = 0.35
    weather: float = 0.12

    def on(self, day: int, seed: int) -> "Age":
        """Give the state of a day, counted from 0, the first of January."""
        rng = generator(seed, "weather", day)
        season = float(-np.cos(2 * np.pi * (day - 10) / 365))
        missing = (1 - self.young) * float(np.exp(-day / self.growing_days))
        cloud = float(rng.normal(0, self.weather))
        return Age(
            day=day,
            growth=1 - missing,
            dirt=self.dirt,
            fading=self.fading * float(np.clip(day / 365, 0, 1)),
            brightness=float(np.clip(1 + self.summer / 2 * season + cloud, 0.4, 1.5)),
            warmth=float(np.clip(0.15 * season + rng.normal(0, 0.1), -0.5, 0.5)),
        )


@dataclass(frozen=True)
class Age:
    """The state of a pen on one day.

    Args:
        day: From 0.
        growth: Length of the animals, relative to grown ones.
        dirt: How much of the skin dung covers on the dirtiest days, 0 to 1.
        fading: How much of their contrast the marks have lost, 0 to 1.
        brightness: Factor on the light of the domain.
        warmth: Added to its colour.
    """

    day: int
    growth: float = 1.0
    dirt: float = 0.0
    fading: float = 0.0
    brightness: float = 1.0
    warmth: float = 0.0

    def lit(self, config: PenConfig) -> PenConfig:
        """Give the domain in this day's light."""
        brightness = float(np.clip(config.brightness * self.brightness, 0.05, 2.0))
        return replace(config, brightness=brightness, warmth=float(np.clip(config.warmth + self.warmth, -1, 1)))

    def grown(self, herd: tuple[Body, ...]) -> tuple[Body, ...]:
        """Give the herd at its size of this day."""
        return tuple(replace(body, length_m=body.length_m * self.growth) for body in herd)

    def worn(self, coat: CoatOf, family: Coat, seed: int, number: int) -> CoatOf:
        """Give the coat of animal `number` as it looks on this day."""
        return replace(
            coat,
            trunk=self._soil(self._fade(coat.trunk, family), seed, number, "trunk"),
            head=self._soil(self._fade(coat.head, family), seed, number, "head"),
        )

    def _fade(self, skin: Skin, family: Coat) -> Skin:
        """Hair grows over the marks: every place moves towards the coat's base colour."""
        base = np.median(skin.reshape(-1, 3), axis=0)  # marks cover less than half
        hair = 0.5 * base + 0.5 * np.array(FAMILIES[family].base) * (base.mean() / np.mean(FAMILIES[family].base))
        return np.asarray(skin + self.fading * (hair - skin), np.float32)

    def _soil(self, skin: Skin, seed: int, number: int, part: str) -> Skin:
        """Cakes of dung that come and go within weeks: two fields of chance, blended over their time."""
        if not self.dirt:
            return skin
        clock = self.day / _PATCH_DAYS + generator(seed, "cakes", number).uniform()
        before, share = int(clock), clock - int(clock)
        field = sum(
            weight * self._field(seed, number, part, before + step) for step, weight in ((0, 1 - share), (1, share))
        )
        field = field / np.sqrt((1 - share) ** 2 + share**2)
        load = generator(seed, "dirty", number, before).uniform(0.1, 1.0)  # cleaner and dirtier fortnights
        cover = 0.8 * np.clip((field - 1.3 + 1.6 * self.dirt * load) / 0.8, 0, 1)
        return np.asarray(skin + cover[..., None] * (_DUNG - skin), np.float32)

    @staticmethod
    def _field(seed: int, number: int, part: str, cake: int) -> Skin:
        chance = generator(seed, "cake", number, part, cake).normal(0, 1, (AROUND, ALONG)).astype(np.float32)
        soft = cv2.GaussianBlur(chance, (0, 0), 7)
        return np.asarray(soft / soft.std(), np.float32)
