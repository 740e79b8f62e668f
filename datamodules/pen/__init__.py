"""The drawn pen: clips in the Edinburgh layout, made from a seed.

`draw_pen` writes clips, `pen_frames` gives pictures in memory. `simulate` is the life of the herd without pixels,
`PenRenderer` paints it. Seeds of 1,000,000 and above are for evaluation: what trains on pens refuses them.
"""

from datamodules.pen.ageing import Age, Year
from datamodules.pen.config import PenConfig, load_pen_config
from datamodules.pen.frame import FURNITURE, PenFrame
from datamodules.pen.renderer import PenRenderer, pen_frames
from datamodules.pen.seeds import EVALUATION_SEED
from datamodules.pen.simulation import simulate
from datamodules.pen.state import Body, Pose, SceneState
from datamodules.pen.writer import draw_pen

__all__ = [
    "EVALUATION_SEED",
    "FURNITURE",
    "Age",
    "Body",
    "PenConfig",
    "PenFrame",
    "PenRenderer",
    "Pose",
    "SceneState",
    "Year",
    "draw_pen",
    "load_pen_config",
    "pen_frames",
    "simulate",
]
