"""How much memory each phase of a run takes at most, on every process."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from datamodules.files import write_json
from pl_distill.evaluation.memory import peak_rss_bytes, reset_peaks

FILE = "peak_memory.json"
GIB = 2**30


class PeakVRAM(Callback):
    """Log peak memory of the phases fit, validation, test and prediction, each measured from its own beginning.

    On a GPU `memory/<phase>_allocated_gib` (tensors) and `memory/<phase>_reserved_gib` (what the allocator holds); on a
    CPU `memory/<phase>_rss_gib`, the resident set of the process, which is never called VRAM. Validation interrupts a
    fit and counts apart. With several processes the value is the largest, and `..._rank<n>` is each one's. At the end
    of a phase they go to the loggers and, as bytes, into `peak_memory.json` in the run's folder.

    `perf/peak_vram_gib` of the callback Throughput is the peak since the last phase began where both are used.

    Attributes:
        peaks_bytes: The largest so far on this process, by phase and quantity.
    """

    def __init__(self) -> None:
        self.peaks_bytes: dict[str, dict[str, int]] = {}
        self._phase: str | None = None
        self._interrupted: str | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget an earlier run."""
        self.peaks_bytes = {}
        self._phase = self._interrupted = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        self._enter("fit", pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, and remember what was interrupted."""
        interrupted = self._phase
        self._enter("validation", pl_module)
        self._interrupted = interrupted

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Publish, and go on with the fit."""
        self._publish(trainer, pl_module)
        self._enter(self._interrupted, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        self._enter("test", pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        self._enter("prediction", pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Publish."""
        self._publish(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Publish."""
        self._publish(trainer, pl_module)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Publish."""
        self._publish(trainer, pl_module)

    def _enter(self, phase: str | None, pl_module: LightningModule) -> None:
        """Note what the phase before has taken, and begin to measure anew."""
        self._note(pl_module.device)
        self._phase = phase
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)
        else:
            reset_peaks()

    def _note(self, device: torch.device) -> None:
        if self._phase is None:
            return
        peaks = self.peaks_bytes.setdefault(self._phase, {})
        for name, value in _read(device).items():
            peaks[name] = max(peaks.get(name, 0), value)

    def _publish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._note(pl_module.device)
        names = [(phase, name) for phase, peaks in self.peaks_bytes.items() for name in peaks]
        here = torch.tensor([self.peaks_bytes[phase][name] for phase, name in names], dtype=torch.int64)
        # (ranks, values); float32 would round bytes
        ranks = trainer.strategy.all_gather(here.to(pl_module.device)).reshape(trainer.world_size, -1).cpu()
        if not trainer.is_global_zero:
            return
        metrics: dict[str, float] = {}
        content: dict[str, dict[str, Any]] = {}
        for column, (phase, name) in enumerate(names):
            values = [int(value) for value in ranks[:, column]]
            metrics[f"memory/{phase}_{name}_gib"] = max(values) / GIB
            if len(values) > 1:
                metrics |= {f"memory/{phase}_{name}_gib_rank{rank}": value / GIB for rank, value in enumerate(values)}
            content.setdefault(phase, {})[f"{name}_bytes"] = {"largest": max(values), "ranks": values}
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step)
        write_json(Path(trainer.default_root_dir) / FILE, {"schema": 1, "phases": content})


def _read(device: torch.device) -> dict[str, int]:
    if device.type == "cuda":
        return {
            "allocated": torch.cuda.max_memory_allocated(device),
            "reserved": torch.cuda.max_memory_reserved(device),
        }
    return {"rss": peak_rss_bytes()}
