import json

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from callbacks.jetson_envelope import JetsonEnvelope
from callbacks.peak_vram import FILE, GIB, PeakVRAM
from pl_distill.errors import ConfigError
from pl_distill.evaluation.tables import read_report_tables

MIB = 2**20


class Hungry(LightningModule):
    """Holds some memory in a step of the fit, and some other in a step of the validation, in MiB."""

    def __init__(self, fit: int, validation: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.sizes = {"fit": fit, "validation": validation}

    def _eat(self, phase):
        return torch.ones(self.sizes[phase] * MIB // 4).sum() * 0

    def training_step(self, batch, batch_idx):
        return self.weight**2 + self._eat("fit")

    def validation_step(self, batch, batch_idx):
        self._eat("validation")

    def predict_step(self, batch, batch_idx):
        self._eat("validation")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(folder, *callbacks):
    return Trainer(
        accelerator="cpu", max_epochs=1, callbacks=list(callbacks), logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder, num_sanity_val_steps=0,
    )  # fmt: skip


def loader():
    return torch.utils.data.DataLoader(torch.zeros(2, 1))


@pytest.mark.parametrize(("fit", "validation"), [(300, 1), (1, 300)])
def test_each_phase_has_its_own_peak(tmp_path, fit, validation):
    monitor = PeakVRAM()
    trainer(tmp_path, monitor).fit(Hungry(fit, validation), loader(), loader())
    peaks = {phase: found["rss"] for phase, found in monitor.peaks_bytes.items()}
    assert set(peaks) == {"fit", "validation"}
    difference = (peaks["fit"] - peaks["validation"]) / MIB
    assert difference > 200 if fit > validation else difference < -200
    content = json.loads((tmp_path / FILE).read_text())
    assert content["phases"]["fit"]["rss_bytes"] == {"largest": peaks["fit"], "ranks": [peaks["fit"]]}


def test_a_cpu_is_never_said_to_have_vram(tmp_path):
    monitor = PeakVRAM()
    trainer(tmp_path, monitor).predict(Hungry(1, 1), loader())
    assert "vram" not in (tmp_path / FILE).read_text().lower()
    assert list(monitor.peaks_bytes) == ["prediction"]


class Gpu:
    """Statistics of a GPU that are set by hand; a reset forgets the peak."""

    def __init__(self, monkeypatch) -> None:
        self.allocated = self.reserved = 0
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: self.allocated)
        monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: self.reserved)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: self.take(0, 0))  # nothing is held

    def take(self, allocated, reserved):
        self.allocated, self.reserved = max(allocated, 0), max(reserved, 0)


class Ranks:
    """What two processes gather; the other one has taken twice as much."""

    world_size, global_step, is_global_zero = 2, 7, True

    def __init__(self, folder) -> None:
        self.default_root_dir, self.strategy, self.loggers, self.logged = folder, self, [self], {}

    def all_gather(self, values):
        assert values.dtype == torch.int64
        return torch.stack([values, 2 * values])

    def log_metrics(self, metrics, step):
        self.logged = metrics


class OnGpu:
    device = torch.device("cuda", 0)


def test_statistics_of_gpus_are_the_largest_of_all_ranks(tmp_path, monkeypatch):
    gpu, run, module, monitor = Gpu(monkeypatch), Ranks(tmp_path), OnGpu(), PeakVRAM()
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *_: self)
    gpu.take(9 * GIB, 9 * GIB)  # before the run
    monitor.on_fit_start(run, module)
    gpu.take(3 * GIB, 4 * GIB)
    monitor.on_validation_start(run, module)
    gpu.take(1 * GIB, 2 * GIB)
    monitor.on_validation_end(run, module)
    gpu.take(2 * GIB, 2 * GIB)  # less than before the validation
    monitor.on_fit_end(run, module)
    assert monitor.peaks_bytes == {
        "fit": {"allocated": 3 * GIB, "reserved": 4 * GIB},
        "validation": {"allocated": GIB, "reserved": 2 * GIB},
    }
    assert run.logged["memory/fit_allocated_gib"] == 6
    assert run.logged["memory/fit_allocated_gib_rank0"] == 3
    assert run.logged["memory/fit_reserved_gib_rank1"] == 8
    assert run.logged["memory/validation_allocated_gib"] == 2


def test_the_report_gets_a_table_that_keeps_the_phases_of_an_earlier_verb(tmp_path):
    gpu = {"fit": {"allocated_bytes": {"largest": 3 * GIB, "ranks": [3 * GIB, GIB]}}}
    (tmp_path / FILE).write_text(json.dumps({"schema": 1, "phases": gpu}))
    monitor = PeakVRAM()
    trainer(tmp_path, monitor).predict(Hungry(1, 1), loader())
    (table,) = read_report_tables([tmp_path])
    assert table.columns == ["phase", "allocated, GiB", "rss, GiB"]
    peak = f"{monitor.peaks_bytes['prediction']['rss'] / GIB:.2f}"
    assert table.rows == [["fit", "3.00", "-"], ["prediction", "-", peak]]


@pytest.mark.parametrize("content", ["", "[]", '{"phases": 3}', '{"phases": {"fit": {"rss_bytes": 7}}}'])
def test_a_file_of_something_else_is_replaced(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    trainer(tmp_path, PeakVRAM()).predict(Hungry(1, 1), loader())
    assert list(json.loads((tmp_path / FILE).read_text())["phases"]) == ["prediction"]


def test_an_envelope_wants_somebody_who_measures(tmp_path):
    with pytest.raises(ConfigError, match="nobody who measures memory"):
        trainer(tmp_path, JetsonEnvelope()).predict(Hungry(1, 1), loader())
    with pytest.raises(ConfigError, match="has PeakVRAM behind JetsonEnvelope"):
        trainer(tmp_path, JetsonEnvelope(), PeakVRAM()).predict(Hungry(1, 1), loader())


def test_an_envelope_has_nothing_to_predict_where_nothing_is_distilled(tmp_path):
    with pytest.raises(ConfigError, match="JetsonEnvelope: is used in a fit of Hungry"):
        trainer(tmp_path, PeakVRAM(), JetsonEnvelope()).fit(Hungry(1, 1), loader())


def toy(tmp_path, gib):
    path = tmp_path / "toy.yaml"
    path.write_text(
        f"{{name: Toy, memory_gib: {gib}, reserve_gib: {{}}, half_tflops: 1.0, float_tflops: 1.0, "
        "bandwidth_gb_s: 1.0, sources: []}",
        encoding="utf-8",
    )
    return str(path)


def test_what_was_measured_fails_a_run_that_is_too_large(tmp_path):
    run = trainer(tmp_path, PeakVRAM(), JetsonEnvelope(toy(tmp_path, 0.01), action="fail"))
    with pytest.raises(ConfigError, match="Toy: would have to hold"):
        run.predict(Hungry(1, 1), loader())


def test_a_validation_of_its_own_is_judged_as_well(tmp_path):
    run = trainer(tmp_path, PeakVRAM(), JetsonEnvelope(toy(tmp_path, 0.01), action="fail"))
    with pytest.raises(ConfigError, match="Toy: would have to hold"):
        run.validate(Hungry(1, 1), loader(), verbose=False)


def test_what_the_training_held_beside_the_validation_never_ends_a_fit(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(JetsonEnvelope, "on_fit_start", lambda *_: None)  # nothing here that could be predicted
    run = trainer(tmp_path, PeakVRAM(), JetsonEnvelope(toy(tmp_path, 0.01), action="fail"))
    run.fit(Hungry(1, 1), loader(), loader())
    assert "measured: Toy: needs" in caplog.text


def test_what_was_measured_only_warns_where_it_shall(tmp_path, caplog):
    run = trainer(tmp_path, PeakVRAM(), JetsonEnvelope(toy(tmp_path, 0.01)))
    run.predict(Hungry(1, 1), loader())
    assert "measured: Toy: needs" in caplog.text
    assert "shrink the prediction first" in caplog.text
