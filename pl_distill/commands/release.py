"""`pl-distill release`: a trained SAM 3, or a student, in half precision, with a card: what it is and how good."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml

from datamodules.clip import Clip
from datamodules.pen_training import read_pens_with_furniture
from pl_distill.commands.parsing import find_recipe
from pl_distill.errors import ConfigError
from pl_distill.evaluation.evaluate import RESULTS_FILE
from pl_distill.evaluation.model_card import ModelCard, write_model, write_student
from pl_distill.evaluation.models import ModelSource, is_student, open_model
from pl_distill.evaluation.results import ModelResult, Results, read_results
from pl_distill.evaluation.transfer import read_domains
from pl_distill.evaluation.typed_json import JsonTypeError, parse_dataclass
from pl_distill.evaluation.words import Labelled, WordScores, score_words
from pl_distill.models.prompts import compute_prompts, load_prompts
from pl_distill.models.sam3 import load_preprocessing, load_sam3

EVERY = 15
"""Words are asked of every so many-th frame: neighbours are near copies."""


@dataclass(frozen=True)
class CardText:
    """What a person writes of a model; keys of a YAML file.

    Args:
        name: Heading of the card.
        summary: What it is and what it is for, a paragraph.
        data: What it was trained on, a paragraph.
        training: How, how long, with which seed, a paragraph.
        recipes: Recipes that repeat the training.
        limits: What it cannot do, one sentence each.
        animal: Of a SAM 3: the word for the animals.
        absent_words: Of a SAM 3: words that were never used in training and that no picture shows.
    """

    name: str
    summary: str
    data: str
    training: str
    recipes: list[str]
    limits: list[str]
    animal: str = ""
    absent_words: list[str] = field(default_factory=list)


def release(source: str, out: Path, card: str = "pen_teacher/card.yaml", scores: Sequence[Path] = ()) -> None:
    """Write a trained SAM 3, or a student, in half precision, with what it needs to be loaded and a model card.

    With --scores, folders that `pl-distill transfer` wrote, the card shows their scores, and of a SAM 3 what words find
    on the clips of the first domain.
    Example: pl-distill release --source runs/pen_teacher/longer/tracker/sam3 --out pen_teacher --scores=[runs/transfer]

    Args:
        source: Folder that a training of a SAM 3 exported; or a student, its folder or checkpoint.
        out: Folder to write: a new one, or that of an older release, which is replaced.
        card: What a person has to say of the model: a YAML file, or the name of a shipped one.
        scores: Folders of `pl-distill transfer`, of this model; of a domain that several have, the first counts.
    """
    _refuse_other(out)
    text = _read_card(find_recipe(card))
    results: dict[str, Results] = {}
    words = None
    for folder in scores:
        for domain in read_domains(folder):
            if domain not in results:
                results[domain] = read_results(folder / domain / RESULTS_FILE)
    own = _of_source(source, results)
    student = is_student(source)
    if results and not student:
        if not text.animal:
            raise ConfigError(f"{card}, animal", "is missing", "the word for the animals", "Add it to the card.")
        domain, of_domain = next(iter(own.items()))
        words = _ask_words(source, card, text, scores[0] / domain / "clips", of_domain.clips)
    recipes = {recipe: Path(find_recipe(recipe)) for recipe in text.recipes}
    shown = ModelCard(
        text.name, text.summary, text.data, text.training, recipes, own, words, text.limits, recognisers_of(results),
        frozenset(name for name, result in results.items() if result.settings.policy.get("fuse_boxes")),
    )  # fmt: skip
    written = (write_student if student else write_model)(source, out, shown)
    size_mb = sum(path.stat().st_size for path in written.iterdir()) / 1e6
    print(shown.text())
    print(f"model     {written}, {size_mb:.1f} MB")


def _refuse_other(out: Path) -> None:
    """Refuse to replace what is no release: its files would be gone.

    Raises:
        ConfigError: Something else lies there.
    """
    found = sorted(out.iterdir()) if out.is_dir() else [out] if out.exists() else []
    described = any((out / name).is_file() for name in ("config.json", "student.json"))
    if not found or (described and (out / "README.md").is_file() and all(path.is_file() for path in found)):
        return
    raise ConfigError(
        f"--out {out}", f"holds what is no release ({found[0].name})", "a new folder, or that of an older release",
        "Name another.",
    )  # fmt: skip


def recognisers_of(results: Mapping[str, Results]) -> dict[str, str | None]:
    """Give, for each evaluation, the embedder by which animals were recognised by their looks; None where none was."""
    found: dict[str, str | None] = {}
    for name, result in results.items():
        appearance = result.settings.policy.get("appearance")
        found[name] = str(appearance["embedder"]) if appearance else None
    return found


def _of_source(source: str, results: Mapping[str, Results]) -> dict[str, ModelResult]:
    """Choose of each evaluation the model that is released, by its weights.

    Raises:
        ConfigError: An evaluation was of others.
    """
    own: dict[str, ModelResult] = {}
    sha256 = ""
    for domain, found in results.items():
        if not sha256:
            teacher = next((one.model.teacher for one in found.models.values() if one.model.teacher), None)
            released = ModelSource("model", source, teacher if is_student(source) else None)
            sha256 = open_model(released, found.settings.prompt, "cpu").identity.sha256
        mine = [one for one in found.models.values() if one.model.sha256 == sha256]
        if not mine:
            others = ", ".join(f"{one.model.source} ({one.model.sha256[:12]})" for one in found.models.values())
            raise ConfigError(
                "--scores", f"has for {domain} those of {others}", f"those of {source}, which is {sha256[:12]}",
                "Score this model with `pl-distill transfer`.",
            )  # fmt: skip
        own[domain] = mine[0]
    return own


def _read_card(path: str) -> CardText:
    try:
        return parse_dataclass(CardText, yaml.safe_load(Path(path).read_bytes()), "")
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(path, f"is not YAML ({error})", "keys and values", "Correct the file.") from error
    except JsonTypeError as error:
        raise ConfigError(f"{path}, {error.key}", error.found, error.expected, "Correct the file.") from error


def _ask_words(source: str, card: str, text: CardText, folder: Path, scored: Collection[str]) -> WordScores:
    """Ask words on the clips of a folder that were `scored`: a run with more of them may have drawn there, too."""
    present = list(load_prompts(source))
    if text.animal not in present:
        raise ConfigError(
            f"{card}, animal", f"is {text.animal!r}", f"a stored word ({', '.join(present)})", "Correct the card."
        )
    clips = [clip for clip in read_pens_with_furniture(folder) if clip.name in scored]
    model = load_sam3(source)
    return score_words(
        model,
        compute_prompts(source, [*present, *text.absent_words]),
        _pictures(clips, text.animal, present),
        load_preprocessing(source),
        present=present,
        threshold=model.config.score_threshold_detection,
    )


def _pictures(clips: Sequence[Clip], animal: str, words: Sequence[str]) -> Iterator[Labelled]:
    for clip in clips:
        for frame in clip.frames():
            if frame.index % EVERY or frame.annotation is None:
                continue
            truth = frame.annotation
            visible = [number for number, seen in enumerate(truth.visible) if seen]
            boxes: dict[str, list[np.ndarray]] = {word: [] for word in words}
            for number in visible:
                name = truth.identities[number]
                boxes[name if name in boxes else animal].append(truth.boxes_xyxy[number])
            yield Labelled(frame.image, {word: np.array(found).reshape(-1, 4) for word, found in boxes.items()})
