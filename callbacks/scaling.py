"""How well a training runs on several processes, and which of them the others wait for."""

import logging
import socket
import statistics
import time
from collections import deque
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from datamodules.batch import frames_in
from pl_distill.errors import ConfigError

log = logging.getLogger(__name__)


class Scaling(Callback):
    """Log `perf/frames_per_second_per_device`, `perf/scaling_efficiency` and `perf/straggler_ratio`; name stragglers.

    The time of a whole step says nothing about a single process: all end it together, in a collective. What a process
    does alone is to fetch its batch and to run the forward pass; the ratio is that time of the slowest process over the
    median of all. A process above `straggler_ratio` is named with its host in the log, and whether fetching or
    computing takes it so long. On a GPU the forward pass is measured by CUDA's events, since the host runs ahead.

    Args:
        single_device_frames_per_second: What one process alone reaches with the same batch size, from the curve
            `perf/frames_per_second` of a run with `trainer.devices` 1. Efficiency is the rate per device over this;
            without it, it is not logged.
        every_n_steps: Batches between two looks; each exchanges three numbers per process.
        straggler_ratio: Times the median from which a process is named.

    Raises:
        ConfigError: A number is out of its range.
    """

    def __init__(
        self,
        single_device_frames_per_second: float | None = None,
        every_n_steps: int = 50,
        straggler_ratio: float = 1.5,
    ) -> None:
        single = single_device_frames_per_second
        if (single is not None and single <= 0) or every_n_steps < 1 or straggler_ratio <= 1:
            found = f"has {single} frames per second, every {every_n_steps} steps, ratio {straggler_ratio}"
            raise ConfigError("Scaling", found, "positive numbers and a ratio above 1", "Correct them.")
        self.single_device_frames_per_second = single
        self.every_n_steps = every_n_steps
        self.straggler_ratio = straggler_ratio
        self._hosts: list[str] = []
        self._fetches: deque[float] = deque(maxlen=every_n_steps)
        self._forwards: list[Any] = []
        self._events: tuple[Any, Any] | None = None
        self._ended: float | None = None
        self._began = self._paused = 0.0
        self._window = (0.0, 0)  # when it began, frames of this process in it

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask every process where it runs."""
        self._hosts = [socket.gethostname()] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(self._hosts, socket.gethostname())
        self._fetches.clear()
        self._forwards.clear()
        self._ended = None
        self._window = (time.perf_counter(), 0)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """The batch is there."""
        self._began = time.perf_counter()
        if self._ended is not None:
            self._fetches.append(self._began - self._ended)
        if pl_module.device.type == "cuda":
            event: Any = torch.cuda.Event
            self._events = (event(enable_timing=True), event(enable_timing=True))
            self._events[0].record()

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """The forward pass is over, or on its way."""
        if self._events is not None:
            self._events[1].record()
            self._forwards.append(self._events)
        else:
            self._forwards.append(time.perf_counter() - self._began)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Compare the processes now and then."""
        began, frames = self._window
        self._window = (began, frames + frames_in(batch))
        if len(self._forwards) >= self.every_n_steps:
            self._compare(trainer, pl_module)
            self._forwards.clear()
            self._window = (time.perf_counter(), 0)
        self._ended = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember since when training stands still."""
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the validation out of the times; the batches before it still count."""
        self._ended = None
        began, frames = self._window
        self._window = (began + time.perf_counter() - self._paused, frames)

    def _compare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._events is not None:
            torch.cuda.synchronize(pl_module.device)
            forward = statistics.fmean(start.elapsed_time(end) / 1e3 for start, end in self._forwards)
        else:
            forward = statistics.fmean(self._forwards)
        fetch = statistics.fmean(self._fetches) if self._fetches else 0.0
        began, frames = self._window
        rate = frames / max(time.perf_counter() - began, 1e-9)
        mine = torch.tensor([fetch, forward, rate], dtype=torch.float64, device=pl_module.device)
        everyone = trainer.strategy.all_gather(mine)
        assert isinstance(everyone, Tensor)
        table = everyone.reshape(-1, 3).tolist()
        mean_rate = statistics.fmean(row[2] for row in table)
        pl_module.log("perf/frames_per_second_per_device", mean_rate, rank_zero_only=True)
        if self.single_device_frames_per_second is not None:
            efficiency = mean_rate / self.single_device_frames_per_second
            pl_module.log("perf/scaling_efficiency", efficiency, rank_zero_only=True)
        ratio, names = stragglers([(row[0], row[1]) for row in table], self._hosts, self.straggler_ratio)
        pl_module.log("perf/straggler_ratio", ratio, rank_zero_only=True)
        if names and trainer.is_global_zero:
            log.warning("step %d: the others wait for %s", trainer.global_step, "; ".join(names))


def stragglers(times: list[tuple[float, float]], hosts: list[str], ratio: float) -> tuple[float, list[str]]:
    """Find the processes that take much longer than the median.

    Args:
        times: Seconds per batch of each process, to fetch it and for the forward pass.
        hosts: Where each runs.
        ratio: Times the median from which one is named.

    Returns:
        The slowest's ratio to the median, and a line for each process from `ratio` on, the slowest first.
    """
    totals = [max(sum(one), 1e-9) for one in times]
    # the lower of two middle ones: of two processes the slower must not be half of its own yardstick
    median = statistics.median_low(totals)
    fetches, forwards = (statistics.median_low(column) for column in zip(*times, strict=True))
    lines = []
    for total, rank in sorted(((total, rank) for rank, total in enumerate(totals)), reverse=True):
        if total >= ratio * median:
            fetch, forward = times[rank]
            cause = "fetching" if fetch - fetches > forward - forwards else "computing"
            lines.append(
                f"process {rank} on {hosts[rank]}: {total / median:.1f} times the median, {cause} "
                f"({fetch * 1e3:.0f} ms to fetch, {forward * 1e3:.0f} ms forward)"
            )
    return max(totals) / median, lines
