"""The paper's system part by part: what it prints, what was measured here, and what follows at real size by counting.

arXiv 2604.27128, quoted as printed. Its data, its hardware and its sizes are others than those of an evaluation here:
only differences and ratios invite comparison.
"""

from dataclasses import dataclass

from pl_distill.evaluation.real_size import RealSize
from pl_distill.evaluation.results import ModelResult, Results

GIB = 2**30
NOT_HERE = "not part of this evaluation"
NEEDS_GPU = "needs a GPU"
_POOL_BYTES = 4 * 384 * 7 * 24 * 365  # 7 float32 embeddings of 384 values an hour, for a year


@dataclass(frozen=True)
class PaperRow:
    """One quantity.

    Args:
        part: Of the system.
        quantity: With its unit.
        paper: As printed; a star marks what follows from printed figures.
        here: Measured in this evaluation.
        real: At real size, by counting; nothing is run for it.
    """

    part: str
    quantity: str
    paper: str
    here: str
    real: str


def paper_rows(results: Results, real: RealSize) -> list[PaperRow]:
    """Return the table, in the order of the paper's system."""
    teacher, student = results.models.get("teacher"), results.models.get("student")
    alone = results.models.get("model")
    if alone is not None and alone.model.kind == "sam3":
        teacher = alone
    elif alone is not None:  # a bundle: a student that brings the rest of SAM 3 along
        student = alone
    return [
        PaperRow("teacher", "parameters of the trunk", "446M", _millions(teacher, "trunk"), f"{real.trunk:,}"),
        PaperRow(
            "student",
            "parameters, both necks included",
            "40.66M",
            _millions(student, "student"),
            f"{real.student + real.necks:,}",
        ),
        PaperRow(
            "",
            "trunk over student",
            "÷ 10.97*",
            _ratio(teacher, student),
            f"÷ {real.trunk / (real.student + real.necks):.2f}",
        ),
        PaperRow("", "system, both sides with necks and embedder", "÷ 7.77", NOT_HERE, f"÷ {real.system_ratio:.2f}"),
        PaperRow("tracking", "MOTA %, teacher", "93.97*", _score(teacher, "mota"), "-"),
        PaperRow("", "MOTA %, student", "92.29", _score(student, "mota"), "-"),
        PaperRow("", "MOTA, points lost by the student", "1.68", _loss(teacher, student, "mota"), "-"),
        PaperRow("", "IDF1 %, teacher", "96.99*", _score(teacher, "idf1"), "-"),
        PaperRow("", "IDF1 %, student", "96.15", _score(student, "idf1"), "-"),
        PaperRow("", "IDF1, points lost by the student", "0.84", _loss(teacher, student, "idf1"), "-"),
        PaperRow(
            "streaming",
            "memory kept from frame to frame",
            "bounded by a sliding window",
            _session(results),
            f"at most {real.session_bytes / 1e6:.2f} MB per animal",
        ),
        PaperRow("memory", "peak VRAM, paper GB, here GiB, teacher", "19.52", _vram(teacher), "-"),
        PaperRow("", "peak VRAM, student", "6.49", _vram(student), "-"),
        PaperRow("device", "headroom on a Jetson Orin NX 16 GB", "4.9 GB", NEEDS_GPU, "-"),
        PaperRow("embedder", "parameters of DINOv3 ViT-S/16", "21.6M", NOT_HERE, f"{real.embedder:,}"),
        PaperRow(
            "behaviour",
            "top-1 and macro-F1 of nine classes, %",
            "97.34 and 91.67",
            _behaviour(student or teacher),
            "-",
        ),
        PaperRow(
            "identity pool",
            "MB per animal and year",
            "94, proposed, not validated",
            NOT_HERE,
            f"{_POOL_BYTES / 1e6:.1f}: 7 embeddings an hour",
        ),
    ]


def _millions(model: ModelResult | None, what: str) -> str:
    if model is None:
        return "-"
    counts = model.model
    return f"{(counts.trunk_parameters + (counts.neck_parameters if what == 'student' else 0)) / 1e6:.2f}M"


def _ratio(teacher: ModelResult | None, student: ModelResult | None) -> str:
    if teacher is None or student is None:
        return "-"
    own = student.model.trunk_parameters + student.model.neck_parameters
    return f"÷ {teacher.model.trunk_parameters / own:.2f}" if own else "-"


def _score(model: ModelResult | None, metric: str) -> str:
    value: float | None = None if model is None else getattr(model.overall, metric)
    return "-" if value is None else f"{value:.2f}"


def _loss(teacher: ModelResult | None, student: ModelResult | None, metric: str) -> str:
    if teacher is None or student is None:
        return "-"
    before, after = getattr(teacher.overall, metric), getattr(student.overall, metric)
    return "-" if before is None or after is None else f"{before - after:.2f}"


def _behaviour(model: ModelResult | None) -> str:
    named = None if model is None else model.behaviour
    if named is None or named.truth.top1 is None or named.truth.macro_f1 is None:
        return NOT_HERE
    tracked = "" if named.tracks.top1 is None else f"; {named.tracks.top1:.2f} and {named.tracks.macro_f1:.2f} tracked"
    return f"{named.truth.top1:.2f} and {named.truth.macro_f1:.2f} from truth{tracked}"


def _session(results: Results) -> str:
    ours = [model.session_bytes for model in results.models.values() if model.session_bytes is not None]
    stock = [
        model.session_bytes
        for name, model in results.baselines.items()
        if name.endswith("-stock") and model.session_bytes is not None
    ]
    if not ours:
        return "-"
    beside = f", stock transformers {max(stock) / 2**20:.0f} MiB" if stock else ""
    return f"at most {max(ours) / 2**20:.1f} MiB{beside}"


def _vram(model: ModelResult | None) -> str:
    if model is None:
        return "-"
    return NEEDS_GPU if model.peak_vram_bytes is None else f"{model.peak_vram_bytes / GIB:.2f}"
