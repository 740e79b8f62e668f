"""Who may import whom: `datamodules` <- `pl_distill` <- `callbacks` <- `configs`; floors inside `pl_distill`."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FORBIDDEN = {
    "datamodules": ("pl_distill", "callbacks", "configs"),
    "pl_distill": ("callbacks", "configs"),
    "callbacks": ("configs",),
}
FLOORS = (  # a package may import its own floor's packages only where listed below, and every floor beneath
    ("cli",),
    ("commands",),
    ("modules",),  # a training may log a score of evaluation; evaluation knows no training
    ("deploy",),
    ("evaluation",),
    ("monitor_sinks",),
    ("monitor",),
    ("streaming", "losses", "reid", "strategies"),
    ("models", "checkpoint_io"),
    ("errors", "assets", "code_state"),
)
FLOOR_OF = {package: floor for floor, packages in enumerate(FLOORS) for package in packages}


def imported_modules(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_never_imports_a_floor_above_it(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files
        for name in imported_modules(file)
        if name.split(".")[0] in FORBIDDEN[package]
    ]
    assert not wrong


def test_only_the_recipes_are_reached_in_a_floor_above_by_its_name():
    named = {
        (file.relative_to(ROOT).as_posix(), node.value)
        for file in (ROOT / "datamodules").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and re.fullmatch(r"(pl_distill|callbacks|configs)(\.\w+)*", str(node.value))
    }
    assert named == {("datamodules/recipes.py", "pl_distill.configs")}


def test_floors_inside_pl_distill_hold():
    wrong = []
    for file in sorted((ROOT / "pl_distill").rglob("*.py")):
        package = file.relative_to(ROOT / "pl_distill").parts[0].removesuffix(".py")
        if package == "__init__":
            continue
        for name in imported_modules(file):
            parts = name.split(".")
            if parts[0] != "pl_distill" or len(parts) < 2 or parts[1] in (package, "__version__"):
                continue
            if FLOOR_OF[parts[1]] <= FLOOR_OF[package]:
                wrong.append(f"{file.relative_to(ROOT)} imports {name}")
    assert not wrong


TRAINING = (
    "lightning",
    "pytorch_lightning",
    "lightning_fabric",
    "deepspeed",
    "albumentations",
    "torchmetrics",
    "motmetrics",
)
TRACK = """
import av, numpy as np, sys
from pl_distill.cli import main
folder = sys.argv[1]
with av.open(folder + "/pen.mp4", "w") as file:
    stream = file.add_stream("libx264", rate=6, width=96, height=96, pix_fmt="yuv420p")
    for _ in range(2):
        file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((96, 96, 3), np.uint8))))
    file.mux(stream.encode())
options = ["--model=pen_student", "--out=" + folder + "/out", "--pool=" + folder + "/pool", "--behaviour=pen_behaviour"]
assert main(["track", folder + "/pen.mp4", *options]) == 0
"""


@pytest.mark.parametrize("code", ["import pl_distill.streaming", TRACK], ids=["streaming", "track"])
def test_a_device_imports_nothing_that_only_trains(code, tmp_path):
    """Also not within functions: the second tracks a video to its end."""
    asked = f"import sys; print('loaded', sorted({{name.split('.')[0] for name in sys.modules}} & set({TRAINING!r})))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{asked}", str(tmp_path)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout.strip().splitlines()[-1:] == ["loaded []"], done.stderr


def test_everything_that_lies_in_a_package_is_listed_for_the_wheel():
    import tomllib

    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {
        ".".join(file.parent.relative_to(ROOT).parts)
        for top in ("datamodules", "pl_distill", "callbacks")
        for file in (ROOT / top).rglob("*.py")
    }
    assert listed - {"pl_distill.configs"} == found
