"""`pl-distill report`: one HTML file from results."""

from collections.abc import Sequence
from pathlib import Path

from pl_distill.evaluation import report as reporting


def report(
    results: Path,
    out: Path | None = None,
    logs: Path | None = None,
    seeds: Sequence[Path] = (),
    extras: Sequence[Path] = (),
) -> None:
    """Write one self-contained HTML file from the results of an evaluation.

    Example: pl-distill report --results runs/demo/results.json --logs runs/demo/logs
    Example: pl-distill report --results runs/seed-0 --seeds=[runs/seed-1,runs/seed-2] --extras=[runs/transfer]

    Args:
        results: A results.json, or the folder that holds it; pictures and tracks are looked for beside it.
        out: The file to write; by default report.html beside the results.
        logs: Folder with TensorBoard logs of the training; by default whatever lies beside the results.
        seeds: Results of the same clips with students of other seeds; differences are then those over all of them.
        extras: Folders of `transfer`, `window` and the like, whose tables are shown, too.
    """
    written = reporting.report(results, out, logs, seeds, extras)
    print(
        f"{written} ({written.stat().st_size / 1e6:.1f} MB): open it in a browser, or send it; it needs no other file"
    )
