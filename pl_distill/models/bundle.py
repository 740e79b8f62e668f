"""The folder that a device gets: student, heads, tracker and prompts in one place, without trunk and text encoder.

It reads as two things that exist already: a SAM 3's folder (config.json, model.safetensors, processor and prompts),
whose weights hold everything behind the necks, and a student's (student.json, student.safetensors). `bundle.json` says
that both belong together, and has the SHA-256 of every other file. A file that it does not name could change what the
model answers (a second processor, an adapter), so that none may lie there but hidden ones, which nothing here reads.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from datamodules.files import atomic_directory, sha256_of, write_json
from pl_distill.errors import CheckpointError, ConfigError
from pl_distill.models.prompts import PROMPTS_FILE, PromptEmbedding, save_prompts
from pl_distill.models.sam3_source import WEIGHTS, find_file
from pl_distill.models.student_io import DESCRIPTION, Student
from pl_distill.models.student_io import WEIGHTS as STUDENT_WEIGHTS

BUNDLE = "bundle.json"
SCHEMA = 1
LICENCE_FILES = ("LICENSE", "LICENSE.txt")
COPIED = ("config.json", "preprocessor_config.json", "processor_config.json", *LICENCE_FILES)
NEEDED = frozenset({"config.json", WEIGHTS, PROMPTS_FILE, DESCRIPTION, STUDENT_WEIGHTS})
NOT_NEEDED = ("detector_model.vision_encoder.", "tracker_neck.")


def is_bundle(source: str | Path) -> bool:
    """Whether a path is a folder of `write_bundle`."""
    return (Path(source) / BUNDLE).is_file()


def refuse_torn_bundle(source: str | Path) -> None:
    """Refuse a bundle that has lost its description: it would count as a student, whose teacher is elsewhere.

    Raises:
        CheckpointError: A student and the heads around it lie there, and no bundle.json.
    """
    folder = Path(source)
    if not is_bundle(folder) and (folder / DESCRIPTION).is_file() and (folder / WEIGHTS).is_file():
        raise CheckpointError(folder, f"lacks {BUNDLE}", "a whole bundle", "Copy the whole folder.")


def read_bundle(source: str | Path) -> dict[str, Any]:
    """Read what a bundle says of itself.

    Returns:
        Content of bundle.json; `notes` is a list of texts, empty where there is none.

    Raises:
        CheckpointError: It is damaged, of another schema, or a file is not there or not named.
    """
    path = Path(source) / BUNDLE
    fix = "Write it again with `pl-distill package`, or copy the whole folder."
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(path, f"is not JSON ({error})", "a bundle's description", fix) from error
    if not isinstance(content, dict):
        raise CheckpointError(path, f"holds a {type(content).__name__}", "a bundle's description", fix)
    if content.get("schema") != SCHEMA:
        raise CheckpointError(path, f"has schema {content.get('schema')!r}", f"schema {SCHEMA}", fix)
    told = content.get("files")
    files = told if isinstance(told, dict) else {}
    missing = sorted(NEEDED.difference(files))
    if missing:
        raise CheckpointError(path, f"has no SHA-256 of {', '.join(missing)}", "one of every file", fix)
    for name in files:
        if Path(name).name != name or not (path.parent / name).is_file():
            raise CheckpointError(path.parent / Path(name).name, "is not there", f"a file that {BUNDLE} names", fix)
    for beside in sorted(path.parent.iterdir()):
        if beside.name not in {BUNDLE, *files} and not beside.name.startswith("."):
            expected = f"only files that {BUNDLE} names: another may change what the model answers"
            raise CheckpointError(beside, f"is not named in {BUNDLE}", expected, "Move it out of the bundle.")
    notes = content.setdefault("notes", [])
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise CheckpointError(path, f"has notes {str(notes)[:80]!r}", "a list of texts", fix)
    return content


def verify_bundle(source: str | Path) -> dict[str, Any]:
    """Compare every file of a bundle with its SHA-256, and return what the bundle says of itself.

    Raises:
        CheckpointError: One differs, or as for `read_bundle`.
    """
    content = read_bundle(source)
    for name, digest in content["files"].items():
        if sha256_of(Path(source) / name) != digest:
            fix = "Copy the bundle again."
            raise CheckpointError(Path(source) / name, "has another SHA-256", f"that of {BUNDLE}", fix)
    return content


def write_bundle(
    folder: Path,
    sam3: Any,
    student: Student,
    source: str | Path,
    prompts: Mapping[str, PromptEmbedding],
    texts: Mapping[str, str],
    about: Mapping[str, Any],
) -> Path:
    """Write a bundle; it appears whole or not at all.

    Args:
        folder: A new or empty one.
        sam3: The model behind the student; trunk and necks of it are left out.
        student: Must cover the necks.
        source: Where configuration and processor of `sam3` are copied from.
        prompts: By word.
        texts: Further files, content by name.
        about: Further keys of bundle.json, plain values.

    Raises:
        ConfigError: `folder` holds something, or the student leaves the necks to the teacher.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(folder, "is not empty", "a new folder", "Name another one or delete it.")
    if student.keeps_necks and student.detector_neck is None:
        found = "has no copies of the teacher's necks"
        raise ConfigError("student", found, "a student that covers them", "Give a folder of `save_pretrained`.")
    with atomic_directory(folder, replace=False) as temporary:
        heads = {
            name: tensor.detach().cpu().contiguous()
            for name, tensor in sam3.state_dict().items()
            if not name.startswith(NOT_NEEDED)
        }
        save_file(heads, temporary / WEIGHTS, metadata={"format": "pt"})
        student.save_pretrained(temporary, **student.origin)
        save_prompts(temporary, prompts.values())
        for name in COPIED:
            found_file = find_file(source, name)
            if found_file is not None:
                shutil.copyfile(found_file, temporary / name)
        for name, text in texts.items():
            (temporary / name).write_text(text, encoding="utf-8")
        files = {path.name: sha256_of(path) for path in sorted(temporary.iterdir())}
        write_json(temporary / BUNDLE, {"schema": SCHEMA, **about, "files": files})
    return folder
