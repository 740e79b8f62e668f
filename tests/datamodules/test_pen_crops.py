from dataclasses import replace

import numpy as np
import pytest
from lightning.pytorch import Trainer
from safetensors.numpy import save_file

from datamodules.crop_variety import CropVariety, vary
from datamodules.crops import BLANK
from datamodules.errors import UserError
from datamodules.pen import Pose
from datamodules.pen.coats import ALONG, AROUND, FAMILIES, MARK_MAP, make_coat, mark_map
from datamodules.pen_crop_files import POSE, pose_of
from datamodules.pen_crops import PenCrops, PenCropsDataModule, collate, turned
from datamodules.pen_training import DrawnPen, PenShare

STILL = CropVariety(blank=(0, 0), zoom=(1, 1), shift=0, turn_deg=0, reverse=0, gain=(1, 1), tint=0, noise=0, stains=0)
AHEAD = Pose(0, 0, 0, 0, 0, 0, (1, 0, 0, 0), 1, 0, 0, 0, 0, 0, "standing")
PENS = [DrawnPen("day", None, 7, "2001_01_01"), DrawnPen("day", None, 8, "2001_01_02")]


@pytest.fixture
def folder(tmp_path):
    """Two pens; the value of a pixel says which crop it is of."""
    for pen in PENS:
        layers = np.zeros((6, 8, 8, 4), np.uint8)
        layers[..., :3] = np.arange(10, 70, 10)[:, None, None, None]
        layers[:, 2:6, 2:6, 3] = 255
        content = {
            "layers": layers,
            "animals": np.array((1, 1, 1, 2, 2, 2), np.int16),
            "behaviours": np.arange(6, dtype=np.int16),
            "days": np.array((0, 0, 1, 0, 1, 1), np.int16),
            "poses": np.tile(np.float32(pose_of(AHEAD, 0.0)), (6, 1)),
        }
        save_file(content, tmp_path / f"pen-{pen.seed:06d}.safetensors")
    return tmp_path


def test_all_crops_of_a_pen_come_as_they_are_with_the_background_blanked(folder):
    batch = PenCrops(folder, PENS, None, 1.0, None, 0)[1]
    np.testing.assert_array_equal((batch.images[:, 0, 4, 4] * 255).round(), np.arange(10, 70, 10))
    np.testing.assert_array_equal((batch.images[2, :, 0, 0] * 255).round(), BLANK)
    np.testing.assert_array_equal(batch.animals, (1001, 1001, 1001, 1002, 1002, 1002))
    np.testing.assert_array_equal(batch.days, (0, 0, 1, 0, 1, 1))
    np.testing.assert_array_equal(batch.marks[3], mark_map("pink", 8, 1).ravel())  # code 2 is animal 1 of the herd


def test_a_batch_has_as_many_crops_of_each_animal_and_pens_stay_apart(folder):
    crops = PenCrops(folder, PENS, 2, 1.0, CropVariety(), 0)
    batch = collate([crops[0], crops[1]])
    animals, counts = np.unique(batch.animals, return_counts=True)
    np.testing.assert_array_equal(animals, (1, 2, 1001, 1002))
    np.testing.assert_array_equal(counts, (2, 2, 2, 2))
    np.testing.assert_array_equal(np.unique(batch.pens), (0, 1))


def test_an_empty_pen_gives_an_empty_batch(tmp_path):
    content = {name: np.zeros(0, np.int16) for name in ("animals", "behaviours", "days")}
    content["poses"] = np.zeros((0, len(POSE)), np.float32)
    save_file({"layers": np.zeros((0, 8, 8, 4), np.uint8), **content}, tmp_path / "pen-000007.safetensors")
    for per_animal, variety in ((None, None), (2, CropVariety())):
        assert PenCrops(tmp_path, PENS, per_animal, 1.0, variety, 0)[0].images.shape == (0, 3, 8, 8)


def test_empty_pens_are_no_batches_and_a_part_of_them_alone_is_refused(tmp_path):
    """A validation batch is one pen, and the scores of none are not defined."""
    data = PenCropsDataModule(
        str(tmp_path), [PenShare("day", 2), PenShare("day", 1, 0)], [PenShare("day", 1, 0), PenShare("day", 1)]
    )
    assert [len(data.parts[part]) for part in ("train", "val")] == [2, 1]
    assert len(data.pens) == 5
    (tmp_path / "empty.yaml").write_text("domain: empty\nnum_animals: 0\n")
    with pytest.raises(UserError, match=r"data\.val: has empty pens alone"):
        PenCropsDataModule(str(tmp_path), [PenShare("day", 1)], [PenShare(str(tmp_path / "empty.yaml"), 1)])
    with pytest.raises(UserError, match=r"data\.val: has empty pens alone"):
        PenCropsDataModule(str(tmp_path), [PenShare("day", 1)], [PenShare("day", 1, 0)])


def test_no_variety_changes_nothing_and_half_a_turn_is_no_mirror_image():
    rng = np.random.default_rng(0)
    layers = rng.integers(0, 256, (9, 9, 4), dtype=np.uint8)
    np.testing.assert_array_equal(vary(layers, STILL, rng)[0], layers[..., :3])
    reverse = CropVariety(**{**STILL.__dict__, "reverse": 1.0})
    np.testing.assert_array_equal(vary(layers, reverse, rng)[0], layers[::-1, ::-1, :3])


def test_a_pose_turns_with_its_crop():
    """A red snout to the right of the middle is found where the turned pose faces."""
    layers = np.full((41, 41, 4), 90, np.uint8)
    layers[19:22, 32:36, :3] = (250, 0, 0)
    pose = pose_of(replace(AHEAD, heading=0.7, head_yaw=0.3), 0.7)
    assert dict(zip(POSE, pose, strict=True)) | {"facing_x": 1, "facing_y": 0, "head_yaw": 0.3, "standing": 1} == (
        pytest.approx(dict(zip(POSE, pose, strict=True)))
    )
    for seed in range(4):
        picture, degrees = vary(layers, replace(STILL, turn_deg=170), np.random.default_rng(seed))
        rows, columns = np.nonzero(picture[..., 0] > 200)
        snout = np.array((columns.mean() - 20, rows.mean() - 20))
        (facing,) = turned(np.array([pose], np.float32), np.array([degrees]))[:, :2]
        np.testing.assert_allclose(facing, snout / np.hypot(*snout), atol=0.05)


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_live_until_the_end_of_the_training(workers, tmp_path):
    """Each is a new interpreter: started anew in each epoch, it would cost seconds again and again."""
    data = PenCropsDataModule(str(tmp_path), [PenShare("day", 2)], [PenShare("day", 1)], num_workers=workers)
    data.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    assert data.train_dataloader().persistent_workers == (workers > 0)


def test_seeds_of_the_evaluation_are_refused(tmp_path):
    with pytest.raises(UserError, match="evaluation"):
        PenCropsDataModule(str(tmp_path), [PenShare("day", 1)], [PenShare("day", 1)], first_seed=999_999)


def test_a_map_shows_where_the_marks_are_and_is_nobody_elses():
    maps = [mark_map("pink", 3, number) for number in range(8)]
    assert maps[0].shape == MARK_MAP
    assert min(np.abs(one - other).mean() for n, one in enumerate(maps) for other in maps[:n]) > 0.3
    skin = make_coat("pink", 3, 0).trunk
    back = skin[AROUND // 2 - 36 : AROUND // 2 + 36]
    darkness = -back.reshape(6, 12, 12, ALONG // 12, 3).mean((1, 3, 4))  # marks of the pink family are dark
    assert FAMILIES["pink"].mark < FAMILIES["pink"].base
    assert np.corrcoef(darkness.ravel(), maps[0].ravel())[0, 1] > 0.95
