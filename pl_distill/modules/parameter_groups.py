"""Which parameters of a network an optimiser draws towards zero."""

from typing import Any

from torch import nn


def parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Split parameters for the optimiser: matrices and kernels decay; norms, biases and bias tables do not."""
    named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    decays = {name for name, parameter in named if parameter.ndim > 1 and not name.endswith("attention_biases")}
    return [
        {"params": [parameter for name, parameter in named if name in decays]},
        {"params": [parameter for name, parameter in named if name not in decays], "weight_decay": 0.0},
    ]
