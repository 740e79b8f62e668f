"""Operations and traffic of every operator, and the roofline that a device puts over them.

Source: Williams, Waterman and Patterson, "Roofline" (CACM 2009): an operator takes at least its operations over the
device's speed, and at least its bytes over the device's bandwidth. Operations are those of torch's `FlopCounterMode`
(matrix products, convolutions, attention; two per multiply-add); bytes are those of what it reads and writes. Launches,
Python and the work of the CPU are not in it, nor is fusion: it is an estimate, not a speed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True)
class Operator:
    """What one call does.

    Args:
        operations: Floating-point operations.
        traffic: Bytes that it reads and writes.
    """

    operations: int
    traffic: int


class OperatorCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    """Note every operator that runs while the mode is on; enter it before an `AllocationTracker`.

    Attributes:
        operators: What was noted since the start or the last `clear`.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators: list[Operator] = []

    def clear(self) -> None:
        """Begin anew."""
        self.operators = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operator and note it; a view costs nothing."""
        output = func(*args, **(kwargs or {}))
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        written = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        sources = {tensor.untyped_storage()._cdata for tensor in read}
        is_view = not func._schema.is_mutable and all(tensor.untyped_storage()._cdata in sources for tensor in written)
        if written and not is_view:
            formula = flop_registry.get(func._overloadpacket)
            operations = 0 if formula is None else int(formula(*args, **(kwargs or {}), out_val=output))
            self.operators.append(Operator(operations, sum(map(_bytes, [*read, *written]))))
        return output


def operations(operators: Iterable[Operator]) -> int:
    """Add up floating-point operations."""
    return sum(operator.operations for operator in operators)


def roofline_s(operators: Iterable[Operator], flops_per_s: float, bytes_per_s: float) -> float:
    """Return the least seconds in which a device can do these operators one after the other."""
    return sum(max(one.operations / flops_per_s, one.traffic / bytes_per_s) for one in operators)


def _bytes(tensor: Tensor) -> int:
    """Return what a read of the tensor moves: a value that is repeated by `expand` comes once."""
    moved = tensor.element_size()
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        moved *= size if stride else 1
    return moved
