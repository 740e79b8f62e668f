import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco

from datamodules.masks import decode_masks, encode_mask, is_whole_mask


def test_runs_are_counted_down_the_columns_as_coco_does():
    mask = np.zeros((3, 2), bool)
    mask[1:, 0] = True  # 1 off, 2 on, 3 off: one character each, at this length
    assert encode_mask(mask) == {"size": [3, 2], "counts": "123"}


@given(arrays(bool, st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9))))
def test_masks_come_back_exactly_also_through_json(masks):
    encoded = json.loads(json.dumps([encode_mask(mask) for mask in masks]))
    decoded = decode_masks(encoded)
    assert decoded.dtype == bool
    np.testing.assert_array_equal(decoded, masks)


masks_2d = arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40)))


@given(masks_2d)
def test_a_mask_that_was_encoded_is_whole(mask):
    assert is_whole_mask(encode_mask(mask))


@given(masks_2d, st.data())
def test_a_mask_that_lost_its_end_is_not(mask, data):
    encoded = encode_mask(mask)
    kept = data.draw(st.integers(0, len(encoded["counts"]) - 1))
    assert not is_whole_mask(encoded | {"counts": encoded["counts"][:kept]}) or mask.T.ravel()[-1] == 0 == kept
    assert not is_whole_mask(encoded | {"size": [mask.shape[0] + 1, mask.shape[1]]})


@given(st.text(max_size=12))
def test_no_text_crashes_the_check(text):
    assert is_whole_mask({"size": [7, 5], "counts": text}) in (True, False)


@given(st.lists(st.integers(0, 35), max_size=8))
def test_what_fills_the_size_is_whole_and_decodes_to_its_runs(cuts):
    runs = np.diff([0, *sorted(cuts), 35]).tolist()  # of nothing and animal in turn, down the columns; some are empty
    text = coco.frPyObjects({"size": [7, 5], "counts": runs}, 7, 5)["counts"].decode()
    mask = {"size": [7, 5], "counts": text}
    assert is_whole_mask(mask)
    wanted = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(5, 7).T
    np.testing.assert_array_equal(decode_masks([mask])[0], wanted)


@pytest.mark.parametrize(
    "mask", [None, [], {}, {"size": [3, 2]}, {"size": [3, 0], "counts": ""}, {"size": 6, "counts": "6"}]
)
def test_other_things_are_no_masks(mask):
    assert not is_whole_mask(mask)


def test_no_masks_have_no_size():
    with pytest.raises(ValueError, match="no masks"):
        decode_masks([])
