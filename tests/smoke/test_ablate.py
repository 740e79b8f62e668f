"""`pl-distill ablate` on a grid as small as one can be: extended by an arm, killed in it, and started again."""

import fcntl
import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from datamodules.layouts import read_clips
from datamodules.pen import EVALUATION_SEED, draw_pen, load_pen_config
from datamodules.shards import write_shards
from datamodules.splits import load_split
from pl_distill.cli import main
from pl_distill.code_state import code_sha256
from pl_distill.commands.ablate import DECIDING
from pl_distill.commands.parsing import find_recipe
from pl_distill.models.sam3 import write_random_sam3
from pl_distill.modules.distillation import DistillationModule

pytestmark = pytest.mark.smoke


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """The options of a cache of one training and one validation clip, with two more clips to score."""
    root = tmp_path_factory.mktemp("ablate")
    pen = replace(load_pen_config("day"), width=160, height=90)
    draw_pen(root / "clips", pen, days=["2026_01_01", "2026_01_21"], clips_per_day=1, frames_per_clip=4, seed=0)
    days = ["2026_01_26", "2026_01_27"]
    draw_pen(root / "clips", pen, days=days, clips_per_day=1, frames_per_clip=2, seed=EVALUATION_SEED)
    write_shards(read_clips(root / "clips"), load_split("pen"), root / "shards")
    teacher = write_random_sam3("tiny", root / "teacher", seed=0)
    data = [f"--data.shards={root / 'shards'}", f"--data.cache={root / 'features'}"]
    assert main(["predict", "--config", "cache/pen.yaml", f"--model.teacher={teacher}", *data]) == 0
    quick = root / "quick.yaml"  # loaders' workers take seconds to start
    quick.write_text(Path(find_recipe("trainer/smoke.yaml")).read_text() + "data: {init_args: {num_workers: 0}}\n")
    return [
        *("--teacher", str(teacher), "--shards", str(root / "shards"), "--trainer", str(quick)),
        *("--cache", str(root / "features")),
    ]


def test_a_killed_ablation_goes_on_and_more_arms_can_follow(inputs, tmp_path, capsys, monkeypatch):
    out = tmp_path / "ablation"
    words = ["ablate", *inputs, "--out", str(out)]
    words += ["--max_steps", "2", "--batch_size", "2", "--seeds", "1"]
    assert main([*words, "--arms=[]"]) == 0
    assert list(json.loads((out / "ablation.json").read_text())["arms"]) == ["full"]
    first = (out / "full/seed-0/student/student.safetensors").stat().st_mtime_ns

    step = DistillationModule.training_step

    def die(self, batch, batch_idx):
        raise KeyError("power cut")

    monkeypatch.setattr(DistillationModule, "training_step", die)
    with pytest.raises(KeyError, match="power cut"):
        main([*words, '--arms=["mse"]'])
    monkeypatch.setattr(DistillationModule, "training_step", step)
    capsys.readouterr()
    assert main([*words, '--arms=["mse"]']) == 0
    printed = capsys.readouterr().out
    assert "mse, seed 0 (cell 2 of 2)" in printed
    assert "full, seed 0" not in printed
    assert (out / "full/seed-0/student/student.safetensors").stat().st_mtime_ns == first

    table = json.loads((out / "ablation.json").read_text())
    assert table["seeds"] == [0]
    assert list(table["arms"]) == ["full", "mse"]
    columns = {"level_cosine", "level_relative_error", "mota", "idf1", "mota_vs_teacher", "idf1_vs_teacher"}
    assert set(table["arms"]["mse"]) == columns
    assert table["clips"]["mota"] == table["days"]["mota"] == 2
    cosine = table["arms"]["mse"]["level_cosine"]
    assert cosine["difference"] == pytest.approx(cosine["mean"] - table["arms"]["full"]["level_cosine"]["mean"])
    text = (out / "ablation.md").read_text()
    assert text.strip() in printed
    assert "| mse |" in text
    # the teacher was streamed once, for both cells
    assert len(list((out / "teacher/tracks").glob("*.json"))) == 2
    link = out / "mse/seed-0/tracks/teacher"
    assert link.is_symlink()
    assert not link.readlink().is_absolute(), "a table that is moved is finished where it is"
    assert link.resolve() == (out / "teacher/tracks").resolve()

    other = shutil.copytree(inputs[-1], tmp_path / "other-cache")
    words += ['--arms=["mse"]', "--caches", json.dumps({"other": str(other)})]
    assert main([*words, "--max_minutes", "0"]) == 0
    assert "0 minutes are over, 2 of 3 cells are done" in capsys.readouterr().out
    assert not (out / "other").exists()
    assert main(words) == 0
    table = json.loads((out / "ablation.json").read_text())
    assert list(table["arms"]) == ["full", "mse", "other"]
    assert table["arms"]["other"]["level_cosine"]["difference"] == 0  # the same maps, from another folder
    assert main([*words, "--caches", json.dumps({"mse": str(other)})]) == 1
    assert "--caches: names 'mse'" in capsys.readouterr().err

    assert main([*words, "--max_steps", "3"]) == 1
    assert "is of a run with max_steps 2" in capsys.readouterr().err
    monkeypatch.setattr("pl_distill.commands.ablate.version", lambda name: "0.1" if name == "timm" else version(name))
    assert main(words) == 1
    assert f"is of a run with timm {version('timm')}, expected timm 0.1" in capsys.readouterr().err


def test_a_second_process_takes_other_cells_and_what_the_first_leaves(inputs, tmp_path):
    out = tmp_path / "ablation"
    words = [*inputs, "--out", str(out), "--max_steps=1", "--batch_size=2"]
    first = out / "full/seed-0"
    first.mkdir(parents=True)
    with (first / "cell.lock").open("a") as lock:  # as a first process would that has this cell in hand
        fcntl.flock(lock, fcntl.LOCK_EX)
        script = Path(sys.executable).with_name("pl-distill")
        command = [script, "ablate", *words, "--seeds=1", '--arms=["mse"]']
        second = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            others = out / "mse/seed-0/cell.json"
            deadline = time.monotonic() + 240
            while not (others.exists() and "evaluate" in others.read_text()):
                assert second.poll() is None, second.stdout.read()
                assert time.monotonic() < deadline
                time.sleep(0.2)
            assert not (first / "cell.json").exists()
            assert not (out / "ablation.json").exists()
        except BaseException:
            second.kill()
            raise
    printed, _ = second.communicate(timeout=240)
    assert second.returncode == 0, printed
    assert printed.index("another process has it in hand") < printed.index("mse, seed 0")
    assert list(json.loads((out / "ablation.json").read_text())["arms"]) == ["full", "mse"]


@pytest.mark.parametrize(
    ("more", "found"), [(["--seeds", "0"], "--seeds: is 0"), (['--arms=["nonsense"]'], "names 'nonsense'")]
)
def test_senseless_grids_are_refused(inputs, more, found, tmp_path, capsys):
    assert main(["ablate", *inputs, "--out", str(tmp_path), *more]) == 1
    assert found in capsys.readouterr().err


def test_cells_on_several_devices_are_refused_before_one_is_begun(inputs, tmp_path, capsys):
    """Lightning would start `pl-distill ablate` again as rank 1, beside the cell that rank 0 has in hand."""
    (tmp_path / "two.yaml").write_text("trainer: {accelerator: cpu, devices: 2, strategy: ddp}")
    words = ["ablate", *inputs, "--out", str(tmp_path / "ablation"), '--arms=["mse"]', "--seeds=1"]
    assert main([*words, "--trainer", str(tmp_path / "two.yaml")]) == 1
    assert "trainer.devices: puts a cell of full on 2 devices" in capsys.readouterr().err
    assert main([*words, f'--arms=["{tmp_path / "two.yaml"}"]']) == 1
    assert "trainer.devices: puts a cell of two on 2 devices" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["two.yaml"]


def test_code_is_known_by_all_that_decides_what_a_cell_learns_and_how_it_is_scored(tmp_path):
    deciding = ["callbacks/a.py", "datamodules/a.py", "pl_distill/evaluation/a.py", "pl_distill/losses/a.py"]
    deciding += ["pl_distill/commands/ablation_cell.py", "pl_distill/commands/step_seed.py"]
    deciding += ["pl_distill/models/a.py", "pl_distill/modules/a.py", "pl_distill/streaming/a.py"]
    for name in (*deciding, "pl_distill/commands/a.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1")
    seen = [code_sha256(DECIDING, tmp_path)]
    (tmp_path / "pl_distill/commands/a.py").write_text("x = 2")
    assert code_sha256(DECIDING, tmp_path) == seen[0]
    for name in deciding:
        (tmp_path / name).write_text("x = 2")
        seen.append(code_sha256(DECIDING, tmp_path))
    (tmp_path / deciding[0]).rename(tmp_path / "callbacks/b.py")
    assert len({*seen, code_sha256(DECIDING, tmp_path)}) == len(deciding) + 2
