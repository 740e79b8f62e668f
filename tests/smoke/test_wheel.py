"""The wheel, installed outside the checkout, runs a short demo with its own console script and its own recipes."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.smoke


def run(*command: str | Path, cwd: Path) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    finished = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=600
    )
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    return finished.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Install the wheel into a new environment that borrows the dependencies, not the editable install."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist", ROOT, cwd=folder)
    (wheel,) = (folder / "dist").glob("*.whl")
    venv.create(folder / "env", with_pip=True)
    (site,) = (folder / "env" / "lib").glob("python*/site-packages")
    # Only the folder is added: .pth files inside it, the editable install among them, are not processed.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run(folder / "env/bin/pip", "install", "--no-deps", "--quiet", wheel, cwd=folder)
    return folder


def test_packages_and_recipes_come_from_the_wheel(installed):
    code = (
        "import callbacks, datamodules, pl_distill, importlib.resources as r;"
        "print(callbacks.__file__, datamodules.__file__, pl_distill.__file__, r.files('pl_distill.configs'))"
    )
    places = run(installed / "env/bin/python", "-c", code, cwd=installed).split()
    assert len(places) == 4
    assert all(place.startswith(str(installed)) for place in places)


def test_a_short_demo_runs_from_the_wheel(installed):
    script = installed / "env/bin/pl-distill"
    size = ["--train_clips=1", "--train_frames=10", "--test_clips=1", "--frames=10", "--max_steps=4"]
    printed = run(script, "demo", "--out", installed / "demo", *size, cwd=installed)
    results = json.loads((installed / "demo" / "results.json").read_text())
    assert results["schema"] == 1
    assert {"teacher", "student", "student_vs_teacher"} <= set(results)
    assert (installed / "demo" / "report.html").read_text().startswith("<!doctype html>")
    assert "report.html" in printed
