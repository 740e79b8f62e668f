import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from datamodules.masks import decode_masks, encode_mask


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


def test_no_masks_have_no_size():
    with pytest.raises(ValueError, match="no masks"):
        decode_masks([])
