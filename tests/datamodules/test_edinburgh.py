"""Clips in the layout of the Edinburgh Pig Behaviour data set, and the masks of drawn ones."""

import json

import numpy as np
import pytest

from datamodules.edinburgh import read_edinburgh
from datamodules.edinburgh_output import BEHAVIOURS, read_masks
from datamodules.errors import AnnotationError, ClipError
from datamodules.masks import decode_masks, encode_mask
from datamodules.pen import PenConfig, draw_pen
from datamodules.video import VideoInfo

VIDEO = VideoInfo(width=64, height=48, fps=6.0, num_frames=100)


class TestFolders:
    def test_clips_come_in_the_order_of_days_and_numbers_with_pictures_and_labels(
        self, tmp_path, write_edinburgh_clip, entry, number_of
    ):
        write_edinburgh_clip(tmp_path, "2019_12_02/000208", objects={"5": [entry(3)]})
        write_edinburgh_clip(tmp_path, "2019_11_05/000009", objects={"1": [entry(0)]})
        write_edinburgh_clip(tmp_path, "2019_11_05/000002", objects={"9": [entry(1), entry(2)]})
        clips = read_edinburgh(tmp_path)
        assert [clip.name for clip in clips] == ["2019_11_05/000002", "2019_11_05/000009", "2019_12_02/000208"]
        assert [clip.day for clip in clips] == ["2019_11_05", "2019_11_05", "2019_12_02"]
        clip = clips[0]
        assert (clip.width, clip.height, clip.fps, clip.num_frames) == (64, 48, 6.0, 6)
        frames = list(clip.frames())
        assert [number_of(frame.image) for frame in frames] == [frame.index for frame in frames] == list(range(6))
        assert [frame.timestamp_s for frame in frames] == pytest.approx([index / 6 for index in range(6)])
        assert [frame.annotation is not None for frame in frames] == [False, True, True, False, False, False]

    def test_what_else_lies_there_is_not_looked_at(self, tmp_path, write_edinburgh_clip):
        folder = write_edinburgh_clip(tmp_path)
        (folder / "depth.mp4").write_bytes(b"?")
        (folder / "background.png").touch()
        (folder / "depth_scale.npy").touch()
        (tmp_path / "readme.txt").touch()
        (tmp_path / "2019_11_05" / "notes").mkdir()
        (tmp_path / "models" / "000001").mkdir(parents=True)
        (tmp_path / "models" / "000001" / "color.mp4").touch()
        assert [clip.name for clip in read_edinburgh(tmp_path)] == ["2019_11_05/000002"]

    def test_a_clip_without_labels_has_no_labelled_frame(self, tmp_path, write_edinburgh_clip):
        write_edinburgh_clip(tmp_path)
        (clip,) = read_edinburgh(tmp_path)
        assert clip.annotations == {}

    def test_labels_without_a_video_are_refused(self, tmp_path, write_edinburgh_clip, entry, refused):
        folder = write_edinburgh_clip(tmp_path, objects={"1": [entry(0)]})
        (folder / "color.mp4").unlink()
        refused(ClipError, lambda: read_edinburgh(tmp_path), where=folder / "color.mp4", found="is not there")

    def test_a_truncated_video_is_refused_with_its_path(self, tmp_path, write_edinburgh_clip, refused):
        folder = write_edinburgh_clip(tmp_path)
        data = (folder / "color.mp4").read_bytes()
        (folder / "color.mp4").write_bytes(data[: len(data) // 2])
        refused(ClipError, lambda: read_edinburgh(tmp_path), where=folder / "color.mp4", expected="a whole video")

    @pytest.mark.parametrize("folder", ["", "elsewhere"])
    def test_a_folder_without_clips_is_refused(self, tmp_path, refused, folder):
        root = tmp_path / folder
        refused(ClipError, lambda: read_edinburgh(root), where=root, found="no clip", expected="<YYYY_MM_DD>/<NNNNNN>/")


class TestMasks:
    """`masks.json` of a drawn clip: frameNumber -> animal -> COCO RLE."""

    @pytest.fixture
    def clip(self, tmp_path, write_edinburgh_clip, entry):
        """Two animals on step 1, the second hidden; write masks.json with these frames."""
        objects = {"7": [entry(1, x=4, y=4, width=8, height=4)], "12": [entry(1, visible=False)]}
        folder = write_edinburgh_clip(tmp_path, objects=objects)

        def write(frames, schema=1):
            (folder / "masks.json").write_text(json.dumps({"schema": schema, "frames": frames}))
            return folder / "masks.json"

        return write

    @pytest.fixture
    def mask(self):
        mask = np.zeros((48, 64), bool)
        mask[4:8, 4:12] = True
        return mask

    def test_each_animal_has_its_mask_and_a_hidden_one_an_empty_mask(self, tmp_path, clip, mask):
        clip({"1": {"7": encode_mask(mask)}, "2": {}})
        (read,) = read_edinburgh(tmp_path)
        animals = read.annotations[1]
        assert animals.identities == ("7", "12")
        masks = decode_masks(animals.masks)
        assert (masks[0] == mask).all()
        assert not masks[1].any()

    def test_without_the_file_there_are_no_masks(self, tmp_path, clip):
        (read,) = read_edinburgh(tmp_path)
        assert read.annotations[1].masks is None

    def test_a_visible_animal_without_a_mask_is_refused(self, tmp_path, clip, mask, refused):
        path = clip({"1": {"12": encode_mask(mask)}})
        refused(
            AnnotationError,
            lambda: read_edinburgh(tmp_path),
            where=path,
            found="has no mask of animal '7' at frameNumber 1",
            expected="one mask per visible animal",
        )

    def test_a_mask_of_another_size_is_refused(self, tmp_path, clip, refused):
        path = clip({"1": {"7": encode_mask(np.ones((90, 160), bool))}})
        refused(
            AnnotationError,
            lambda: read_edinburgh(tmp_path),
            where=f"{path}, frame 1, animal '7'",
            found="has size [90, 160]",
            expected="a run-length mask of size [48, 64]",
        )

    @pytest.mark.parametrize(
        ("frames", "schema", "found"),
        [({}, 2, "schema 2"), ({"a": {}}, 1, "names frame 'a'"), ([], 1, "is a list"), ({"1": {"7": "x"}}, 1, "a str")],
    )
    def test_a_file_of_another_form_is_refused(self, tmp_path, clip, refused, frames, schema, found):
        path = clip(frames, schema)
        refused(AnnotationError, lambda: read_edinburgh(tmp_path), where=path, found=found)

    def test_whatever_stands_anywhere_is_read_or_refused_and_never_a_crash(self, tmp_path, mask, survives):
        path = tmp_path / "masks.json"

        def read(text):
            path.write_text(text)
            for animals in read_masks(path, VIDEO).values():
                decode_masks(list(animals.values()) or [encode_mask(mask)])

        assert survives({"schema": 1, "frames": {"1": {"7": encode_mask(mask)}}}, read, AnnotationError, path) > 0

    def test_a_mask_whose_runs_do_not_fill_it_is_refused(self, tmp_path, clip, mask, refused):
        damaged = encode_mask(mask) | {"counts": encode_mask(mask)["counts"][:-1]}
        path = clip({"1": {"7": damaged}})
        refused(
            AnnotationError,
            lambda: read_edinburgh(tmp_path),
            where=f"{path}, frame 1, animal '7'",
            found="has counts that do not fill its size",
        )

    def test_a_drawn_clip_is_read_with_masks_that_fill_their_boxes(self, tmp_path):
        config = PenConfig(width=160, height=90, label_every=3)
        draw_pen(tmp_path, config, days=["2026_01_01"], clips_per_day=1, frames_per_clip=4, seed=3)
        (clip,) = read_edinburgh(tmp_path)
        assert sorted(clip.annotations) == [0, 3]
        for animals in clip.annotations.values():
            assert len(animals) == config.num_animals
            assert set(animals.behaviours) <= set(BEHAVIOURS)
            for mask, (left, top, right, bottom) in zip(decode_masks(animals.masks), animals.boxes_xyxy, strict=True):
                rows, columns = np.nonzero(mask)
                assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == [left, top, right, bottom]
