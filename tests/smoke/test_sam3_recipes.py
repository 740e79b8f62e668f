"""The recipes that train SAM 3 itself: the pen's teacher trains in both stages, the real one's recipes parse."""

from pathlib import Path

import pytest
import torch
import yaml

from pl_distill.commands.lightning import RecipeCLI, run_lightning
from pl_distill.models.prompts import load_prompts
from pl_distill.models.sam3 import load_sam3, load_sam3_config, meta_sam3
from pl_distill.models.sam3_random import sam3_processor
from pl_distill.models.sam3_training import TrainableSam3

pytestmark = pytest.mark.smoke

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
STAGES = ("detector", "tracker")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Options that make a recipe of the pen's teacher small; the data are drawn once and shared by both stages."""
    folder = tmp_path_factory.mktemp("pen_teacher")
    (folder / "pen.yaml").write_text("domain: small\nwidth: 128\nheight: 72\nnum_animals: 2\n")
    config = load_sam3_config("tiny").to_dict()
    config["tracker_config"]["prompt_encoder_config"]["mask_input_channels"] = 16
    (folder / "sam3.yaml").write_text(yaml.safe_dump(config))
    pens = f"[{{domain: {folder / 'pen.yaml'}, pens: 1}}]"
    return folder, [
        f"--data.folder={folder / 'data'}", f"--data.train={pens}", f"--data.val={pens}", "--data.frames_per_pen=22",
        "--data.processes=1", "--data.image_size=112", "--data.mask_size=32", "--data.batch_size=2",
        "--data.num_workers=0", "--trainer.max_steps=2", "--trainer.val_check_interval=2",
        "--trainer.limit_val_batches=1", "--trainer.enable_model_summary=false",
        "--trainer.devices=1", "--trainer.strategy=auto",  # a launcher would run pytest again
    ]  # fmt: skip


def test_both_stages_of_the_pens_teacher_train_export_and_go_on(small):
    folder, options = small
    source = folder / "sam3.yaml"
    for stage in STAGES:
        run = folder / stage
        recipe = yaml.safe_load((CONFIGS / "pen_teacher" / f"{stage}.yaml").read_text())
        checkpoint = recipe["trainer"]["callbacks"][1]["init_args"]
        assert checkpoint.pop("every_n_train_steps") > 2
        checkpoint["every_n_train_steps"] = 2
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        words = ["fit", "--config", str(folder / "recipe.yaml"), f"--model.sam3={source}", *options]
        words += [f"--trainer.default_root_dir={run}"]
        assert run_lightning(words).trainer.global_step == 2
        again = run_lightning([*words, "--ckpt_path=last", "--trainer.max_steps=4"])
        assert again.trainer.global_step == 4
        assert all(torch.isfinite(tensor).all() for tensor in load_sam3(run / "sam3").state_dict().values())
        assert sorted(load_prompts(run / "sam3")) == ["feeder", "pig", "toy"]
        source = run / "sam3"
    for stage in STAGES:  # what is trained longer begins with what was trained
        before, run = load_sam3(source).state_dict(), folder / "longer" / stage
        words = ["fit", "--config", f"pen_teacher/{stage}.yaml", "--config", f"pen_teacher/longer/{stage}.yaml"]
        words += [f"--model.sam3={source}", *options, "--data.first_seed=1000", f"--trainer.default_root_dir={run}"]
        assert run_lightning(words).trainer.global_step == 2
        source = run / "sam3"
        changes = [
            (tensor - before[name]).abs().max() / before[name].abs().max().clamp(min=1e-3)
            for name, tensor in load_sam3(source).state_dict().items()
            if tensor.is_floating_point()
        ]
        assert 0 < max(changes) < 0.1, "far less than from another start"


@pytest.fixture
def parse(monkeypatch):
    """Return a function that parses a recipe, builds model and data without their networks, and starts nothing."""
    monkeypatch.setattr(RecipeCLI, "_run_subcommand", lambda *_: None)
    monkeypatch.setattr(RecipeCLI, "instantiate_trainer", lambda *_: None)  # one for GPUs refuses to exist without

    def run(recipe, *words):
        return run_lightning(["fit", "--config", recipe, *words])

    return run


@pytest.mark.parametrize("stage", STAGES)
def test_the_pens_teacher_never_sees_sheep_farm_b_or_evaluation(stage, parse):
    data = yaml.safe_load((CONFIGS / "pen_teacher" / f"{stage}.yaml").read_text())["data"]["init_args"]
    domains = {share["domain"] for share in (*data["train"], *data["val"])}
    assert domains == {"day", "dusk", "straw", "black-coat", "low-camera", "crowded"}
    parsed = parse(f"pen_teacher/{stage}.yaml").datamodule
    assert len(parsed.pens) == sum(share["pens"] for share in (*data["train"], *data["val"]))
    assert all(pen.seed < 1_000_000 for pen in parsed.pens)
    config = load_sam3_config("pen")
    assert parsed.preprocessing.size == config.detector_config.vision_config.backbone_config.image_size
    assert parsed.mask_size == config.low_res_mask_size


def test_both_stages_share_their_pens(parse):
    first, second = (parse(f"pen_teacher/{stage}.yaml").datamodule for stage in STAGES)
    assert first.pens == second.pens
    assert first.split == second.split
    longer = [
        parse(f"pen_teacher/{stage}.yaml", "--config", f"pen_teacher/longer/{stage}.yaml").datamodule
        for stage in STAGES
    ]
    assert longer[0].pens == longer[1].pens
    assert not {pen.seed for pen in longer[0].pens} & {pen.seed for pen in first.pens}
    assert {pen.domain for pen in longer[0].pens} == {pen.domain for pen in first.pens}


def test_words_kept_for_the_test_of_words_are_not_in_the_recipe(parse):
    words = set(parse("pen_teacher/detector.yaml").model.vocabulary.absent)
    assert not words & {
        "cow",
        "dog",
        "cat",
        "chair",
        "banana",
        "train",
        "house",
        "river",
        "guitar",
        "bicycle",
        "candle",
    }


@pytest.mark.parametrize("stage", STAGES)
def test_a_recipe_for_the_real_sam3_trains_a_tiny_one_goes_on_and_exports(stage, cached, tmp_path):
    data = cached("tiny")
    recipe = yaml.safe_load((CONFIGS / "finetune" / f"{stage}.yaml").read_text())
    checkpoint = recipe["trainer"]["callbacks"][1]["init_args"]
    assert checkpoint.pop("every_n_train_steps") > 1
    checkpoint["every_n_train_steps"] = 1
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    words = ["fit", "--config", str(tmp_path / "recipe.yaml"), f"--model.sam3={data.teacher}"]
    words += [f"--data.shards={data.shards}", "--data.image_size=112", "--data.mask_size=32", "--data.num_workers=0"]
    words += ["--trainer.accelerator=cpu", "--trainer.val_check_interval=1", "--trainer.limit_val_batches=1"]
    words += ["--trainer.strategy=auto"]  # a launcher would run pytest again
    words += ["--trainer.enable_model_summary=false", f"--trainer.default_root_dir={tmp_path / 'run'}"]
    if stage == "tracker":
        words += ["--data.offsets=[[0,1,2]]", "--data.val_offsets=[0,1,2]"]  # the clips have eight frames
    assert run_lightning([*words, "--trainer.max_steps=1"]).trainer.global_step == 1
    again = run_lightning([*words, "--trainer.max_steps=2", "--ckpt_path=last"])
    assert again.trainer.global_step == 2
    idle = [name for name, weight in again.model.named_parameters() if weight.requires_grad and weight.grad is None]
    assert any("fpn_layers.3." in name for name in idle)
    assert recipe["trainer"]["strategy"] == "ddp_find_unused_parameters_true", "plain DDP waits for their gradients"
    before, after = (load_sam3(folder).state_dict() for folder in (data.teacher, tmp_path / "run" / "sam3"))
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert all(torch.isfinite(after[name]).all() for name in moved)
    trained = ("detector_model.",) if stage == "detector" else ("tracker_model.", "tracker_neck.")
    assert moved
    assert all(name.startswith(trained) for name in moved)
    assert not any(name.startswith("detector_model.vision_encoder.backbone.") for name in moved)
    assert "pig" in load_prompts(tmp_path / "run" / "sam3")


@pytest.mark.parametrize("stage", STAGES)
def test_a_recipe_for_the_real_sam3_builds_on_the_meta_device(stage, parse, monkeypatch):
    model = meta_sam3(load_sam3_config("real"))
    model.detector_model.geometry_encoder = None
    opened = TrainableSam3(model, sam3_processor(model.config))  # the 3.4 GB of weights are all that is left out
    monkeypatch.setattr(f"pl_distill.modules.sam3_{stage}.open_sam3", lambda *_, **__: opened)
    module = parse(f"finetune/{stage}.yaml", "--data.shards=none").model
    with torch.device("meta"):
        module.configure_model()
    assert all(parameter.is_meta for parameter in module.parameters())
    whole = sum(parameter.numel() for parameter in module.parameters())
    trained = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    if stage == "detector":
        assert whole == 840_376_374 - 8_083_456 + 1_285  # the detector without geometry encoder, a head for tokens
        assert trained == whole - 446_236_672 - 353_462_272 - 262_400  # trunk, text encoder, its projection
    else:
        assert trained == whole == 11_743_362 + 7_802_112  # tracker and its neck


@pytest.mark.parametrize("stage", STAGES)
def test_a_recipe_for_the_real_sam3_parses_with_its_own_size(stage, parse):
    cli = parse(f"finetune/{stage}.yaml", "--data.shards=none")
    assert cli.model.sam3 == "facebook/sam3"
    config = load_sam3_config("real")
    assert cli.datamodule.preprocessing.size == config.detector_config.vision_config.backbone_config.image_size
    assert cli.datamodule.mask_size == config.low_res_mask_size
