"""How fast a training runs, what it waits for, and how much memory it takes."""

import time
from collections import deque
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from datamodules.batch import frames_in
from pl_distill.evaluation.memory import peak_rss_bytes

WINDOW = 20  # batches that a value is a mean of


class Throughput(Callback):
    """Log `perf/frames_per_second`, `perf/data_wait_share`, `perf/peak_rss_gib` and, on a GPU, `perf/peak_vram_gib`.

    Frames are those of all processes. The share of waiting, 0 to 1, is the time between two batches over all time: near
    0 the network is the limit, well above it the disk or the decoding. Validations are left out. Speed and waiting are
    means over the last 20 batches; memory is the peak since the process began, or with the callback PeakVRAM
    since its present phase began. All are of process 0.
    """

    def __init__(self) -> None:
        self._batches: deque[tuple[int, float, float]] = deque(maxlen=WINDOW)  # frames, seconds waited, seconds worked
        self._ended: float | None = None
        self._began = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew: the time since an earlier training is no waiting."""
        self._batches.clear()
        self._ended = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """The batch is there."""
        self._began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log what the last batches took."""
        now = time.perf_counter()
        if self._ended is not None:
            self._batches.append((frames_in(batch), self._began - self._ended, now - self._began))
            frames, waited, worked = (sum(column) for column in zip(*self._batches, strict=True))
            seconds = max(waited + worked, 1e-9)
            pl_module.log("perf/frames_per_second", trainer.world_size * frames / seconds)
            pl_module.log("perf/data_wait_share", waited / seconds)
        pl_module.log("perf/peak_rss_gib", peak_rss_bytes() / 2**30)
        if pl_module.device.type == "cuda":
            pl_module.log("perf/peak_vram_gib", torch.cuda.max_memory_allocated(pl_module.device) / 2**30)
        self._ended = now

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do not count the validation as waiting."""
        self._ended = None
