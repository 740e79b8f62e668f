"""Frames and tracks that are known, through `Monitor` into a pool, twice: who is who, the record, the pictures."""

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from datamodules.crops import Cropping
from pl_distill.models.dinov3 import TransformersBackbone
from pl_distill.models.embedder import Embedder
from pl_distill.monitor import Monitor
from pl_distill.monitor_sinks import open_pool
from pl_distill.reid.errors import PoolError
from pl_distill.reid.identify_policy import IdentifierPolicy
from pl_distill.reid.identities import link, merge
from pl_distill.reid.longitudinal import RecordWriter, Sighting
from pl_distill.reid.pen_map import PenMap
from pl_distill.reid.pool import EmbeddingPool
from pl_distill.reid.record_files import RecordError, read_hours
from pl_distill.reid.recordings import session_of
from pl_distill.reid.samples import Sample
from pl_distill.reid.thumbnails import Thumbnails
from pl_distill.streaming.postprocess import Tracks

COLOURS = np.array([(250, 10, 10), (10, 250, 10), (10, 10, 250)], np.uint8)
MORNING = datetime(2026, 1, 26, 8, tzinfo=UTC)
LATER = datetime(2026, 1, 26, 9, 30, tzinfo=UTC)


class ColourEmbedder(Embedder):
    """Knows an animal by its colour."""

    def describe(self, crops):
        colours = F.normalize(crops.float().mean((2, 3)), dim=1)
        embeddings = F.pad(colours, (0, self.dimension - 3))
        return embeddings, embeddings


@pytest.fixture(scope="module")
def embedder():
    torch.manual_seed(0)
    config = DINOv3ViTConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, patch_size=8, image_size=16
    )
    return ColourEmbedder(TransformersBackbone(DINOv3ViTModel(config)), {}, 16, 16, Cropping())


@pytest.fixture
def watch(embedder, tmp_path):
    """One run of a camera: animals of these colours under these numbers, a second and a half of them.

    From the frame `changed` on the first two are called by each other's number, and change places.
    """

    def run(started, numbers, colours, frames=10, changed=None, end=None):
        own = (PenMap(), IdentifierPolicy(), None, end)
        with open_pool(tmp_path / "pool", embedder, None, "cam", started, *own) as keeper:
            monitor = Monitor(embedder, None, [keeper])
            for frame in range(frames):
                image = np.full((60, 120, 3), 128, np.uint8)
                masks, boxes = np.zeros((len(numbers), 60, 120), bool), []
                places = [*range(len(colours))]
                if changed is not None and frame >= changed:
                    places[:2] = [1, 0]
                for row, colour in enumerate(colours):
                    left = 5 + 40 * places[row] + frame % 3
                    masks[row, 10:30, left : left + 20] = True
                    image[10:30, left : left + 20] = COLOURS[colour]
                    boxes.append((left, 10, left + 20, 30))
                scores = np.full(len(numbers), 0.9, np.float32)
                renamed = frozenset(numbers[:2]) if frame == changed else frozenset()
                tracks = Tracks(numbers, np.array(boxes, np.float32), scores, masks, renamed)
                monitor.update(image, tracks, frame, frame / 6)
            monitor.close()
            return {colour: keeper.animal_of(number) for number, colour in zip(numbers, colours, strict=True)}

    return run


def test_animals_have_the_same_names_rows_and_one_picture_a_day_after_a_restart(watch, tmp_path):
    first = watch(MORNING, (1, 2, 3), (0, 1, 2))
    again = watch(LATER, (1, 2, 3), (2, 0, 1))
    assert sorted(first.values()) == ["animal-0001", "animal-0002", "animal-0003"]
    assert again == first
    hours = read_hours(tmp_path / "pool" / "record")
    found = sorted(zip(hours["hour"].dt.hour, hours["animal"], strict=True))
    assert found == [(hour, name) for hour in (8, 9) for name in sorted(first.values())]
    assert (hours["seen_s"] > 0).all()
    for colour, name in first.items():
        assert len(list((tmp_path / "pool" / "thumbnails" / name).iterdir())) == 1
        picture = Thumbnails(tmp_path / "pool").read(name, MORNING.date())
        assert picture.mean((0, 1)).argmax() == colour


def test_who_gets_its_number_back_from_its_neighbour_has_not_walked_for_the_record(watch, tmp_path):
    watch(MORNING, (1, 2, 3), (0, 1, 2), frames=48, changed=24)
    hours = read_hours(tmp_path / "pool" / "record")
    assert hours["distance_m"].tolist() == [0, 0, 0]


def test_a_run_finds_the_rows_of_the_runs_before_it_under_the_names_of_today(watch, tmp_path):
    first = watch(MORNING, (1, 2), (0, 1))
    with EmbeddingPool(tmp_path / "pool") as pool:  # as `reid merge` that is killed before the record has followed
        merge(pool, first[0], "sow-17")
    again = watch(LATER, (1, 2), (0, 1))
    assert again == {0: "sow-17", 1: first[1]}
    hours = read_hours(tmp_path / "pool" / "record")
    found = sorted(zip(hours["hour"].dt.hour, hours["animal"], hours["nearest"], strict=True))
    assert found == [pair for hour in (8, 9) for pair in ((hour, first[1], "sow-17"), (hour, "sow-17", first[1]))]


def test_one_instant_in_two_time_zones_is_one_recording(watch):
    watch(MORNING, (1,), (0,))
    with pytest.raises(
        PoolError, match=r"began at 2026-01-26T08:00:00.000\+00:00.*cut off the frames that its run.json counts"
    ):
        watch(MORNING.astimezone(timezone(timedelta(hours=1))), (1,), (0,))


def test_a_recording_of_an_older_pool_is_known_by_its_instant(watch, embedder, tmp_path):
    with EmbeddingPool(tmp_path / "pool", embedder.identity, embedder.dimension) as pool:
        for number, session in enumerate(("2026-01-26T09:00:00.000+01:00", "by hand")):
            link(pool, [pool.add_track("cam", session, number)], "rosa")
    with pytest.raises(PoolError, match="each recording once"):
        watch(MORNING, (1,), (0,))
    watch(LATER, (1,), (0,))


@pytest.fixture
def watched(embedder, tmp_path):
    """A pool with a recording of the camera from eight to nine, of which it has seven embeddings, and another's."""
    with EmbeddingPool(tmp_path / "pool", embedder.identity, embedder.dimension) as pool:
        look = np.eye(1, embedder.dimension, dtype=np.float32)[0]
        for camera, began in (("cam", MORNING), ("other", LATER)):
            times_s = began.timestamp() + 514 * np.arange(7)
            pool.append([Sample(camera, session_of(began), 0, time_s, look, 1.0) for time_s in times_s])
            link(pool, [pool.find_track(camera, session_of(began), 0)], "rosa")


@pytest.mark.parametrize(
    ("begin", "end"), [(10, 40), (10, 100), (-30, 10), (-30, 100)], ids=["within", "after", "before", "around"]
)
def test_a_recording_of_the_same_time_is_refused_and_a_camera_whose_clock_says_so_is_warned(
    watch, watched, tmp_path, caplog, begin, end
):
    start, stop = (MORNING + timedelta(minutes=minutes) for minutes in (begin, end))
    with pytest.raises(
        PoolError, match=r"camera 'cam': .*08:00:00.000\+00:00 to 2026-01-26T08:51:24.000\+00:00, .*--began"
    ):
        watch(start, (1,), (0,), end=stop)
    assert not (tmp_path / "pool" / "record").exists()
    assert "counts twice" not in caplog.text
    watch(start, (1,), (0,))
    assert caplog.text.count("counts twice") == 1


@pytest.mark.parametrize(("begin", "end"), [(51, 80), (60, 180), (-60, 0.5)], ids=["cut", "beside another's", "before"])
def test_what_follows_or_goes_before_is_no_recording_of_the_same_time(watch, watched, caplog, begin, end):
    """The rest of a recording whose run was killed begins a little before its last sight."""
    start, stop = (MORNING + timedelta(minutes=minutes) for minutes in (begin, end))
    watch(start, (1,), (0,), end=stop)
    assert "counts twice" not in caplog.text


def test_a_recording_into_a_day_of_another_head_is_refused_before_it_begins(watch, tmp_path):
    midnight = datetime(2026, 1, 27, tzinfo=UTC)
    with RecordWriter(tmp_path / "pool" / "record", "cam", behaviours=("sleep",)) as writer:
        for second in range(3):
            writer.observe(midnight.timestamp() + second, [Sighting("rosa", np.zeros(4))])
    with pytest.raises(RecordError, match=r"2026_01_27.parquet: names the behaviours"):
        watch(midnight - timedelta(minutes=5), (1,), (0,), end=midnight + timedelta(minutes=5))
    watch(midnight - timedelta(minutes=5), (1,), (0,), end=midnight)
