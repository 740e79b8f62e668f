"""A pinhole camera over the pen: metres to pixels."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from datamodules.pen.config import PenConfig

Points = NDArray[np.float64]
"""Coordinates, shape (..., 2) or (..., 3), in metres or pixels as the name says."""


@dataclass(frozen=True)
class Camera:
    """Looks down on the pen, tilted about the pen's long axis.

    Args:
        width: Pixels.
        height: Pixels.
        focal_px: Focal length in pixels.
        position: Place of the lens (x, y, z) in metres.
        tilt: Angle between the optical axis and the vertical in radians, towards positive y.
    """

    width: int
    height: int
    focal_px: float
    position: tuple[float, float, float]
    tilt: float

    @classmethod
    def of(cls, config: PenConfig) -> Self:
        """Place the camera so that its axis meets the floor at the aim, where the picture is `view_width_m` wide."""
        tilt = float(np.deg2rad(config.camera_tilt_deg))
        height_m = config.camera_height_m
        focal_px = config.width * (height_m / np.cos(tilt)) / config.view_width_m
        y = config.camera_aim_y_m - height_m * np.tan(tilt)
        return cls(config.width, config.height, float(focal_px), (config.camera_aim_x_m, float(y), height_m), tilt)

    def project(self, points_m: Points) -> Points:
        """Map places (..., 3) in metres to pixels (..., 2); pixel (0, 0) is the centre of the top left one."""
        x, y, z = (points_m[..., axis] - self.position[axis] for axis in range(3))
        cos, sin = np.cos(self.tilt), np.sin(self.tilt)
        depth = np.maximum(y * sin - z * cos, 0.05)
        return np.stack(
            (
                self.focal_px * x / depth + (self.width - 1) / 2,
                self.focal_px * (y * cos + z * sin) / depth + (self.height - 1) / 2,
            ),
            axis=-1,
        )

    def floor_at(self, x: float, y: float, z: float) -> NDArray[np.float64]:
        """Linearise the view of the plane at height `z` around (x, y).

        Returns:
            A (2, 3) matrix that maps (column, row, 1) in pixels to x and y in metres, exact at that place.
        """
        step = 0.05
        centre, along, across = self.project(np.array([(x, y, z), (x + step, y, z), (x, y + step, z)]))
        jacobian = np.stack((along - centre, across - centre), axis=1) / step
        inverse = np.linalg.inv(jacobian)
        return np.concatenate((inverse, (np.array((x, y)) - inverse @ centre)[:, None]), axis=1)
