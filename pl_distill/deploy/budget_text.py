"""A budget as text: tables for a terminal."""

from collections.abc import Sequence

from pl_distill.deploy.budget import STOCK, STUDENT, SYSTEMS, TEACHER, Budget
from pl_distill.deploy.envelope import (
    GIB,
    PAPER_HEADROOM_GB,
    PAPER_PEAK_GB,
    Envelope,
    paper_reserve_gb,
)
from pl_distill.deploy.operations import operations

PAPER_TEACHER_GB = 19.52
"""arXiv 2604.27128: peak VRAM of the teacher's system."""
GIGA = 1e9


def format_budget(budget: Budget, envelopes: dict[str, Envelope]) -> str:
    """Return all tables of a budget."""
    sections = [
        _title(budget),
        _parameters(budget),
        _definitions(budget),
        *(_memory(budget, precision) for precision in budget.precisions),
        _paper(budget),
        _training(budget),
        *(_device(budget, envelope) for envelope in envelopes.values()),
    ]
    return "\n\n".join(section for section in sections if section)


def _title(budget: Budget) -> str:
    return (
        f"{budget.recipe}, teacher {budget.teacher}, {budget.animals} animals, {budget.frames} frames\n"
        "Nothing was measured: memory is that of tensors, by running the modules on fake ones; speeds are rooflines."
    )


def _parameters(budget: Budget) -> str:
    rows = []
    for side, parts in budget.parts.items():
        rows += [[side if number == 0 else "", part.name, f"{part.parameters:,}"] for number, part in enumerate(parts)]
        rows.append(["", "all", f"{sum(part.parameters for part in parts):,}"])
    return table(["system", "part", "parameters"], rows)


def _definitions(budget: Budget) -> str:
    rows = [
        [one.name, f"{one.teacher / 1e6:.2f}", f"{one.student / 1e6:.2f}", f"{one.ratio:.3f}", one.counts]
        for one in budget.definitions
    ]
    return table(["counted", "teacher M", "student M", "ratio", "what"], rows, left=(0, 4))


def _memory(budget: Budget, precision: str) -> str:
    also = " and fp16, of the same size" if precision == "bf16" else ""
    return table([f"predicted GiB, {precision}{also}", *SYSTEMS], memory_rows(budget, precision))


def memory_rows(budget: Budget, precision: str) -> list[list[str]]:
    """Return what each of `SYSTEMS` takes: a name and a cell for each, GiB, then GFLOP of a frame."""
    memory = [budget.of(system, precision) for system in SYSTEMS]
    rows = [["weights", *(_gib(one.stream.weights_bytes) for one in memory)]]
    rows.append(["session", *(_gib(one.stream.session_bytes) for one in memory)])
    rows += [
        [f"peak in the {stage}", *(_gib(one.stream.stage_bytes[stage]) for one in memory)]
        for stage in memory[0].stream.stage_bytes
    ]
    rows.append(["embedder alone", *(_gib(one.embedder.peak_bytes) for one in memory)])
    rows.append(["PEAK with embedder", *(_gib(one.peak_bytes) for one in memory)])
    rows.append(["times the student's", *(f"{one.peak_bytes / memory[-1].peak_bytes:.2f}" for one in memory)])
    stages = memory[0].stream.operators | memory[0].embedder.operators
    for stage in stages:
        found = [operations((one.stream.operators | one.embedder.operators)[stage]) / GIGA for one in memory]
        rows.append([f"GFLOP, {stage}", *(f"{value:,.0f}" for value in found)])
    return rows


def _paper(budget: Budget) -> str:
    largest = {precision: budget.of(STOCK, precision).peak_bytes / GIB for precision in budget.precisions}
    ours = {precision: budget.of(STUDENT, precision).peak_bytes / GIB for precision in budget.precisions}
    here = ", ".join(f"{largest[name]:.2f} -> {ours[name]:.2f} GiB in {name}" for name in budget.precisions)
    return (
        f"The paper prints {PAPER_TEACHER_GB} -> {PAPER_PEAK_GB} GB; predicted here {here}.\n"
        "It does not say its precision, number of animals, frames kept or attention kernel. Larger figures than ours\n"
        "come from a session that is not pruned (see its row, for this many frames), attention that keeps its scores\n"
        "(3.4 GiB in bf16 for one global layer of the trunk), whole clips on the GPU, kernels' workspace, and what\n"
        "the allocator holds without using it; which of them, its text does not tell."
    )


def _training(budget: Budget) -> str:
    if not budget.training_bytes:
        return ""
    rows = [[precision, _gib(found)] for precision, found in budget.training_bytes.items()]
    rows += [
        [f"each of {budget.gpus} GPUs, {name}, bf16", _gib(found)] for name, found in budget.each_gpu_bytes.items()
    ]
    return table([f"training step, batch {budget.batch_size} a GPU", "predicted GiB"], rows)


def _device(budget: Budget, envelope: Envelope) -> str:
    reserve = ", ".join(f"{name} {size:.2f}" for name, size in envelope.reserve_gib.items())
    lines = [
        f"{envelope.name}: {envelope.memory_gib:.0f} GiB shared, {envelope.reserved_gib:.2f} reserved ({reserve}), "
        f"{envelope.budget_gib:.2f} left for tensors"
    ]
    rows = []
    for precision in budget.precisions:
        for system in (TEACHER, STUDENT):
            memory = budget.of(system, precision)
            stages = memory.frame_s(envelope)
            left = envelope.budget_gib - memory.peak_bytes / GIB
            spent = ", ".join(f"{stage} {1000 * seconds:.0f}" for stage, seconds in stages.items())
            rows.append([system, precision, f"{left:.2f}", f"{1 / sum(stages.values()):.2f}", spent])
    lines.append(table(["system", "precision", "GiB left", "frames/s at most", "ms"], rows, left=(0, 1, 4)))
    if envelope.name.endswith("NX 16GB"):
        lines.append(
            f"The paper's {PAPER_HEADROOM_GB} GB of headroom: 16 - {PAPER_PEAK_GB} - {paper_reserve_gb():.2f}; that "
            f"reserve is not explained, ours is {envelope.reserved_gib:.2f} GiB, of which 1.85 are measured."
        )
    lines.append(str(budget.verdict(envelope, budget.precisions[0])))
    return "\n".join(lines)


def _gib(size: int) -> str:
    return f"{size / GIB:.3f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0, 1)) -> str:
    """Align columns.

    Args:
        head: Names of the columns.
        rows: Cells as text.
        left: Columns of words; those of numbers end at the right, where the second is no word unless it is named here.
    """
    words = {column for column in left if not all(_is_number(row[column]) for row in rows)}
    widths = [max(len(cells[column]) for cells in [head, *rows]) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        aligned = [
            cell.ljust(width) if column in words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(aligned).rstrip()

    return "\n".join([line(head), "-" * (sum(widths) + 2 * (len(widths) - 1)), *map(line, rows)])


def _is_number(cell: str) -> bool:
    return cell.replace(",", "").replace(".", "").replace("-", "").isdigit()
