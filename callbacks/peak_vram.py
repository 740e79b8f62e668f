"""How much memory each phase of a run takes at most, on every process."""

import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.resumed_curves import last_step
from datamodules.files import write_json
from pl_distill.evaluation.memory import PhaseMeter
from pl_distill.evaluation.tables import ReportTable, write_report_table

FILE = "peak_memory.json"
GIB = 2**30


class PeakVRAM(Callback):
    """Log peak memory of the phases fit, validation, test and prediction, each measured from its own beginning.

    On a GPU `memory/<phase>_allocated_gib` (tensors) and `memory/<phase>_reserved_gib` (what the allocator holds); on a
    CPU `memory/<phase>_rss_gib`, the resident set of the process, which is never called VRAM. Validation interrupts a
    fit and counts apart. With several processes the value is the largest, and `..._rank<n>` is each one's. At the end
    of a phase they go to the loggers and, as bytes, into `peak_memory.json` in the run's folder, where phases of an
    earlier verb stay; beside it lies their table, which `pl-distill report --extras=[RUN]` shows.

    Streaming is no phase of Lightning: `evaluate` and `track` measure it with the same `PhaseMeter` and write it into
    their results.json and run.json.

    `perf/peak_vram_gib` and `perf/peak_rss_gib` of the callback Throughput are peaks since the last phase began
    where both are used.
    """

    def __init__(self) -> None:
        self._meter = PhaseMeter()
        self._interrupted: str | None = None

    @property
    def peaks_bytes(self) -> dict[str, dict[str, int]]:
        """The largest so far on this process, by phase and quantity."""
        return self._meter.peaks_bytes

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget an earlier run."""
        self._meter = PhaseMeter()
        self._interrupted = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        self._meter.enter("fit", pl_module.device)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, and remember what was interrupted."""
        interrupted = self._meter.phase
        self._meter.enter("validation", pl_module.device)
        self._interrupted = interrupted

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Publish, and go on with the fit."""
        self._publish(trainer, pl_module)
        self._meter.enter(self._interrupted, pl_module.device)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        self._meter.enter("test", pl_module.device)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        self._meter.enter("prediction", pl_module.device)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Publish."""
        self._publish(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Publish."""
        self._publish(trainer, pl_module)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Publish."""
        self._publish(trainer, pl_module)

    def _publish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._meter.note(pl_module.device)
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
            logger.log_metrics(metrics, step=last_step(trainer))
        path = Path(trainer.default_root_dir) / FILE
        phases = _read_phases(path) | content
        write_json(path, {"schema": 1, "phases": phases})
        write_report_table(path.parent, path.stem, _report_table(phases))


def _read_phases(path: Path) -> dict[str, dict[str, Any]]:
    """Return what another verb has measured in this folder; nothing where the file is none of ours."""
    try:
        phases = json.loads(path.read_text(encoding="utf-8"))["phases"]
        return {
            phase: {name: {"largest": int(one["largest"]), "ranks": one["ranks"]} for name, one in peaks.items()}
            for phase, peaks in phases.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _report_table(phases: dict[str, dict[str, Any]]) -> ReportTable:
    names = list(dict.fromkeys(name for peaks in phases.values() for name in peaks))
    rows = [
        [phase, *(f"{peaks[name]['largest'] / GIB:.2f}" if name in peaks else "-" for name in names)]
        for phase, peaks in phases.items()
    ]
    text = (
        "Each phase from its own beginning, the largest of all processes. On a GPU allocated is what tensors take and "
        "reserved what the allocator holds; on a CPU rss is the resident set of a process. Written by `PeakVRAM`."
    )
    return ReportTable(
        "Peak memory of the run, by phase",
        text,
        ["phase", *(f"{name.removesuffix('_bytes')}, GiB" for name in names)],
        rows,
    )
