"""Every recipe: those for the pen train, are killed, go on and are read back; those of real size parse and build."""

from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Callback
from torch.utils.flop_counter import FlopCounterMode

from pl_distill.commands.lightning import RecipeCLI, run_lightning
from pl_distill.models.sam3 import load_sam3_config, meta_sam3, read_geometry
from pl_distill.models.student_io import load_student
from pl_distill.modules.distillation import DistillationModule

pytestmark = pytest.mark.smoke

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
RECIPES = sorted(str(path.relative_to(CONFIGS)) for path in (CONFIGS / "distill").glob("*.yaml"))
ABLATIONS = sorted(str(path.relative_to(CONFIGS)) for path in (CONFIGS / "distill/ablation").glob("*.yaml"))
TRAINERS = sorted(str(path.relative_to(CONFIGS)) for path in (CONFIGS / "trainer").glob("*.yaml"))
CACHES = sorted(str(path.relative_to(CONFIGS)) for path in (CONFIGS / "cache").glob("*.yaml"))


def of_real_size(recipe: str) -> bool:
    model = yaml.safe_load((CONFIGS / recipe).read_text())["model"]
    return model["init_args"].get("teacher") == "facebook/sam3"


PEN = [recipe for recipe in RECIPES if not of_real_size(recipe)]
REAL = [recipe for recipe in RECIPES if of_real_size(recipe)]
DESIGNS = ["distill/edinburgh.yaml", "distill/pen.yaml"]  # the dual ones differ from these in model and target alone
OTHER_CLASSES = {"mse", "efficientsam3", "relational"}  # of the class of the loss; those of weights train alike


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """A folder for each shipped SAM 3 configuration with config.json and nothing else: shapes without weights."""
    root = tmp_path_factory.mktemp("configs")
    for name in ("pen", "real"):
        load_sam3_config(name).save_pretrained(root / name)
    return root


@pytest.fixture
def parse(monkeypatch):
    """Return a function that parses recipes, builds model and data without their networks, and starts nothing."""
    monkeypatch.setattr(RecipeCLI, "_run_subcommand", lambda *_: None)
    monkeypatch.setattr(RecipeCLI, "instantiate_trainer", lambda *_: None)  # one for GPUs refuses to exist without

    def run(verb, *recipes, **options):
        words = [word for recipe in recipes for word in ("--config", recipe)]
        return run_lightning([verb, *words, *(f"--{name}={value}" for name, value in options.items())])

    return run


def fit(recipe, data, folder, *more):
    small = ["--data.batch_size=2", "--data.num_workers=0", "--trainer.max_steps=6"]
    small.append(f"--trainer.default_root_dir={folder}")
    words = ["fit", "--config", recipe, "--config", "trainer/smoke.yaml"]
    return run_lightning([*words, *data.options, *small, *more]).model


@pytest.mark.parametrize(
    ("recipe", "teacher"),
    [*((recipe, "pen") for recipe in PEN), pytest.param("distill/pen.yaml", "tiny", marks=pytest.mark.slow)],
)
def test_a_pen_recipe_trains_resumes_and_reloads(recipe, teacher, cached, tmp_path, monkeypatch):
    data = cached(teacher)
    whole = fit(recipe, data, tmp_path / "whole")
    assert whole.global_step == 6

    def die_at_3(self, batch, batch_idx):  # in the first epoch of four steps; the last checkpoint is of step 2
        if self.global_step == 3:
            raise KeyError("power cut")
        return step(self, batch, batch_idx)

    step = DistillationModule.training_step
    with monkeypatch.context() as patch:
        patch.setattr(DistillationModule, "training_step", die_at_3)
        with pytest.raises(KeyError, match="power cut"):
            fit(recipe, data, tmp_path / "killed")
    resumed = fit(recipe, data, tmp_path / "killed", "--ckpt_path=last")
    ours, theirs = resumed.student.state_dict(), whole.student.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)

    student = load_student(tmp_path / "killed" / "checkpoints" / "last.ckpt")
    assert student.origin["teacher"] == str(data.teacher)
    images = torch.randn(1, 3, 112, 112)
    with torch.no_grad():
        ours, theirs = (
            [answer] if isinstance(answer, torch.Tensor) else [*answer.detector, *answer.tracker]
            for answer in (student(images), resumed.student.eval()(images))
        )
    assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))
    left = {path.name for path in (tmp_path / "killed").rglob("*")}
    assert {"best.ckpt", "last.ckpt", "config.yaml"} <= left
    assert any(name.startswith("events.out.tfevents") for name in left)


@pytest.mark.parametrize(
    "recipe", [pytest.param(one, marks=() if one == "distill/pen.yaml" else pytest.mark.slow) for one in PEN]
)
@pytest.mark.parametrize(
    "ablation",
    [pytest.param(one, marks=() if Path(one).stem in OTHER_CLASSES else pytest.mark.slow) for one in ABLATIONS],
)
def test_an_ablation_of_a_pen_recipe_trains_resumes_and_reloads(recipe, ablation, cached, tmp_path):
    data, more = cached("tiny"), ["--config", ablation, "--trainer.val_check_interval=1"]
    start = fit(recipe, data, tmp_path, *more, "--trainer.max_steps=1").student.state_dict()
    resumed = fit(recipe, data, tmp_path, *more, "--trainer.max_steps=2", "--ckpt_path=last")
    assert resumed.global_step == 2
    student = load_student(tmp_path / "checkpoints" / "last.ckpt").state_dict()
    assert all(torch.equal(student[name], value) for name, value in resumed.student.state_dict().items())
    moved = [name for name, value in student.items() if not torch.equal(value, start[name])]
    assert len(moved) > len(student) / 2
    assert all(torch.isfinite(student[name]).all() for name in moved)


@pytest.mark.parametrize("recipe", REAL)
def test_a_recipe_of_real_size_builds_on_the_meta_device(recipe, parse, teachers):
    options = {"model.teacher": teachers / "real", "model.student.pretrained": "", "data.shards": "none"}
    module = parse("fit", recipe, "trainer/gpu_1.yaml", **options).model
    with torch.device("meta"):
        module.configure_model()
        answer = module(torch.empty(1, 3, 1008, 1008))
    parameters = sum(parameter.numel() for parameter in module.student.parameters())
    if module.student.keeps_necks:
        assert answer.shape == (1, 1024, 72, 72)
        parameters += 2 * 7_802_112
    else:
        assert [level.shape for level in answer.tracker] == [(1, 256, side, side) for side in (288, 144, 72)]
    assert all(parameter.is_meta for parameter in module.parameters())
    assert abs(parameters / 40.66e6 - 1) < 0.005


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("recipe", DESIGNS)
def test_every_recipe_goes_with_every_trainer(recipe, trainer, parse, teachers):
    config = parse("fit", recipe, trainer, **{"model.teacher": teachers / "real", "data.shards": "none"}).config.fit
    assert config.trainer.max_steps > 0
    validates = config.trainer.val_check_interval < config.trainer.max_steps
    shown = "callbacks.feature_preview.FeaturePreview" in [one.class_path for one in config.trainer.callbacks]
    assert shown is validates is (trainer != "trainer/ablation_cpu.yaml")
    assert config.trainer.logger.class_path.endswith("TensorBoardLogger")


@pytest.mark.parametrize("recipe", DESIGNS)
def test_every_ablation_changes_the_loss_of_every_recipe_and_nothing_else(recipe, parse, teachers):
    def config(*recipes):
        return parse("fit", *recipes, **{"model.teacher": teachers / "real", "data.shards": "none"}).config.fit

    plain = config(recipe).as_dict()
    losses = [plain["model"]["init_args"].pop("loss")]
    for ablation in ABLATIONS:
        changed = config(recipe, ablation).as_dict()
        losses.append(changed["model"]["init_args"].pop("loss"))
        assert {**changed, "config": None} == {**plain, "config": None}
    assert all(losses.count(loss) == 1 for loss in losses)
    shares = {loss["init_args"]["pyramid_share"] for loss in losses if "pyramid_share" in loss["init_args"]}
    assert len(shares) == 1


def test_a_recipe_can_go_over_another(parse, teachers):
    """So `ablate --arms distill/pen_dual.yaml` compares designs."""
    options = {"model.teacher": teachers / "pen", "data.shards": "none"}
    over, alone = (
        parse("fit", *recipes, "trainer/cpu.yaml", "distill/pen_dual.yaml", **options).config.fit.as_dict()
        for recipes in (["distill/pen.yaml"], [])
    )
    assert over["model"]["init_args"]["student"] == alone["model"]["init_args"]["student"]
    assert over["model"]["init_args"]["target"] == "pyramids"


@pytest.mark.parametrize(
    "recipe", [pytest.param(one, marks=() if one == "distill/pen.yaml" else pytest.mark.slow) for one in PEN]
)
def test_no_term_of_the_loss_is_idle_once_the_ramp_is_over(recipe, cached, tmp_path):
    """In EfficientSAM3's stage 1 the second term is at most 0.2 % of the first, and its log does not show it."""
    of_gradient, of_value = [], []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, module, *_):
            metrics = trainer.callback_metrics
            weighted = {
                name: weight * metrics[f"train/{name}"].item()
                for name, weight in module.loss.weights.items()
                if f"train/{name}" in metrics
            }
            if trainer.global_step > 0.3 * trainer.max_steps:
                of_value.append({name: part / sum(weighted.values()) for name, part in weighted.items()})
                of_gradient.append({key: float(part) for key, part in metrics.items() if "gradient_share/" in key})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DistillationModule, "configure_callbacks", lambda self: [Watch()])
        fit(recipe, cached("pen_teacher"), tmp_path, "--trainer.max_steps=24", "--model.gradient_norms_every=8",
            "--trainer.val_check_interval=24")  # fmt: skip
    assert len(of_value) > 8
    for shares in (of_value, of_gradient[2:]):  # the gradients are measured anew at steps 8 and 16
        assert {len(found) for found in shares} == {4 if "dual" not in recipe else 2}
        assert min(part for found in shares for part in found.values()) > 0.05


@pytest.mark.parametrize("recipe", CACHES)
def test_every_cache_recipe_parses(recipe, parse, teachers):
    options = {"model.teacher": teachers / "real", "data.shards": "none"}
    assert parse("predict", recipe, **options).model.teacher == str(teachers / "real")


@pytest.mark.parametrize("recipe", PEN)
def test_the_pens_student_is_small_beside_the_trunk_that_it_replaces(recipe, parse, teachers):
    module = parse("fit", recipe, **{"model.teacher": teachers / "pen", "data.shards": "none"}).model
    with torch.device("meta"):
        module.configure_model()
    trunk = meta_sam3(load_sam3_config("pen")).detector_model.vision_encoder.backbone
    size = read_geometry(teachers / "pen").image_size
    images = torch.empty(1, 3, size, size, device="meta")

    def parameters(network):
        return sum(parameter.numel() for parameter in network.parameters())

    def flops(network):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network.eval()(images)
        return counter.get_total_flops()

    assert parameters(trunk) >= 4 * parameters(module.student)
    assert flops(trunk) >= 3 * flops(module.student)
