"""Open what an evaluation is pointed at: a SAM 3, or a student that is put into one."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from datamodules.preprocessing import Preprocessing
from pl_distill.assets import shipped_models, shipped_students
from pl_distill.errors import CheckpointError, ConfigError
from pl_distill.evaluation.results import ModelIdentity
from pl_distill.models.behaviour_head import MODEL_TYPE
from pl_distill.models.bundle import is_bundle, refuse_torn_bundle, verify_bundle
from pl_distill.models.checkpoints import check_finite
from pl_distill.models.dinov3 import FAMILY
from pl_distill.models.prompts import PromptEmbedding, choose_prompt, load_prompts
from pl_distill.models.sam3 import load_preprocessing, load_sam3, substitute, trunk_sha256
from pl_distill.models.sam3_source import find_file, is_hub_name
from pl_distill.models.student_io import Student, find_student, load_student
from pl_distill.models.tensor_hash import tensors_sha256

MODEL, TEACHER, STUDENT = "model", "teacher", "student"
OTHERS = {MODEL_TYPE: "behaviour", **dict.fromkeys(FAMILY, "embedder")}  # model_type -> the option that takes it


@dataclass(frozen=True)
class ModelSource:
    """One model of an evaluation, not loaded yet.

    Args:
        role: ``model``, ``teacher`` or ``student``.
        source: Folder, checkpoint or hub name.
        teacher: For a student, the SAM 3 whose trunk it replaces; None for a whole SAM 3.
    """

    role: str
    source: str
    teacher: str | None = None


@dataclass(frozen=True, eq=False)
class OpenedModel:
    """A model that is ready to track.

    Args:
        sam3: A `Sam3VideoModel` on its device, in eval mode.
        identity: What is written into results.
        prompt: What is searched for.
        preprocessing: What happens to a picture before the model sees it.
        notes: What a reader must know about this model, one sentence each.
    """

    sam3: Any
    identity: ModelIdentity
    prompt: PromptEmbedding
    preprocessing: Preprocessing
    notes: tuple[str, ...] = ()


def plan_models(model: str, teacher: str | None) -> list[ModelSource]:
    """Say which models are evaluated, teacher first: two for a student or where a teacher is named, otherwise one.

    Args:
        model: A SAM 3 (folder or hub name), a student (folder, shipped, or checkpoint of `pl-distill fit`), or a bundle
            of `pl-distill package`, which has everything.
        teacher: A SAM 3; None takes a student's own teacher from its description.

    Raises:
        CheckpointError: `model` is not there, or neither a SAM 3 nor a student.
        ConfigError: A student does not know its teacher, or that is not there.
    """
    _refuse_other_models(model)
    if is_bundle(model):
        bundled = ModelSource(MODEL if teacher is None else STUDENT, model, model)
        return [bundled] if teacher is None else [ModelSource(TEACHER, teacher), bundled]
    if not is_student(model):
        if teacher is None:
            return [ModelSource(MODEL, model)]
        return [ModelSource(TEACHER, teacher), ModelSource(STUDENT, model)]
    if teacher is None:
        teacher = load_student(model).origin["teacher"]
        if teacher is None:
            raise ConfigError("teacher", "is not given", f"the SAM 3 that {model} learned from", "Give --teacher.")
        try:
            find_file(teacher, "config.json")
        except CheckpointError as error:
            raise ConfigError(
                "teacher",
                f"is {teacher!r} as {model} remembers it, which {error.found}",
                "a SAM 3",
                "Say with --teacher where it is now.",
            ) from error
    return [ModelSource(TEACHER, teacher), ModelSource(STUDENT, model, teacher)]


def _refuse_other_models(model: str) -> None:
    """Refuse what is not there, and models that do not track; whether a hub has a SAM 3 is asked where it is opened."""
    refuse_torn_bundle(model)
    if is_student(model):
        return
    folder = shipped_models(*OTHERS).get(model, Path(model))
    if folder.is_dir():
        kind = OTHERS.get(_model_type(folder))
        if kind is not None:
            fix = f"Give it as --{kind}; to export it, add --what {kind}."
            raise CheckpointError(model, f"is a model for --{kind}", "a SAM 3 or a student", fix)
        return
    if model in shipped_models() or (is_hub_name(model) and folder.suffix != ".ckpt"):
        return
    last = folder.with_name("last.ckpt")
    fix = f"Give {last}: no validation has chosen a best." if last.is_file() else "Check the path or the spelling."
    raise CheckpointError(
        model,
        "is not there",
        "a .ckpt of pl-distill fit, a student's folder, a SAM 3's folder or hub name, a bundle, or a shipped model: "
        + ", ".join([*shipped_students(), *shipped_models()]),
        fix,
    )


def _model_type(folder: Path) -> str:
    try:
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""  # who opens it says what is wrong with it


def plan_model(model: str, teacher: str | None) -> ModelSource:
    """Say which model runs where only one does.

    Args:
        model: See `plan_models`.
        teacher: The SAM 3 to put a student into; a student knows its own.

    Raises:
        CheckpointError: `model` is neither a SAM 3 nor a student.
        ConfigError: A teacher is given for what needs none, or a student's is not there.
    """
    _refuse_other_models(model)
    if teacher is not None and (is_bundle(model) or not is_student(model)):
        what = "a bundle, which has its heads" if is_bundle(model) else "no student"
        raise ConfigError("--teacher", f"is given, but {model} is {what}", "a student in --model", "Leave it out.")
    return plan_models(model, teacher)[-1]


def is_student(source: str) -> bool:
    """Whether something is a student: a folder with student.json, a shipped one, or a checkpoint."""
    return find_student(source) is not None


def open_model(
    source: ModelSource, prompt: str, device: torch.device | str, dtype: torch.dtype = torch.float32
) -> OpenedModel:
    """Load a model, put the student into it if it is one, and identify the result.

    Args:
        source: Which.
        prompt: A word whose embedding is stored beside the SAM 3.
        device: Where it shall run.
        dtype: Of every weight, whatever the files'.

    Raises:
        CheckpointError: Weights are missing, damaged, of another architecture, or not finite as `dtype`.
        ConfigError: The prompt is not stored.
    """
    sam3_source = source.source if source.teacher is None else source.teacher
    bundled = is_bundle(sam3_source)
    bundle = verify_bundle(sam3_source) if bundled else {}  # before anything of it is read: student.json names code
    student: Student | None = None if source.teacher is None else load_student(source.source)
    prompt_embedding = choose_prompt(load_prompts(sam3_source), prompt)
    preprocessing = load_preprocessing(sam3_source)
    sam3 = load_sam3(sam3_source, trunk=not bundled)
    notes: tuple[str, ...] = ()
    if bundled and source.source == sam3_source:  # the trunk was compared when it was still there
        notes = tuple(bundle["notes"])
    elif student is not None and not bundled:
        notes = trunk_notes(student, sam3, sam3_source)
    if student is not None:
        sam3 = substitute(sam3, student)
    sam3 = sam3.to(device, dtype).eval()
    check_finite(sam3.state_dict().items(), source.source)  # half precision has no number above 65,504
    return OpenedModel(sam3, identify(sam3, source, student, preprocessing), prompt_embedding, preprocessing, notes)


def trunk_notes(student: Student, sam3: Any, teacher: str) -> tuple[str, ...]:
    """Say so where a student learned from another trunk than that of the SAM 3 it is put into.

    Args:
        student: Whose origin may be unknown: nothing is said then.
        sam3: Still with its trunk.
        teacher: What the note calls `sam3`.
    """
    learned_from = student.origin["teacher_trunk_sha256"]
    if learned_from is None or learned_from == trunk_sha256(sam3):
        return ()
    return (
        f"The student learned from another trunk ({learned_from[:12]}) than that of {teacher}: "
        "its features are not those that this SAM 3 expects.",
    )


def identify(sam3: Any, source: ModelSource, student: Student | None, preprocessing: Preprocessing) -> ModelIdentity:
    """Count and hash a model as it runs, whatever files it came from."""
    vision = sam3.detector_model.vision_encoder
    necks = count_parameters(vision.neck, sam3.tracker_neck)
    trunk = count_parameters(vision.backbone)
    if student is not None and student.detector_neck is not None:
        trunk -= necks  # its copies of the necks are its children, too
    return ModelIdentity(
        source=source.source,
        kind="sam3" if student is None else type(student).__name__,
        sha256=model_sha256(sam3),
        parameters=count_parameters(sam3),
        trunk_parameters=trunk,
        neck_parameters=necks,
        image_size=preprocessing.size,
        teacher=source.teacher,
    )


def count_parameters(*modules: Any) -> int:
    """Count the parameters of some modules, shared ones once."""
    return sum({id(weight): weight.numel() for module in modules for weight in module.parameters()}.values())


def model_sha256(sam3: Any) -> str:
    """Hash all weights and the configuration; equal for equal models, wherever they lie, and whatever they are shown.

    The preprocessing is not in it: two that normalise pictures in another way have the same hash.
    """
    config = {key: value for key, value in sam3.config.to_dict().items() if key not in _NOT_OF_THE_MODEL}
    described = json.dumps(config, sort_keys=True, default=str).encode()
    return tensors_sha256(sorted(sam3.state_dict().items()), described)


_NOT_OF_THE_MODEL = ("_name_or_path", "transformers_version", "architectures")
