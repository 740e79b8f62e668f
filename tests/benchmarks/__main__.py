"""Run every benchmark, print a table, write JSON: ``python -m tests.benchmarks --out runs/bench.json``.

A missed goal is reported, not failed: the exit code is 0 unless a benchmark breaks.
"""

import argparse
import platform
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import torch

from datamodules.files import write_json
from tests.benchmarks.measure import Figure


def benchmarks() -> list[str]:
    """Return the modules beside this one that measure something."""
    return sorted(path.stem for path in Path(__file__).parent.glob("bench_*.py"))


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/bench.json"))
    parser.add_argument("--only", choices=benchmarks(), action="append", help="measure only these; may be repeated")
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures: list[Figure] = []
    for name in options.only or benchmarks():
        print(name, flush=True)
        for figure in import_module(f"tests.benchmarks.{name}").measure():
            verdict = {None: "", True: "met", False: "MISSED"}[figure.met]
            print(
                f"  {figure.name:<48}{figure.value:>14.3f} {figure.unit:<12}{figure.goal or '':<10}{verdict}",
                flush=True,
            )
            figures.append(figure)
    versions = {package: version(package) for package in ("torch", "transformers", "timm", "numpy", "webdataset")}
    machine = {"python": platform.python_version(), "processor": platform.machine(), "threads": torch.get_num_threads()}
    content = {"schema": 1, "machine": machine, "versions": versions}
    write_json(options.out, {**content, "figures": {figure.name: figure.to_json() for figure in figures}})
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
