import json
import time
from concurrent.futures import as_completed

import numpy as np
import pytest

from datamodules.errors import UserError
from datamodules.masks import decode_masks
from datamodules.pen_crops import PenCropsDataModule
from datamodules.pen_tracking import PenTrackingDataModule
from datamodules.pen_training import (
    PenShare,
    draw_pens,
    drawing_processes,
    plan_pens,
    read_pens_with_furniture,
    remember_plan,
)
from datamodules.shards import ShardManifest

SMALL = "domain: small\nwidth: 128\nheight: 72\nnum_animals: 2\n"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("pen") / "small.yaml"
    path.write_text(SMALL)
    return str(path)


def test_every_pen_has_its_seed_and_its_day():
    pens, split = plan_pens([PenShare("day", 2), PenShare("dusk", 1, 0)], [PenShare("day", 1)], 10)
    assert [pen.seed for pen in pens] == [10, 11, 12, 13]
    assert len({pen.day for pen in pens}) == 4
    assert [split.part_of(pen.day) for pen in pens] == ["train", "train", "train", "val"]
    assert [pen.num_animals for pen in pens] == [None, None, 0, None]


@pytest.mark.parametrize("first_seed", [-1, 999_999, 1_000_000, 2_000_000])
def test_seeds_that_are_kept_for_evaluation_are_refused(first_seed):
    with pytest.raises(UserError, match="evaluation"):
        plan_pens([PenShare("day", 1)], [PenShare("day", 1)], first_seed)


@pytest.mark.parametrize("domain", ["sheep", "farm-b"])
@pytest.mark.parametrize("part", ["train", "val"])
def test_domains_that_are_kept_for_evaluation_are_refused(domain, part):
    shares = {"train": [PenShare("day", 1)], "val": [PenShare("day", 1)]}
    shares[part].append(PenShare(domain, 1))
    with pytest.raises(UserError, match=rf"data\.{part}: draws {domain}, expected domains other than sheep and farm-b"):
        plan_pens(**shares, first_seed=0)


def test_a_domain_file_of_ones_own_may_have_any_name(tmp_path):
    own = str(tmp_path / "sheep.yaml")
    pens, _ = plan_pens([PenShare(own, 1)], [PenShare("day", 1)], 0)
    assert [pen.domain for pen in pens] == [own, "day"]


def test_the_last_seed_below_evaluation_is_allowed():
    pens, _ = plan_pens([PenShare("day", 1)], [PenShare("day", 1)], 999_998)
    assert pens[-1].seed == 999_999


def test_a_part_without_pens_is_refused():
    with pytest.raises(UserError, match="0 to validate"):
        plan_pens([PenShare("day", 1)], [], 0)


def test_after_an_error_nothing_more_is_drawn():
    jobs = []

    def draw():
        with drawing_processes(1) as pool:
            jobs.extend([pool.submit(int, "no number"), *(pool.submit(time.sleep, 0.05) for _ in range(30))])
            for job in as_completed(jobs):
                job.result()

    with pytest.raises(ValueError, match="no number"):
        draw()
    assert sum(job.cancelled() for job in jobs) > 20


def test_feeder_and_toy_are_labelled_beside_the_animals_also_in_an_empty_pen(recipe, tmp_path):
    pens, _ = plan_pens([PenShare(recipe, 1)], [PenShare(recipe, 1, 0)], 5)
    draw_pens(tmp_path, pens, frames_per_pen=2, processes=1)
    with_animals, empty = read_pens_with_furniture(tmp_path)
    animals = with_animals.annotations[1]
    assert animals.identities[-2:] == ("feeder", "toy")
    assert len(animals) == 4
    assert animals.masks is not None
    for box, mask in zip(animals.boxes_xyxy, decode_masks(animals.masks), strict=True):
        rows, columns = np.nonzero(mask)  # each box is around what is seen
        np.testing.assert_array_equal(box, (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    assert [empty.annotations[index].identities for index in (0, 1)] == [("feeder", "toy")] * 2


def test_the_data_module_draws_and_shards_once(recipe, tmp_path):
    data = PenTrackingDataModule(
        str(tmp_path), [PenShare(recipe, 1)], [PenShare(recipe, 1)], frames_per_pen=2, processes=1, image_size=32
    )
    data.prepare_data()
    manifest = ShardManifest.load(tmp_path / "shards")
    assert (manifest.num_samples("train"), manifest.num_samples("val")) == (2, 2)
    before = (tmp_path / "shards" / "manifest.json").stat().st_mtime_ns
    data.prepare_data()
    assert (tmp_path / "shards" / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("kind", [PenTrackingDataModule, PenCropsDataModule])
def test_one_node_draws_for_all(tmp_path, kind):
    assert not kind(str(tmp_path), [PenShare("day", 1)], [PenShare("day", 1)]).prepare_data_per_node


def test_drawings_of_before_a_domain_changed_are_refused(tmp_path):
    """Crops would come with the marks of coats that they do not show."""
    domain = tmp_path / "own.yaml"
    domain.write_text(SMALL)
    pens, _ = plan_pens([PenShare(str(domain), 1)], [PenShare("day", 1)], 0)
    remember_plan(tmp_path / "data", pens, size=8)
    remember_plan(tmp_path / "data", pens, size=8)
    with pytest.raises(UserError, match="names other pens than the recipe"):
        remember_plan(tmp_path / "data", pens, size=9)
    plan = tmp_path / "data" / "pens.json"
    content = json.loads(plan.read_text())
    plan.write_text(json.dumps({name: value for name, value in content.items() if name != "domains"}))
    remember_plan(tmp_path / "data", pens, size=8)  # of a version that did not say
    domain.write_text(SMALL + "coat: black\n")
    with pytest.raises(UserError, match=rf"is of drawings before {domain} changed, expected the same ones"):
        remember_plan(tmp_path / "data", pens, size=8)


def test_a_folder_of_other_pens_is_refused(recipe, tmp_path):
    def data(first_seed):
        return PenTrackingDataModule(
            str(tmp_path), [PenShare(recipe, 1)], [PenShare(recipe, 1)], 1, first_seed, processes=1, image_size=32
        )

    data(3).prepare_data()
    data(3).prepare_data()
    with pytest.raises(UserError, match="other pens than the recipe"):
        data(4).prepare_data()
