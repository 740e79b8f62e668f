import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pl_distill.errors import CheckpointError
from pl_distill.models.student_io import WEIGHTS, build_neck, load_student
from pl_distill.models.tinyvit_fpn import TinyViTFPN
from tests.pl_distill.models.small_student import SIZES

SMALL = {**SIZES, "out_channels": 12}


def small(**changes):
    torch.manual_seed(0)
    return TinyViTFPN(**{**SMALL, **changes})


@pytest.mark.parametrize("necks", [False, True])
def test_a_saved_student_comes_back_equal(tmp_path, necks):
    student = small(gradient_checkpointing=True).train()
    if necks:
        student.attach_necks(build_neck(12, 16, [4.0, 2.0, 1.0, 0.5]), build_neck(12, 16, [4.0, 2.0, 1.0, 0.5]))
    student(torch.randn(4, 3, 64, 64))  # moves BatchNorm's statistics
    student.save_pretrained(tmp_path, teacher="some/teacher", teacher_trunk_sha256="ab12")
    again = load_student(tmp_path)
    assert not again.training
    assert again.config == student.config
    assert again.state_dict().keys() == student.state_dict().keys()
    assert all(torch.equal(value, student.state_dict()[key]) for key, value in again.state_dict().items())
    assert (again.detector_neck is not None) is necks
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(student.eval()(images), again(images))
    description = json.loads((tmp_path / "student.json").read_text())
    assert description["class_path"] == "pl_distill.models.tinyvit_fpn.TinyViTFPN"
    assert (description["teacher"], description["teacher_trunk_sha256"]) == ("some/teacher", "ab12")


def test_attached_necks_are_frozen_copies():
    neck = build_neck(12, 16, [4.0, 2.0, 1.0, 0.5])
    student = small()
    student.attach_necks(neck, neck)
    assert not any(parameter.requires_grad for parameter in student.tracker_neck.parameters())
    assert student.detector_neck is not neck
    assert student.detector_neck is not student.tracker_neck
    assert torch.equal(student.detector_neck.fpn_layers[0].proj1.weight, neck.fpn_layers[0].proj1.weight)


def test_a_student_can_be_loaded_without_the_weights_it_started_from(tmp_path):
    save_file(small().body.state_dict(), tmp_path / "body.safetensors")
    small(pretrained=str(tmp_path / "body.safetensors")).save_pretrained(tmp_path / "student")
    (tmp_path / "body.safetensors").unlink()
    assert load_student(tmp_path / "student").config["pretrained"] == str(tmp_path / "body.safetensors")


def test_a_description_runs_no_code_that_came_with_it(tmp_path, monkeypatch):
    gift = tmp_path / "gift"
    small().save_pretrained(gift)
    (gift / "payload.py").write_text("raise SystemExit('the payload ran')\n")
    edited(gift, class_path="gift.payload.Student")
    monkeypatch.syspath_prepend(tmp_path)  # as the working directory is in a notebook
    with pytest.raises(CheckpointError, match=r"'gift\.payload\.Student' of a module that is not loaded"):
        load_student(gift)


def edited(folder, **changes):
    path = folder / "student.json"
    description = json.loads(path.read_text())
    for key, value in changes.items():
        target = description if key in description else description["init_args"]
        target[key] = value
    path.write_text(json.dumps(description))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"out_channels": 24}, r"other shapes .*head\.1\.weight \(12, 64, 1, 1\) instead of \(24, 64, 1, 1\)"),
        ({"depths": [2, 1, 1, 1]}, r"lacks body\.stages\.0\.blocks\.1\.conv1\.conv\.weight.* and \d+ more"),
        ({"depths": [1, 1, 1, 0]}, r"has the unknown body\.stages\.3\.blocks\.0"),
        ({"class_path": "pl_distill.models.nowhere.Student"}, "cannot be imported"),
        ({"class_path": "pl_distill.models..x"}, "cannot be imported"),
        ({"class_path": ".os.x"}, r"'\.os\.x' of a module that is not loaded"),
        ({"class_path": "torch.nn.Linear"}, "is no Student"),
        ({"invented": 3}, "arguments that TinyViTFPN does not take.*invented"),
        ({"depths": "many"}, "arguments that TinyViTFPN does not take"),
        ({"init_args": [1]}, r"student\.json: has init_args \[1\]"),
        ({"necks": [1]}, r"student\.json: has init_args .* and necks \[1\]"),
        ({"necks": {"hidden_size": 12}}, "does not take .*fpn_hidden_size"),
    ],
)
def test_weights_of_another_architecture_are_refused_by_name(tmp_path, changes, words):
    small().save_pretrained(tmp_path)
    edited(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=words):
        load_student(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda weight: (weight * 100).to(torch.int8),
            r"other kinds of numbers .*torch\.int8 instead of torch\.float32",
        ),
        (lambda weight: weight * float("nan"), "has NaN or infinity in .* more, expected finite weights"),
        (lambda weight: weight.half() / 0, "has NaN or infinity in"),
    ],
    ids=["integers", "NaN", "infinity"],
)
def test_weights_that_are_no_finite_floats_are_refused(tmp_path, change, words):
    student = small()
    student.save_pretrained(tmp_path)
    floats = {key: value for key, value in student.state_dict().items() if value.is_floating_point()}
    save_file({**student.state_dict(), **{key: change(value) for key, value in floats.items()}}, tmp_path / WEIGHTS)
    with pytest.raises(CheckpointError, match=words):
        load_student(tmp_path)


def test_a_description_that_is_a_list_is_refused(tmp_path):
    small().save_pretrained(tmp_path)
    (tmp_path / "student.json").write_text("[1, 2]")
    with pytest.raises(CheckpointError, match=r"student\.json: describes the student by a list, expected a mapping"):
        load_student(tmp_path)


def test_what_is_no_student_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        load_student(tmp_path / "absent")
    with pytest.raises(CheckpointError, match=r"not a folder with student\.json"):
        load_student(tmp_path)
    (tmp_path / "a.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match=r"a\.ckpt: cannot be read"):
        load_student(tmp_path / "a.ckpt")
    torch.save({"state_dict": {}, "epoch": 1}, tmp_path / "b.ckpt")
    with pytest.raises(CheckpointError, match="holds epoch, state_dict, but no student"):
        load_student(tmp_path / "b.ckpt")
    small().save_pretrained(tmp_path / "cut")
    weights = tmp_path / "cut" / "student.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"student\.safetensors: cannot be read"):
        load_student(tmp_path / "cut")


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Surprise:
        def __reduce__(self):
            return (print, ("this must not be printed",))

    torch.save({"student": Surprise(), "state_dict": {}}, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_student(tmp_path / "x.ckpt")


def checkpoint_of(student, **more):
    state = {f"student.{name}": value for name, value in student.state_dict().items()}
    return {"student": student.describe(), "state_dict": state, **more}


def test_a_student_is_read_out_of_a_training_checkpoint(tmp_path):
    student = small()
    content = checkpoint_of(student, epoch=3)
    content["student"]["teacher"] = "some/teacher"
    content["state_dict"]["something.else"] = torch.zeros(1)  # a module may hold more than its student
    torch.save(content, tmp_path / "x.ckpt")
    again = load_student(tmp_path / "x.ckpt")
    assert again.origin == {"teacher": "some/teacher", "teacher_trunk_sha256": None}
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(student.eval()(images), again(images))


def test_a_checkpoint_that_lacks_a_tensor_is_refused_by_name(tmp_path):
    content = checkpoint_of(small())
    del content["state_dict"]["student.head.1.bias"]
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match=r"x\.ckpt: lacks head\.1\.bias, expected exactly the \d+ tensors"):
        load_student(tmp_path / "x.ckpt")


def test_a_deepspeed_directory_without_model_states_is_refused(tmp_path):
    (tmp_path / "x.ckpt" / "checkpoint").mkdir(parents=True)
    with pytest.raises(
        CheckpointError, match=r"holds no model states, expected checkpoint/mp_rank_00_model_states\.pt"
    ):
        load_student(tmp_path / "x.ckpt", trust_pickles=True)


def test_a_deepspeed_directory_is_unpickled_only_where_it_is_trusted(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    folder = tmp_path / "x.ckpt" / "checkpoint"
    folder.mkdir(parents=True)
    torch.save(Trap(), folder / "mp_rank_00_model_states.pt")
    with pytest.raises(CheckpointError, match=r"x\.ckpt: is a directory of DeepSpeed, .* pl-distill convert"):
        load_student(tmp_path / "x.ckpt")
    assert not (tmp_path / "ran").exists()


def test_weights_of_a_student_of_equal_shape_under_another_description_are_refused(tmp_path):
    small().save_pretrained(tmp_path / "one")
    other = small()
    torch.nn.init.ones_(next(other.parameters()))
    other.save_pretrained(tmp_path / "other")
    (tmp_path / "one" / WEIGHTS).replace(tmp_path / "other" / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"student\.safetensors: is not what student\.json describes"):
        load_student(tmp_path / "other")


def test_a_description_without_a_hash_is_that_of_an_older_version(tmp_path):
    small().save_pretrained(tmp_path)
    description = json.loads((tmp_path / "student.json").read_text())
    del description["weights_sha256"]
    (tmp_path / "student.json").write_text(json.dumps(description))
    load_student(tmp_path)


def test_saving_again_replaces_the_student_and_leaves_no_other_file(tmp_path):
    small().save_pretrained(tmp_path)
    small(fpn_channels=8).save_pretrained(tmp_path)
    assert load_student(tmp_path).config["fpn_channels"] == 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["student.json", "student.safetensors"]


def test_what_builds_a_student_is_copied_when_it_is_described():
    student = small()
    student.describe()["init_args"]["depths"].append(7)
    assert student.config["depths"] == [1, 1, 1, 1]
