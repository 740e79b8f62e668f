"""What a device can hold: its shared memory, less what is named as reserved, against what a system needs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from datamodules.recipes import shipped_recipes
from pl_distill.errors import ConfigError
from pl_distill.evaluation.typed_json import JsonTypeError, parse_dataclass

GIB = 2**30
PAPER_DEVICE_GB, PAPER_PEAK_GB, PAPER_HEADROOM_GB = 16.0, 6.49, 4.9
"""arXiv 2604.27128: Jetson Orin NX, peak VRAM of the student's system, and what is left."""


class EnvelopeError(ConfigError):
    """A system does not fit the device that it is meant for."""


@dataclass(frozen=True)
class Envelope:
    """A device; keys of ``configs/envelope/*.yaml``.

    Args:
        name: As it is sold.
        memory_gib: Shared by CPU and GPU.
        reserve_gib: What is never ours, by name, in GiB; each at least 0, together less than the memory.
        half_tflops: Dense float16 or bfloat16 with tensor cores, 10^12 operations a second; above 0.
        float_tflops: Float32 without tensor cores; above 0.
        bandwidth_gb_s: Of the memory, 10^9 bytes a second; above 0.
        sources: Where the figures are from.
    """

    name: str
    memory_gib: float
    reserve_gib: dict[str, float]
    half_tflops: float
    float_tflops: float
    bandwidth_gb_s: float
    sources: list[str]

    @property
    def reserved_gib(self) -> float:
        """All of the reserve."""
        return sum(self.reserve_gib.values())

    @property
    def budget_gib(self) -> float:
        """What is left for tensors."""
        return self.memory_gib - self.reserved_gib


@dataclass(frozen=True)
class Verdict:
    """Whether something fits.

    Args:
        device: Name.
        needed_gib: By the system.
        budget_gib: Of the device.
        largest: Name of the part that takes most, and its GiB.
    """

    device: str
    needed_gib: float
    budget_gib: float
    largest: tuple[str, float]

    @property
    def headroom_gib(self) -> float:
        """What is left; negative where it does not fit."""
        return self.budget_gib - self.needed_gib

    @property
    def fits(self) -> bool:
        """Whether it fits."""
        return self.headroom_gib >= 0

    def __str__(self) -> str:
        """Say it in a sentence."""
        if self.fits:
            return (
                f"{self.device}: {self.needed_gib:.2f} of {self.budget_gib:.2f} GiB, {self.headroom_gib:.2f} GiB left"
            )
        name, size = self.largest
        return (
            f"{self.device}: needs {self.needed_gib:.2f} GiB and has {self.budget_gib:.2f} GiB; "
            f"shrink the {name} first, {size:.2f} GiB of it"
        )

    def enforce(self) -> None:
        """Refuse what does not fit.

        Raises:
            EnvelopeError: It does not.
        """
        if not self.fits:
            name, size = self.largest
            raise EnvelopeError(
                self.device,
                f"would have to hold {self.needed_gib:.2f} GiB",
                f"at most its {self.budget_gib:.2f} GiB",
                f"Shrink the {name} first ({size:.2f} GiB), track fewer animals, or take a larger device.",
            )


def shipped_envelopes() -> list[str]:
    """Return the names that `load_envelope` knows."""
    return list(shipped_recipes("envelope"))


def load_envelope(name_or_path: str | Path) -> Envelope:
    """Read a device's profile.

    Args:
        name_or_path: The name of a shipped one, such as ``orin-nx-16gb``, or a YAML file.

    Raises:
        ConfigError: There is no such profile, or it is not one.
    """
    name = str(name_or_path)
    shipped = shipped_recipes("envelope")
    path = shipped.get(name, Path(name))
    if not path.is_file():
        known = ", ".join(shipped)
        raise ConfigError("device", f"is {name!r}", f"a YAML file or one of {known}", "Correct the name.")
    try:
        envelope = parse_dataclass(Envelope, yaml.safe_load(path.read_text(encoding="utf-8")), "")
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(name, f"is not YAML ({error})", "keys and values", "Correct the file.") from error
    except JsonTypeError as error:
        where = f"{name}, {error.key}" if error.key else name
        raise ConfigError(where, error.found, error.expected, "Correct the file.") from error
    _check_numbers(envelope, name)
    return envelope


def _check_numbers(envelope: Envelope, name: str) -> None:
    positive = {key: getattr(envelope, key) for key in ("memory_gib", "half_tflops", "float_tflops", "bandwidth_gb_s")}
    for key, value in positive.items():
        if not 0 < value < math.inf:
            raise ConfigError(f"{name}, {key}", f"is {value}", "a number above 0", "Correct the file.")
    for part, value in envelope.reserve_gib.items():
        if not 0 <= value < math.inf:
            raise ConfigError(f"{name}, reserve_gib.{part}", f"is {value}", "0 or more GiB", "Correct the file.")
    if envelope.budget_gib <= 0:
        found, expected = f"adds up to {envelope.reserved_gib:g} GiB", f"less than its {envelope.memory_gib:g} GiB"
        raise ConfigError(f"{name}, reserve_gib", found, expected, "Correct the file.")


def check(envelope: Envelope, parts_bytes: Mapping[str, int]) -> Verdict:
    """Compare what the parts of a system take together with a device's budget.

    Args:
        envelope: The device.
        parts_bytes: By name; they are alive at the same time.
    """
    largest = max(parts_bytes, key=lambda name: parts_bytes[name])
    needed = sum(parts_bytes.values()) / GIB
    return Verdict(envelope.name, needed, envelope.budget_gib, (largest, parts_bytes[largest] / GIB))


def paper_reserve_gb() -> float:
    """Return what the paper's figures leave for everything else on its device: 16 - 6.49 - 4.9."""
    return PAPER_DEVICE_GB - PAPER_PEAK_GB - PAPER_HEADROOM_GB
