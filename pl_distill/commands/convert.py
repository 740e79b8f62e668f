"""`pl-distill convert`: the student of a training checkpoint as one safetensors file, whatever strategy wrote it."""

from pathlib import Path

from pl_distill.models.student_io import DESCRIPTION, WEIGHTS, load_student


def convert(checkpoint: Path, out: Path) -> None:
    """Write the student of a checkpoint as student.safetensors and student.json, which loads without Lightning.

    Reads Lightning's single file, and DeepSpeed's directory of ZeRO stage 1, 2 or 3 with its parts joined; open only
    directories that you trust, DeepSpeed's parts are pickles. Optimiser and schedule stay behind.
    Example: pl-distill convert --checkpoint runs/fit/checkpoints/best.ckpt --out student

    Args:
        checkpoint: A .ckpt of `pl-distill fit`, or a student's folder.
        out: Folder for both files; an older student in it is replaced.
    """
    student = load_student(checkpoint, trust_pickles=True)
    student.save_pretrained(out, **student.origin)
    count = sum(parameter.numel() for parameter in student.parameters())
    size = (out / WEIGHTS).stat().st_size
    print(f"{out}: {count:,} parameters in {WEIGHTS} ({size / 2**20:.1f} MiB), described by {DESCRIPTION}")
