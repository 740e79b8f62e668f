"""SAM 3 as this project uses it: the public names; each idea has a file of its own beside this one."""

from pl_distill.models.sam3_config import Sam3Geometry, load_sam3_config, meta_sam3, shipped_configs
from pl_distill.models.sam3_identity import read_sam3_sha256, read_trunk_sha256, trunk_settings, trunk_sha256
from pl_distill.models.sam3_load import (
    load_config,
    load_preprocessing,
    load_sam3,
    read_geometry,
    trunk_map,
)
from pl_distill.models.sam3_necks import Necks, Pyramids, load_necks
from pl_distill.models.sam3_random import write_random_sam3
from pl_distill.models.sam3_substitute import TrunkAdapter, check_map, shallow_twin, substitute

__all__ = [
    "Necks",
    "Pyramids",
    "Sam3Geometry",
    "TrunkAdapter",
    "check_map",
    "load_config",
    "load_necks",
    "load_preprocessing",
    "load_sam3",
    "load_sam3_config",
    "meta_sam3",
    "read_geometry",
    "read_sam3_sha256",
    "read_trunk_sha256",
    "shallow_twin",
    "shipped_configs",
    "substitute",
    "trunk_map",
    "trunk_settings",
    "trunk_sha256",
    "write_random_sam3",
]
