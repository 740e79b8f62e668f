"""The paper's figures beside those of an evaluation: arXiv 2604.27128, quoted as printed.

Its data, its hardware and its sizes are others: only the differences between student and teacher invite comparison.
"""

from dataclasses import dataclass

from pl_distill.evaluation.results import Results

GIB = 2**30


@dataclass(frozen=True)
class PaperRow:
    """One quantity: what the paper prints and what was measured here, each for teacher, student and their relation."""

    label: str
    paper: tuple[str, str, str]
    here: tuple[str, str, str]


def paper_rows(results: Results) -> list[PaperRow]:
    """Return the comparison; empty where only one model was evaluated."""
    if not {"teacher", "student"} <= set(results.models):
        return []
    teacher, student = results.models["teacher"], results.models["student"]
    rows = [
        PaperRow("MOTA %", ("93.97*", "92.29", "-1.68"), _points(teacher.overall.mota, student.overall.mota)),
        PaperRow("IDF1 %", ("96.99*", "96.15", "-0.84"), _points(teacher.overall.idf1, student.overall.idf1)),
        PaperRow(
            "trunk, and student with necks, M",
            ("446", "40.66", "÷ 10.97*"),
            _ratio(
                teacher.model.trunk_parameters / 1e6,
                (student.model.trunk_parameters + student.model.neck_parameters) / 1e6,
                3,
            ),
        ),
    ]
    if teacher.peak_vram_bytes is not None and student.peak_vram_bytes is not None:
        memory = _ratio(teacher.peak_vram_bytes / GIB, student.peak_vram_bytes / GIB, 2)
        rows.append(PaperRow("peak VRAM, paper GB, here GiB", ("19.52", "6.49", "÷ 3.01"), memory))
    return rows


def _points(teacher: float | None, student: float | None) -> tuple[str, str, str]:
    if teacher is None or student is None:
        return ("-", "-", "-")
    return f"{teacher:.2f}", f"{student:.2f}", f"{student - teacher:+.2f}"


def _ratio(teacher: float, student: float, digits: int) -> tuple[str, str, str]:
    relation = f"÷ {teacher / student:.2f}" if student else "-"
    return f"{teacher:.{digits}f}", f"{student:.{digits}f}", relation
