import json

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tvf
from transformers.models.sam3.image_processing_sam3 import Sam3ImageProcessor

from datamodules.preprocessing import Preprocessing


@pytest.mark.parametrize("size", [56, 1008])
@pytest.mark.parametrize("shape", [(72, 128, 3), (90, 61, 3)])
def test_it_equals_sam_3s_own_processor_bit_for_bit(size, shape):
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    processor = Sam3ImageProcessor(size={"height": size, "width": size})
    expected = processor(image, return_tensors="pt")["pixel_values"][0]
    found = Preprocessing(size=size)(image)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def whole(image):
    return image


def middle(image):
    return image[1:-1, 2:-2]


def columns_first(image):
    return np.asfortranarray(image)


@pytest.mark.parametrize("lies", [whole, middle, columns_first])
@pytest.mark.parametrize("shape", [(7, 9, 3), (72, 128, 3), (90, 61, 3), (112, 112, 3), (720, 1280, 3)])
def test_how_a_picture_lies_in_memory_changes_neither_values_nor_layout(shape, lies):
    image = lies(np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8))
    channels_first = torch.from_numpy(image).permute(2, 0, 1).contiguous()
    resized = tvf.resize(channels_first, [112, 112], antialias=True)
    found = Preprocessing(size=112)(image)
    assert torch.equal(found, (resized.float() - 127.5) / 127.5)
    assert found.is_contiguous(), "a batch of channels-last pictures takes other kernels of a network"


def test_white_is_one_and_black_is_minus_one():
    assert Preprocessing(size=8)(np.full((4, 6, 3), 255, np.uint8)).unique().tolist() == [1.0]
    assert Preprocessing(size=8)(np.zeros((4, 6, 3), np.uint8)).unique().tolist() == [-1.0]


def test_channels_have_their_own_statistics():
    preprocessing = Preprocessing(size=2, mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
    found = preprocessing(np.full((2, 2, 3), 255, np.uint8))
    assert found[:, 0, 0].tolist() == [1.0, 1.0, 0.0]


def test_the_picture_is_squashed_not_cropped():
    image = np.zeros((20, 40, 3), np.uint8)
    image[:, 20:] = 255
    found = Preprocessing(size=10)(image)
    assert (found[:, :, :4] == -1).all()
    assert (found[:, :, 6:] == 1).all()


def test_the_description_tells_two_preprocessings_apart():
    one = Preprocessing().describe()
    assert json.loads(json.dumps(one)) == one
    assert one != Preprocessing(size=504).describe()
    assert one != Preprocessing(std=(0.2, 0.2, 0.2)).describe()
