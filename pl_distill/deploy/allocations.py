"""Bytes of all tensors that are alive while a piece of code runs, and their peak; real tensors or fake ones.

Like torch.distributed._tools.mem_tracker (`MemTracker`), which finds the same peaks (a test compares them). What
differs: nothing is sorted by module, which makes it twelve times as fast, and operators that torch hands over whole
under `torch.inference_mode` are taken apart, so that what they allocate inside counts, too.
"""

import weakref
from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
CUDA_BLOCK = 512  # bytes; CUDA's caching allocator rounds every tensor up to it (c10/cuda/CUDACachingAllocator.h)


class AllocationTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    """Count the storages of tensors that are made while the mode is on, each once, until they are freed.

    Attributes:
        live_bytes: Of the storages that are alive now.
        peak_bytes: The most that were alive since the start or the last `reset_peak`.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live_bytes = 0
        self.peak_bytes = 0
        self._sizes: dict[int, int] = {}

    def hold(self, *things: nn.Module | Tensor) -> None:
        """Count tensors that were made before, such as a model's weights and buffers."""
        for thing in things:
            tensors: Iterable[Tensor] = [thing] if isinstance(thing, Tensor) else _tensors(thing)
            for tensor in tensors:
                self._count(tensor)

    def reset_peak(self) -> None:
        """Begin a new phase: the peak is what is alive now."""
        self.peak_bytes = self.live_bytes

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operator and count what it gave."""
        if _is_composite(func):
            with self:  # the C++ kernel: Python's decompositions, which `decompose` prefers, allocate more than it does
                output = func._op_dk(_COMPOSITE, *args, **(kwargs or {}))
        else:
            output = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return output

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._sizes:
            return
        block = CUDA_BLOCK if tensor.device.type == "cuda" else 1
        self._sizes[key] = -(-storage.nbytes() // block) * block
        weakref.finalize(storage, self._forget, key)
        self.live_bytes += self._sizes[key]
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def _forget(self, key: int) -> None:
        self.live_bytes -= self._sizes.pop(key)


def _tensors(module: nn.Module) -> Iterable[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


@cache
def _is_composite(func: Any) -> bool:
    return func.namespace == "aten" and bool(
        torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")
    )
