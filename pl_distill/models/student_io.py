"""What every student is, and how it is written to disk and read back.

A student's folder holds `student.safetensors` and `student.json`; a student can also be read out of the training
checkpoints of `DistillationModule`, Lightning's single file or DeepSpeed's directory. Keys and shapes must fit exactly.
"""

import copy
import json
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from datamodules.errors import UserError
from datamodules.files import atomic_path, sha256_of, write_json
from pl_distill.assets import shipped_students
from pl_distill.errors import CheckpointError
from pl_distill.models.checkpoints import find_deepspeed_states, load_strictly, read_checkpoint

WEIGHTS = "student.safetensors"
DESCRIPTION = "student.json"
ORIGIN = ("teacher", "teacher_trunk_sha256")
OWN = "pl_distill."  # where classes of students lie that come with us
WEIGHTS_SHA256 = "weights_sha256"  # of the file; descriptions of older versions lack it


class Student(nn.Module):
    """A network that answers like a teacher's trunk: images (B, 3, S, S) to a map (B, C, h, w).

    A design with `keeps_necks` False answers like trunk and both necks together: with `Pyramids`.

    `detector_neck` and `tracker_neck` are None, or frozen copies of the teacher's two necks: the student then covers
    everything that a SAM 3 computes from pixels, and is counted and saved with them.

    Args:
        config: The arguments that build this student again: plain values that JSON can hold.

    Attributes:
        origin: Where a student that was read from disk learned: ``teacher``, a folder or hub name, and
            ``teacher_trunk_sha256``; each None where it is not known.
    """

    keeps_necks: ClassVar[bool] = True  # whether this design answers with the trunk's map, which the necks then read

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = dict(config)
        self.origin: dict[str, str | None] = dict.fromkeys(ORIGIN)
        self.detector_neck: nn.Module | None = None
        self.tracker_neck: nn.Module | None = None

    def attach_necks(self, detector_neck: nn.Module, tracker_neck: nn.Module) -> None:
        """Copy the teacher's necks (transformers' `Sam3VisionNeck`) into the student and freeze the copies."""
        self.detector_neck = copy.deepcopy(detector_neck).requires_grad_(False).eval()
        self.tracker_neck = copy.deepcopy(tracker_neck).requires_grad_(False).eval()

    def describe(self) -> dict[str, Any]:
        """Return class path and arguments, as plain values: what a checkpoint needs to build this student again."""
        return {
            "class_path": f"{type(self).__module__}.{type(self).__qualname__}",
            "init_args": copy.deepcopy(self.config),
        }

    def save_pretrained(
        self, folder: str | Path, teacher: str | None = None, teacher_trunk_sha256: str | None = None
    ) -> None:
        """Write weights, then the description, which holds their hash, into `folder`; each is whole or the old one.

        After a kill between the two the folder is refused: equal shapes would not tell weights and description apart.

        Args:
            folder: Is made if need be; an older student in it is replaced.
            teacher: Where the teacher came from: a folder or hub name.
            teacher_trunk_sha256: Hash of the trunk that this student learned from.
        """
        folder = Path(folder)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        with atomic_path(folder / WEIGHTS) as temporary:
            save_file(tensors, temporary, metadata={"format": "pt"})
        necks = None if self.detector_neck is None else _neck_sizes(self.detector_neck)
        origin = {"teacher": teacher, "teacher_trunk_sha256": teacher_trunk_sha256}
        written = {WEIGHTS_SHA256: sha256_of(folder / WEIGHTS)}
        write_json(folder / DESCRIPTION, {**self.describe(), "necks": necks, **origin, **written})


class StudentFactory(Protocol):
    """Builds a student for one teacher: the shape of its map comes from there, everything else from the recipe."""

    def __call__(self, *, out_channels: int, grid: int) -> Student:
        """Build a student whose map is (B, out_channels, grid, grid), or whose levels have `out_channels`."""
        ...


def find_student(source: str | Path) -> Path | None:
    """Return where a student lies, in a folder of its own, a shipped one or a checkpoint; None where there is none."""
    path = Path(source)
    if path.is_file() or (path / DESCRIPTION).is_file() or (path / "checkpoint").is_dir():
        return path
    return None if path.exists() else shipped_students().get(str(source))


def load_student(source: str | Path, *, trust_pickles: bool = False) -> Student:
    """Read a student, on the CPU and in eval mode.

    Args:
        source: A folder of `save_pretrained`, the name of a shipped student, or a checkpoint of `DistillationModule`:
            Lightning's file or DeepSpeed's directory.
        trust_pickles: Whether a directory of DeepSpeed is opened: its files are pickles of more than tensors, which can
            run any code. `pl-distill convert` does so, when a user names a run's own.

    Raises:
        CheckpointError: There is no student, its weights do not fit its description, or it is a directory of DeepSpeed
            that nobody has called trusted.
    """
    path = find_student(source)
    if path is None:
        raise CheckpointError(
            source,
            "is not a folder with student.json and not a checkpoint" if Path(source).exists() else "does not exist",
            "a student's folder, a .ckpt of `pl-distill fit`, or a shipped student: " + ", ".join(shipped_students()),
            "Check the path.",
        )
    if path.is_file():
        description, tensors = _from_checkpoint(read_checkpoint(path), path)
    elif (path / DESCRIPTION).is_file():
        description, tensors = _read_folder(path)
    elif trust_pickles:
        description, tensors = _read_deepspeed(path)
    else:
        found = "is a directory of DeepSpeed, whose files are pickles that can run any code"
        fix = f"If it is of a run of yours: pl-distill convert --checkpoint {path} --out student"
        raise CheckpointError(path, found, "a student's folder or a single .ckpt", fix)
    description = _check_description(description, path / DESCRIPTION if path.is_dir() else path)
    student = _build(description, path)
    load_strictly(student, tensors, path)
    written = description.get(WEIGHTS_SHA256)  # of folders alone
    if written is not None and written != sha256_of(path / WEIGHTS):
        raise CheckpointError(
            path / WEIGHTS,
            f"is not what {DESCRIPTION} describes: its SHA-256 is another",
            "weights and description of one student",
            "Save the student again, or copy both files.",
        )
    student.origin = {key: description.get(key) for key in ORIGIN}
    return student.eval()


def _read_folder(folder: Path) -> tuple[Any, dict[str, Tensor]]:
    fix = "Save the student again, or copy the whole folder."
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(folder / DESCRIPTION, f"is not JSON ({error})", "a student's description", fix) from error
    try:
        return description, load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(folder / WEIGHTS, f"cannot be read ({error})", "a student's weights", fix) from error


def _read_deepspeed(path: Path) -> tuple[Any, dict[str, Tensor]]:
    # The one place that opens pickles of arbitrary content: ZeRO's shards hold DeepSpeed's own classes.
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    client = torch.load(find_deepspeed_states(path), map_location="cpu", weights_only=False)
    client["state_dict"] = get_fp32_state_dict_from_zero_checkpoint(str(path), tag="checkpoint")
    return _from_checkpoint(client, path)


def _from_checkpoint(checkpoint: Mapping[str, Any], path: Path) -> tuple[Any, dict[str, Tensor]]:
    if "student" not in checkpoint or "state_dict" not in checkpoint:
        found = f"holds {', '.join(sorted(map(str, checkpoint))[:8])}, but no student"
        raise CheckpointError(
            path, found, "a checkpoint of DistillationModule", "Give a checkpoint of `pl-distill fit`."
        )
    prefix = "student."
    state = checkpoint["state_dict"]
    return checkpoint["student"], {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _check_description(description: Any, where: Path) -> dict[str, Any]:
    expected = "a mapping with class_path, init_args and, where it keeps necks, their sizes"
    fix = "Save the student again."
    if not isinstance(description, dict):
        raise CheckpointError(where, f"describes the student by a {type(description).__name__}", expected, fix)
    necks = description.get("necks")
    if not isinstance(description.get("init_args"), dict) or not isinstance(necks, dict | None):
        found = f"has init_args {description.get('init_args')!r} and necks {necks!r}"
        raise CheckpointError(where, found, expected, fix)
    return description


def _build(description: Mapping[str, Any], path: Path) -> Student:
    module_name, _, class_name = str(description.get("class_path", "")).rpartition(".")
    if not module_name.startswith(OWN) and module_name not in sys.modules:  # to import is to run what lies there
        raise CheckpointError(
            path, f"names the class {description.get('class_path')!r} of a module that is not loaded",
            f"one of {OWN}* or of a module that was imported before", "Import it yourself, if you trust it.",
        )  # fmt: skip
    try:
        student_class = getattr(import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        found = f"names the class {description.get('class_path')!r}, which cannot be imported ({error})"
        raise CheckpointError(path, found, "the class path of a student", "Install the package that has it.") from error
    if not (isinstance(student_class, type) and issubclass(student_class, Student)):
        found = f"names {description['class_path']!r}, which is no Student"
        raise CheckpointError(path, found, "a subclass of pl_distill.models.student_io.Student", "Check student.json.")
    arguments = dict(description["init_args"])
    try:
        # The weights follow: fetching those that training started from would be wasted, or fail without a network.
        student = student_class(**{**arguments, "pretrained": None} if "pretrained" in arguments else arguments)
        student.config = arguments
        if description.get("necks"):
            student.attach_necks(build_neck(**description["necks"]), build_neck(**description["necks"]))
    except UserError:
        raise
    except Exception as error:  # nothing but these values has come in, and timm checks few of them
        found = f"has arguments that {class_name} does not take ({type(error).__name__}: {error})"
        raise CheckpointError(
            path, found, "the arguments of this version's student", "Use the version that wrote it."
        ) from error
    return student


def build_neck(hidden_size: int, fpn_hidden_size: int, scale_factors: list[float]) -> nn.Module:
    """Build one of SAM 3's necks with random weights.

    Args:
        hidden_size: Channels of the trunk.
        fpn_hidden_size: Channels of every level.
        scale_factors: Size of each level relative to the trunk's grid; SAM 3 has 4, 2, 1 and a half.
    """
    from transformers.models.sam3.configuration_sam3 import Sam3VisionConfig
    from transformers.models.sam3.modeling_sam3 import Sam3VisionNeck

    backbone = {"model_type": "sam3_vit_model", "hidden_size": hidden_size}
    config = Sam3VisionConfig(
        backbone_config=backbone,
        fpn_hidden_size=fpn_hidden_size,
        scale_factors=[float(scale) for scale in scale_factors],
    )
    neck: nn.Module = Sam3VisionNeck(config)
    return neck


def _neck_sizes(neck: nn.Module) -> dict[str, Any]:
    config: Any = neck.config
    return {
        "hidden_size": config.backbone_config.hidden_size,
        "fpn_hidden_size": config.fpn_hidden_size,
        "scale_factors": list(config.scale_factors),
    }
