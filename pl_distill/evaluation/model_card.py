"""A trained SAM 3, or a student, in half precision with its card: made from what, how, and how good it is.

The form follows Hugging Face's model cards: a README.md beside the weights.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from datamodules.files import atomic_directory, atomic_path, sha256_of
from pl_distill.errors import CheckpointError
from pl_distill.evaluation.results import ModelResult
from pl_distill.evaluation.words import WordScores
from pl_distill.models.prompts import load_prompts
from pl_distill.models.sam3 import load_sam3
from pl_distill.models.sam3_training import open_sam3, save_sam3
from pl_distill.models.student_io import load_student


@dataclass(frozen=True)
class ModelCard:
    """What a reader has to know before using a model.

    Args:
        name: Its heading.
        summary: What it is and what it is for, a paragraph.
        data: What it was trained on, a paragraph.
        training: How, how long, with which seed, a paragraph.
        recipes: Name -> file that repeats a part of the training; names and hashes go into the card.
        scores: The model's results by name of their data; the first is the main one.
        words: What single words find, or None.
        limits: What it cannot do, one sentence each.
        recognisers: By name of the data, the embedder by which animals were recognised; None where they were not.
        fused: Names of the data on which a track's box was fused with the detection's.
    """

    name: str
    summary: str
    data: str
    training: str
    recipes: Mapping[str, Path]
    scores: Mapping[str, ModelResult]
    words: WordScores | None
    limits: Sequence[str]
    recognisers: Mapping[str, str | None] = field(default_factory=dict)
    fused: frozenset[str] = frozenset()

    def text(self) -> str:
        """Return the card as Markdown."""
        lines = [
            f"# {self.name}",
            "",
            self.summary,
            "",
            "## Data",
            "",
            self.data,
            "",
            "## Training",
            "",
            self.training,
            "",
        ]
        lines += [f"- `{name}`, SHA-256 {sha256_of(file)}" for name, file in self.recipes.items()]
        if self.scores:
            lines += ["", "## Scores", "", "Percentages, against truth at IoU 0.5, streamed frame by frame.", ""]
            lines += ["| data | MOTA | IDF1 | mask overlap | identity switches | clips x frames |"]
            lines += ["|---|---|---|---|---|---|"]
            lines += [_row(name, result) for name, result in self.scores.items()]
            lines += ["", self._recognition()]
            if fused := [name for name in self.scores if name in self.fused]:
                where = "" if len(fused) == len(self.scores) else f" in {', '.join(fused)}"
                lines += [f"A track's box is the mean of that around its mask and of the detection's{where}."]
            # Who is seen for longer is lost more often.
            kinds: dict[str, set[object]] = {
                "clips x frames": {_extent(result) for result in self.scores.values()},
                "identities": {self.recognisers.get(name) for name in self.scores},
                "boxes": {name in self.fused for name in self.scores},
            }
            if several := [what for what, found in kinds.items() if len(found) > 1]:
                lines += [f"Rows compare where their {', '.join(several)} are the same."]
        if self.words is not None:
            seen = {word: value for word, value in self.words.ap50.items() if not math.isnan(value)}
            found = ", ".join(f"{word} {value:.1f}" for word, value in seen.items())
            lines += ["", f"AP50 of words on {self.words.pictures} pictures: {found}."]
            alarms = ", ".join(f"{word} {value:.1f}" for word, value in self.words.false_alarms.items())
            detection = f"a detection, that is a score above {self.words.threshold:g}"
            if alarms:
                lines += [f"Pictures in which words for nothing give {detection}, in percent: {alarms}."]
        lines += ["", "## Limits", "", *(f"- {limit}" for limit in self.limits), ""]
        return "\n".join(lines)

    def _recognition(self) -> str:
        """Say whose the identities are."""
        embedders = {name: self.recognisers.get(name) for name in self.scores}
        with_looks = [name for name, embedder in embedders.items() if embedder is not None]
        if not with_looks:
            return "Identities are SAM 3's own: no animal is recognised by its looks."
        by = ", ".join(f"`{one}`" for one in dict.fromkeys(embedders[name] for name in with_looks))
        where, rest = "", ""
        if len(with_looks) < len(embedders):
            where, rest = f" in {', '.join(with_looks)}", "; elsewhere they are SAM 3's own"
        return f"Animals are recognised by their looks{where}, by {by}: identities are of tracker and embedder{rest}."


def write_model(source: str | Path, out: Path, card: ModelCard) -> Path:
    """Write a trained SAM 3 as float16 safetensors with configuration, processor, prompts and card, and load it once.

    Args:
        source: The folder that a training exported.
        out: The folder to write; replaced as a whole.
        card: Becomes README.md.

    Raises:
        CheckpointError: The source is no such folder, or a weight does not fit into half precision.
    """
    opened = open_sam3(str(source))
    _require_half(opened.model, source)
    save_sam3(opened, out, sorted(load_prompts(source)), dtype=torch.float16)
    _write_card(out, card)
    load_sam3(out)  # strict keys
    return out


def write_student(source: str | Path, out: Path, card: ModelCard) -> Path:
    """Write a student as float16 safetensors with description and card, and load it once.

    Args:
        source: A student's folder, or a checkpoint of `pl-distill fit`, which holds no copies of the teacher's necks.
        out: The folder to write; replaced as a whole.
        card: Becomes README.md.

    Raises:
        CheckpointError: The source is no student, or a weight does not fit into half precision.
    """
    student = load_student(source)
    _require_half(student, source)
    with atomic_directory(out, replace=True) as temporary:
        student.half().save_pretrained(temporary, **student.origin)
        _write_card(temporary, card)
        load_student(temporary)  # strict keys
    return out


def _require_half(module: nn.Module, source: str | Path) -> None:
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor.half()).all():  # `half` leaves counters as they are
            raise CheckpointError(
                source, f"holds {name} with values up to {tensor.abs().max():.3g}", "at most 65,504", "Train it again."
            )


def _write_card(out: Path, card: ModelCard) -> None:
    with atomic_path(out / "README.md") as temporary:
        temporary.write_text(card.text(), encoding="utf-8")


def _row(name: str, model: ModelResult) -> str:
    overall = model.overall
    numbers = [overall.mota, overall.idf1, model.mask_overlap]
    shown = ["-" if number is None else f"{number:.1f}" for number in numbers]
    return f"| {name} | {' | '.join(shown)} | {overall.id_switches} | {_extent(model)} |"


def _extent(model: ModelResult) -> str:
    """Say how many clips a row is of, and how many frames of each were judged."""
    frames = sorted(clip.scores.scored_frames for clip in model.clips.values())
    if not frames:
        return "0"
    return f"{len(frames)} x {frames[0]}" + (f" to {frames[-1]}" if frames[-1] > frames[0] else "")
