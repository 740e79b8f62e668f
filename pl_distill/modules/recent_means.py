"""Means of a loss's terms over the last steps, for its curves."""

from collections import defaultdict, deque
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

# The pyramids' terms are of few images: those of single steps would show the images.
WINDOW = 20


class RecentMeans:
    """Means of the last `WINDOW` values of each term."""

    def __init__(self) -> None:
        self._values: dict[str, deque[Tensor]] = defaultdict(partial(deque, maxlen=WINDOW))

    def add(self, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Take the terms of one step, and return the mean of every term that was ever given."""
        for name, term in terms.items():
            self._values[name].append(term.detach())
        return {name: torch.stack(list(values)).mean() for name, values in self._values.items()}
