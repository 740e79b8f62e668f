"""What the simulation says about each moment and the drawing needs to know: poses without pixels."""

from dataclasses import dataclass

from datamodules.pen.species import SPECIES, Species


@dataclass(frozen=True, slots=True)
class Body:
    """What stays the same about an animal for life.

    Args:
        name: Unique in the pen, the same on every day and in every clip.
        species: Key of `SPECIES`.
        length_m: From snout to rump when standing straight, in metres.
        girth: Factor on the species' width.
    """

    name: str
    species: str
    length_m: float
    girth: float

    @property
    def build(self) -> Species:
        """The proportions of the species."""
        return SPECIES[self.species]

    @property
    def half_width_m(self) -> float:
        """Half the width of the trunk in metres."""
        return self.build.half_width * self.girth * self.length_m

    @property
    def nose_m(self) -> float:
        """From the middle of the trunk to the snout, in metres."""
        return (1 - self.build.trunk / 2) * self.length_m


@dataclass(frozen=True, slots=True)
class Pose:
    """One animal at one moment. Angles are in radians, clockwise in the picture.

    Args:
        x: Middle of the trunk along the pen, in metres.
        y: The same across the pen.
        heading: Direction of the trunk there; 0 looks along x.
        bend: Curvature of the trunk in 1/m; positive bends the head to the right.
        head_yaw: Direction of the head against the front end of the trunk.
        head_low: 0 with the head level, 1 with the snout on the ground: the head is foreshortened.
        posture: Weight of each of `POSTURES`, sum 1; between two of them while the animal changes.
        side: 1 or -1: to which side the legs point when it lies on its side.
        gait: Phase of the legs.
        stride: 0 standing still to 1 at a run: how far the legs swing.
        swell: Relative change of the trunk's width by breathing.
        lift_m: How far the body is raised, in metres: an animal that mounts another.
        depth: Painting order; the animal with the larger value covers the other.
        behaviour: The raw label.
    """

    x: float
    y: float
    heading: float
    bend: float
    head_yaw: float
    head_low: float
    posture: tuple[float, float, float, float]
    side: int
    gait: float
    stride: float
    swell: float
    lift_m: float
    depth: float
    behaviour: str


@dataclass(frozen=True, slots=True)
class SceneState:
    """The pen at one moment.

    Args:
        index: Number of the video frame.
        time_s: Seconds since the first frame.
        poses: One per animal, in the order of the herd.
        toy_swing: Offset (x, y) of the toy from its rest, in metres.
    """

    index: int
    time_s: float
    poses: tuple[Pose, ...]
    toy_swing: tuple[float, float]
