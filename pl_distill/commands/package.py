"""`pl-distill package`: everything that a device needs, in one folder."""

import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

from pl_distill.assets import shipped_models
from pl_distill.errors import ConfigError
from pl_distill.evaluation.models import (
    STUDENT,
    count_parameters,
    is_student,
    open_model,
    plan_model,
    plan_models,
    trunk_notes,
)
from pl_distill.models.bundle import BUNDLE, LICENCE_FILES, is_bundle, write_bundle
from pl_distill.models.prompts import load_prompts
from pl_distill.models.sam3 import load_necks, load_sam3
from pl_distill.models.sam3_source import find_file
from pl_distill.models.student_io import Student, load_student

LICENCES = """# Licences

Code: pl_distill, Apache-2.0.

Weights in `model.safetensors` (detector heads, tracker) and the necks in `student.safetensors` are those of {teacher}.
Where that is facebook/sam3 or a copy of it, Meta's SAM licence binds whoever gets them:
https://huggingface.co/facebook/sam3/blob/main/LICENSE. It asks that a copy travels with the weights; a LICENSE beside
this file is the copy that lay beside the teacher{missing}.

The student's body is timm's TinyViT (its pretrained weights, if it began with them, are Apache-2.0 by timm's entry
and MIT by their authors), trained on the features of that teacher.
"""
CARD = """# {name}

A student of {teacher} with the heads and tracker that stay: follows animals from a stored word, in a video or camera.

```
pl-distill track VIDEO --model {name} --prompt {word} --out tracks
```

| part | parameters |
|---|---|
| student ({kind}) with necks | {student:,} |
| detector heads and tracker | {heads:,} |
| all | {all:,} |

Words: {words}. Without text encoder and trunk no other word can be embedded here.
Made with pl_distill {pl_distill}, torch {torch}, transformers {transformers}, Python {python}. `bundle.json` has the
SHA-256 of every file. How good it is, `pl-distill evaluate` says of the student before it is packed.
"""


def package(model: str, out: Path, teacher: str | None = None, prompts: list[str] | None = None) -> None:
    """Write student, heads, tracker, prompts, configuration, licences and card into one folder.

    Trunk and text encoder stay behind. `pl-distill track` and `evaluate` run from the folder alone.
    Example: pl-distill package --model runs/demo/student --out bundle

    Args:
        model: A student: a folder, a shipped one, or a checkpoint of `pl-distill fit`.
        out: Folder to write; must be new or empty.
        teacher: The SAM 3 whose heads are taken; a student knows its own.
        prompts: Words to take along; by default all that are stored beside the teacher.
    """
    if is_bundle(model):
        raise ConfigError("--model", f"is {model!r}, a bundle already", "a student", "Copy the folder.")
    if not is_student(model):
        if not Path(model).exists() and model not in shipped_models():
            load_student(model)  # says that it is not there, and what there is
        raise ConfigError("--model", f"is {model!r}, which is no student", "a student", "Distil one: pl-distill fit.")
    if prompts == []:
        raise ConfigError("--prompts", "is empty", "words that the device shall find", "Name one, or leave it out.")
    source = next(one for one in plan_models(model, teacher) if one.role == STUDENT)
    origin = str(source.teacher)
    student = _with_necks(load_student(model), origin)
    stored = load_prompts(origin)
    unknown = [word for word in prompts or [] if word not in stored]
    if unknown:
        raise ConfigError("--prompts", f"has {unknown}", f"words of {sorted(stored)}", "Store them beside the teacher.")
    taken = {word: prompt for word, prompt in stored.items() if prompts is None or word in prompts}
    sam3 = load_sam3(origin)
    notes = trunk_notes(student, sam3, origin)
    for note in notes:
        print(f"note: {note}")
    heads = count_parameters(sam3) - count_parameters(sam3.detector_model.vision_encoder, sam3.tracker_neck)
    learned = count_parameters(student)
    versions = {name: version(name) for name in ("torch", "transformers", "timm")}
    versions |= {"pl_distill": version("pl-distill"), "python": platform.python_version()}
    card = CARD.format(
        name=out.name,
        teacher=origin,
        kind=type(student).__name__,
        student=learned,
        heads=heads,
        all=learned + heads,
        word=next(iter(taken)),
        words=", ".join(taken),
        **versions,
    )
    licensed = any(find_file(origin, name) for name in LICENCE_FILES)
    if not licensed:
        print(
            f"warning: no LICENSE lies beside {origin}: put that of its weights there and package again",
            file=sys.stderr,
        )
    licences = LICENCES.format(teacher=origin, missing="" if licensed else ": there was none")
    about = {"teacher": origin, "words": list(taken), "parameters": learned + heads, "versions": versions}
    about |= {"notes": list(notes)}
    write_bundle(out, sam3, student, origin, taken, {"README.md": card, "LICENCES.md": licences}, about)
    began = time.perf_counter()
    open_model(plan_model(str(out), None), next(iter(taken)), "cpu")
    print(f"opens in {time.perf_counter() - began:.1f} s on a CPU, hashes of all files included")
    for path in sorted(out.iterdir()):
        print(f"{path.stat().st_size / 1e6:10.2f} MB  {path.name}")
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"{size / 1e6:10.2f} MB  {out}, {learned + heads:,} parameters, hashes in {BUNDLE}")


def _with_necks(student: Student, teacher: str) -> Student:
    """Give a student from a checkpoint, which has no necks, those of its teacher."""
    if student.keeps_necks and student.detector_neck is None:
        necks = load_necks(teacher)
        student.attach_necks(necks.detector_neck, necks.tracker_neck)
    return student
