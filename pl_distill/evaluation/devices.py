"""Where a model runs."""

import torch

from pl_distill.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """Return the device of that name; ``auto`` is the GPU where there is one.

    Raises:
        ConfigError: torch has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was compiled with CUDA
        raise ConfigError(
            "device",
            f"is {name!r}, which torch refuses ({str(error).splitlines()[0]})",
            "auto, cpu or cuda",
            "Correct it.",
        ) from error
    return device


def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 itself; where it is emulated, it is slower than float32."""
    able = torch.cpu.get_capabilities()
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
