import math

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from callbacks.feature_preview import TAG, FeaturePreview, in_teachers_colours, preview, relative_errors, spread


def random_map(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_picture_has_a_row_per_image_and_four_columns():
    picture = preview(random_map(0, 3, 3, 20, 20), random_map(1, 3, 5, 4, 4), random_map(2, 3, 5, 4, 4), width=8)
    assert picture.shape == (3, 3 * 8, 4 * 8)
    assert picture.dtype == torch.float32
    assert picture.min() >= 0
    assert picture.max() <= 1


def test_the_first_column_is_the_image_as_it_was_before_normalisation():
    images = torch.stack([torch.full((3, 8, 8), -1.0), torch.full((3, 8, 8), 0.5)])
    picture = preview(images, random_map(1, 2, 5, 4, 4), random_map(2, 2, 5, 4, 4), width=8)
    assert torch.equal(picture[:, :8, :8], torch.zeros(3, 8, 8))
    assert torch.allclose(picture[:, 8:, :8], torch.full((3, 8, 8), 0.75))


def test_equal_maps_have_equal_colours_and_no_error():
    features = random_map(0, 2, 5, 4, 4)
    picture = preview(random_map(1, 2, 3, 8, 8), features, features, width=8)
    assert torch.equal(picture[:, :, 8:16], picture[:, :, 16:24])
    assert picture[:, :, 24:].max() < 0.02  # inferno's darkest


def test_colours_are_the_teachers_main_directions_strongest_in_red():
    teacher = torch.zeros(1, 4, 2, 2)
    teacher[0, 2] = torch.tensor([[-9.0, 9.0], [-9.0, 9.0]])  # varies most
    teacher[0, 0] = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
    colours, _ = in_teachers_colours(teacher, teacher)
    assert torch.allclose(colours[0, 0], torch.tensor([[0.0, 1.0], [0.0, 1.0]]), atol=1e-4)
    assert torch.allclose(colours[0, 1], torch.tensor([[0.0, 0.0], [1.0, 1.0]]), atol=1e-4)


def test_the_students_colours_are_on_the_teachers_scale():
    teacher = torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2).repeat(1, 3, 1, 1) * torch.tensor([3.0, 0, 0]).view(1, 3, 1, 1)
    _, half = in_teachers_colours(teacher, teacher / 2)
    assert half[0, 0].flatten().tolist() == pytest.approx([0.25, 0.75], abs=0.02)


def test_the_same_maps_give_the_same_colours_whatever_the_order_of_the_pictures():
    teacher = random_map(0, 4, 6, 5, 5)
    first, _ = in_teachers_colours(teacher, teacher)
    second, _ = in_teachers_colours(teacher.flip(0), teacher)
    assert torch.allclose(first.flip(0), second, atol=1e-4)


def test_two_channels_leave_a_colour_grey():
    colours, _ = in_teachers_colours(random_map(0, 1, 2, 3, 3), random_map(1, 1, 2, 3, 3))
    assert torch.equal(colours[:, 2], torch.full((1, 3, 3), 0.5))


def test_the_error_is_relative_to_the_pictures_typical_norm():
    teacher = torch.tensor([[3.0, 1.0], [4.0, 1.0]]).view(1, 2, 1, 2)  # norms 5 and sqrt(2)
    student = torch.zeros_like(teacher)
    typical = (5 + 2**0.5) / 2
    assert relative_errors(student, teacher).flatten().tolist() == pytest.approx([5 / typical, 2**0.5 / typical])


def test_a_student_of_no_numbers_is_shown_as_wrong():
    teacher = random_map(1, 1, 5, 4, 4)
    broken = teacher.clone()
    broken[:, :, 0, 0] = math.nan
    picture = preview(random_map(0, 1, 3, 8, 8), teacher, broken, width=8)
    assert picture[:, :2, 24:26].min() > 0.6  # inferno's brightest
    assert picture[:, 2:, 26:].max() < 0.02  # the other cells are right


@pytest.mark.parametrize(
    ("count", "batches", "chosen"), [(3, 9, {0, 4, 8}), (4, 1, {0}), (4, 2, {0, 1}), (1, 5, {0}), (2, math.inf, {0, 1})]
)
def test_rows_are_spread_over_the_batches(count, batches, chosen):
    assert spread(count, batches) == chosen


class Echo(LightningModule):
    """A student that repeats the teacher; validates after each of its steps."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def training_step(self, batch, batch_idx):
        return self.weight**2

    def validation_step(self, batch, batch_idx):
        return {"student_map": (batch["teacher_map"] * self.weight).bfloat16(), "teacher_map": batch["teacher_map"]}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder, callback, **options):
    frames = [{"image": random_map(i, 3, 8, 8), "teacher_map": random_map(i, 5, 4, 4)} for i in range(4)]
    loader = torch.utils.data.DataLoader(frames, batch_size=2)
    logger = TensorBoardLogger(folder, name="", version="")
    trainer = Trainer(
        accelerator="cpu",
        max_steps=4,
        check_val_every_n_epoch=None,
        val_check_interval=1,
        callbacks=[callback],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"logger": logger, **options},
    )
    trainer.fit(Echo(), loader, loader)
    events = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    return events.Images(TAG) if TAG in events.Tags()["images"] else []


def test_a_picture_is_written_at_every_nth_validation(tmp_path):
    written = fit(tmp_path, FeaturePreview(images=1, every_n_validations=2, width=8))
    # not at the check before training, not after 2 and 4 steps; steps count from 0, as Lightning's own scalars
    assert [one.step for one in written] == [0, 2]
    assert {(one.height, one.width) for one in written} == {(8, 32)}


def test_another_logger_gets_no_picture_and_no_error(tmp_path):
    assert fit(tmp_path, FeaturePreview(), logger=False) == []


def test_every_batch_gives_rows_where_there_are_more_rows_than_batches(tmp_path):
    (first, *_) = fit(tmp_path, FeaturePreview(images=3, width=8))
    assert (first.height, first.width) == (3 * 8, 4 * 8)  # two of the first batch, one of the second
