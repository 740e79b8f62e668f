"""What is predicted on fake tensors against what torch's CPU allocator gave out for real ones: within 10 %."""

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.utils.data import DataLoader

from datamodules.pen import load_pen_config, pen_frames
from pl_distill.assets import shipped_models
from pl_distill.deploy.allocations import AllocationTracker
from pl_distill.deploy.operations import operations
from pl_distill.deploy.prediction import predict_embedder, predict_stream
from pl_distill.deploy.scripted_stream import ScriptedStream
from pl_distill.deploy.systems import build_embedder, build_student, build_teacher, drop_unused, fake_tensors
from pl_distill.deploy.training import CudaAutocastRules, predict_training, states_per_parameter
from pl_distill.losses.feature_loss import Progress
from pl_distill.models.prompts import load_prompts
from pl_distill.models.sam3 import Sam3Geometry, load_preprocessing, load_sam3, load_sam3_config, substitute
from pl_distill.streaming import PruningPolicy, StreamingTracker

ANIMALS, FRAMES = 3, 4
WITHIN = 0.10


def make_real(module: nn.Module) -> nn.Module:
    """Memory and small numbers for what was built without."""
    module.to_empty(device="cpu")
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor.is_floating_point():
            tensor.data.normal_(std=0.02)
        else:
            tensor.zero_()  # tables of indices
    return module


def held(*modules: nn.Module) -> int:
    tracker = AllocationTracker()
    tracker.hold(*modules)
    return tracker.live_bytes


def parts_of_a_system(recipe):
    model = drop_unused(build_teacher(recipe.config))
    return model, build_student(recipe.module.build_student, model, pyramids=False, dtype=torch.float32)


def agree(what: str, predicted: int, measured: int) -> None:
    """Compare and print, for whoever asks with ``pytest -s``."""
    print(f"\n{what}: predicted {predicted:,} bytes, measured {measured:,}, ratio {predicted / measured:.3f}")
    assert predicted == pytest.approx(measured, rel=WITHIN)


def test_a_stream_of_the_students_system(recipe, measure):
    policy = PruningPolicy("bounded")
    model, student = parts_of_a_system(recipe)
    with fake_tensors("cpu"):
        fake = substitute(model.to_empty(device="cpu"), student.to_empty(device="cpu"))
        predicted = predict_stream(fake, ANIMALS, FRAMES, policy)
    model = substitute(*map(make_real, parts_of_a_system(recipe)))  # no position encoding is left from before

    def run():
        stream = ScriptedStream(model, ANIMALS, policy)
        for _ in range(FRAMES):
            stream.step()

    measured = held(model) + measure(run)
    agree("stream", predicted.peak_bytes, measured)


def test_the_embedder(measure):
    with fake_tensors("cpu"):
        pass
    embedder = make_real(build_embedder())
    with torch.inference_mode():
        measured = held(embedder) + measure(lambda: embedder(torch.zeros(ANIMALS, 3, 256, 256)))
    fake = build_embedder()
    with fake_tensors("cpu"):
        predicted = predict_embedder(fake.to_empty(device="cpu"), ANIMALS)
    agree("embedder", predicted.peak_bytes, measured)


def test_a_training_step(recipe, measure):
    batch_size, geometry = 2, Sam3Geometry.of(recipe.config)
    module = recipe.fill_module()
    states = states_per_parameter(module)
    assert states == 2  # AdamW's
    with fake_tensors("cpu"):
        module.student.to_empty(device="cpu")
        module.necks.to_empty(device="cpu")
        predicted = predict_training(module, geometry, batch_size, states, mixed=False)
    module = recipe.fill_module()
    make_real(module.student), make_real(module.necks)
    module.gradient_meter.every = 1
    frame = {
        "key": "",
        "image": torch.randn(3, geometry.image_size, geometry.image_size),
        "teacher_map": torch.randn(geometry.map_shape),
    }
    trainer = Trainer(
        accelerator="cpu",
        max_steps=2,  # the optimiser has its states from the second on
        gradient_clip_val=0.01,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = DataLoader([frame] * 2 * batch_size, batch_size)
    measured = held(module.student, module.necks) + measure(lambda: trainer.fit(module, loader))
    agree("training step", predicted, measured)


def test_half_precision_training_keeps_what_cudas_autocast_keeps(recipe):
    """The fake step runs on a CPU under CUDA's rules; its forward pass is compared with one on a fake GPU."""
    batch_size, geometry, kept = 2, Sam3Geometry.of(recipe.config), {}
    for device in ("cpu", "cuda"):
        module = recipe.fill_module()
        torch.set_autocast_enabled("cuda", device == "cuda")  # torch.autocast refuses where there is no GPU
        torch.set_autocast_dtype("cuda", torch.bfloat16)
        try:
            with fake_tensors(device):
                module.student.to_empty(device=device)
                module.necks.to_empty(device=device)
                batch = {
                    "image": torch.zeros(batch_size, 3, geometry.image_size, geometry.image_size),
                    "teacher_map": torch.zeros(batch_size, *geometry.map_shape),
                }
                tracker = AllocationTracker()
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=device == "cpu"), CudaAutocastRules(), tracker:
                    features = module.compare(batch, level_images=module.loss.pyramid_images(batch_size))
                    loss = module.loss(*features, Progress(1, 2))["loss"]
                kept[device] = tracker.live_bytes
                del features, loss
        finally:
            torch.set_autocast_enabled("cuda", False)
    assert kept["cpu"] == pytest.approx(kept["cuda"], rel=0.05)


def test_a_real_stream_remembers_at_most_what_is_predicted_and_as_much_a_memory():
    """The shipped teacher on a drawn pen: which animals are seen well, and when, is up to the pictures."""
    policy, folder, frames = PruningPolicy("bounded"), shipped_models()["pen_teacher"], 8
    tracker = StreamingTracker(load_sam3(folder), load_prompts(folder)["pig"], load_preprocessing(folder), policy)
    for index, frame in enumerate(pen_frames(load_pen_config("day"), seed=1_000_601, frames=frames)):
        animals = len(tracker.update(frame.image, index / 6).ids)
    real, histories = tracker.session.tensor_bytes(), tracker.session.output_dict_per_obj.values()
    memories = sum(len(kept) for history in histories for kept in history.values())
    window = tracker.session.window
    assert window.full_after(tracker.model.recondition_every_nth_frame) < frames
    model = drop_unused(build_teacher(tracker.model.config))
    with fake_tensors("cpu"):
        predicted = predict_stream(model.to_empty(device="cpu"), animals, frames, policy).session_bytes
    most = animals * (window.conditioning + window.memories)
    assert animals == 8
    assert memories <= most
    assert real <= predicted
    agree("a memory", predicted // most, real // memories)


def test_more_animals_take_more_and_pruning_takes_less():
    sessions = {}
    for animals, mode in ((1, "bounded"), (2, "bounded"), (2, "none")):
        model = drop_unused(build_teacher(load_sam3_config("tiny"), torch.bfloat16))
        with fake_tensors("cuda"):
            found = predict_stream(model.to_empty(device="cuda"), animals, 12, PruningPolicy(mode))
        sessions[animals, mode] = found.session_bytes
    assert sessions[1, "bounded"] < sessions[2, "bounded"] < sessions[2, "none"]


def test_an_animal_beyond_the_detectors_queries_takes_as_many_operations_as_one_before():
    config = load_sam3_config("tiny")
    queries = config.detector_config.detr_decoder_config.num_queries
    counts = (queries - 1, queries, 2 * queries - 1, 2 * queries)
    found = {}
    for animals in counts:
        model = drop_unused(build_teacher(config, torch.bfloat16))
        with fake_tensors("cuda"):
            stages = predict_stream(model.to_empty(device="cuda"), animals, 2, PruningPolicy("bounded")).operators
        found[animals] = sum(map(operations, stages.values()))
    one_more, far_more = found[counts[1]] - found[counts[0]], found[counts[3]] - found[counts[2]]
    assert far_more == one_more > 0
