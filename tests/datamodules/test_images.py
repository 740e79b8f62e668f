import io

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps

from datamodules.errors import ClipError
from datamodules.images import ImageFiles, decode_image, encode_jpeg, read_image


@pytest.fixture
def image():
    image = np.zeros((30, 40, 3), np.uint8)
    image[:, :20], image[:, 20:] = (220, 40, 10), (10, 40, 220)
    image[:10] //= 2
    return image


def test_a_jpeg_comes_back_nearly_as_it_was_in_rgb(image):
    decoded = decode_image(encode_jpeg(image, 95))
    assert (decoded.shape, decoded.dtype) == ((30, 40, 3), np.uint8)
    assert np.abs(decoded[5, [2, 38]].astype(int) - image[5, [2, 38]]).max() < 5


def test_equal_pictures_give_equal_bytes(image):
    assert encode_jpeg(image, 90) == encode_jpeg(image.copy(), 90) != encode_jpeg(image, 60)


def test_a_grey_png_becomes_rgb(image):
    _, data = cv2.imencode(".png", image[..., 0])
    np.testing.assert_array_equal(decode_image(data.tobytes()), np.repeat(image[..., :1], 3, axis=2))


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_that_a_sensor_does_not_fill_are_refused_and_not_black(bits, channels):
    ramp = np.linspace(0, 2**bits - 1, 30 * 40 * channels).reshape(30, 40, channels).astype(np.uint16)
    _, data = cv2.imencode(".png", ramp)
    with pytest.raises(ValueError, match=f"16-bit picture that uses {bits} bits: convert it to 8 bits"):
        decode_image(data.tobytes())


@pytest.mark.parametrize("brightest", [0, 65535])
def test_sixteen_bits_that_are_filled_or_black_become_eight(brightest):
    ramp = np.linspace(0, brightest, 30 * 40).reshape(30, 40).astype(np.uint16)
    _, data = cv2.imencode(".png", ramp)
    np.testing.assert_array_equal(decode_image(data.tobytes()), np.repeat(ramp[..., None] >> 8, 3, axis=2))


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_tag_turns_the_picture_as_viewers_do(image, form, orientation):
    tagged = Image.fromarray(image)
    exif = tagged.getexif()
    exif[ExifTags.Base.Orientation] = orientation
    file = io.BytesIO()
    tagged.save(file, form, exif=exif, quality=95)
    shown = np.array(ImageOps.exif_transpose(Image.open(file)))
    decoded = decode_image(file.getvalue())
    assert decoded.shape == shown.shape
    assert np.abs(decoded.astype(int) - shown).max() < 5


@given(st.floats(0.02, 0.98))
def test_a_jpeg_that_is_cut_anywhere_is_refused(fraction):
    data = encode_jpeg(np.random.default_rng(0).integers(0, 255, (24, 24, 3)).astype(np.uint8), 80)
    with pytest.raises(ValueError, match=r"picture|last line"):
        decode_image(data[: int(len(data) * fraction)])


@pytest.mark.parametrize("data", [b"", b"GIF", b"\xff\xd8\xff\xd9"])
def test_bytes_that_are_no_picture_are_refused(data):
    with pytest.raises(ValueError, match=r"picture|last line"):
        decode_image(data)


class TestFiles:
    @pytest.fixture
    def paths(self, tmp_path, image):
        paths = [tmp_path / f"{number}.jpg" for number in range(3)]
        for number, path in enumerate(paths):
            path.write_bytes(encode_jpeg(np.full_like(image, 50 * number), 95))
        return tuple(paths)

    def test_they_come_in_the_order_given_again_and_again(self, paths):
        source = ImageFiles(paths[::-1])
        for _ in range(2):
            assert [round(image.mean() / 50) for image in source] == [2, 1, 0]

    def test_the_fingerprint_changes_with_order_names_and_bytes(self, paths):
        first = ImageFiles(paths).fingerprint()
        assert ImageFiles(paths).fingerprint() == first != ImageFiles(paths[::-1]).fingerprint()
        paths[0].write_bytes(paths[1].read_bytes())
        assert ImageFiles(paths).fingerprint() != first

    def test_a_missing_or_broken_one_is_refused_by_its_path(self, paths, refused):
        paths[1].write_bytes(b"x")
        refused(ClipError, lambda: list(ImageFiles(paths)), where=paths[1], found="cannot be decoded")
        paths[1].unlink()
        refused(ClipError, lambda: read_image(paths[1]), where=paths[1], found="is not there", fix="Copy the missing")
