"""The animals of a pen: who they are, for life."""

from datamodules.pen.config import PenConfig
from datamodules.pen.seeds import generator
from datamodules.pen.state import Body


def make_herd(config: PenConfig, seed: int) -> tuple[Body, ...]:
    """Give the animals of a pen; they depend on the seed and their number only: no day and no camera changes them."""
    herd = []
    for number in range(config.num_animals):
        rng = generator(seed, "animal", number)
        length = config.body_length_m * float(rng.uniform(0.92, 1.08))
        herd.append(Body(f"{config.species}-{number + 1:02d}", config.species, length, float(rng.uniform(0.92, 1.10))))
    return tuple(herd)
