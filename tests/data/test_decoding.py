import warnings

import numpy as np
import pytest
from pictures_world import encoded, noise
from PIL import Image

from focal_lab.data.decoding import decode, load_picture
from focal_lab.errors import UserError


def corner(picture, kind="PNG", **options):
    found = decode(encoded(picture, kind, **options))
    assert found.mode == "RGB"
    return found.getpixel((0, 0))


def test_grey_pictures_become_rgb():
    assert corner(Image.new("L", (4, 4), 70)) == (70, 70, 70)
    assert corner(Image.new("1", (4, 4), 1)) == (255, 255, 255)


def test_cmyk_jpegs_become_rgb():
    assert corner(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG") == (255, 0, 0)


def test_palettes_are_looked_up_and_what_is_transparent_in_them_is_white():
    picture = Image.new("P", (4, 4))
    picture.putpalette([10, 20, 30] * 256)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert corner(picture) == (10, 20, 30)
        assert corner(picture, transparency=0) == (255, 255, 255)
        assert corner(picture, transparency=b"\0" * 256) == (255, 255, 255)
        assert corner(picture, "GIF", transparency=0) == (255, 255, 255)


def test_transparent_places_are_white_and_half_transparent_ones_half():
    assert corner(Image.new("RGBA", (4, 4), (200, 0, 0, 0))) == (255, 255, 255)
    assert corner(Image.new("RGBA", (4, 4), (200, 0, 0, 255))) == (200, 0, 0)
    assert corner(Image.new("LA", (4, 4), (55, 128))) == pytest.approx((155, 155, 155), abs=1)
    assert corner(Image.new("RGB", (4, 4), (1, 2, 3)), transparency=(1, 2, 3)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_become_their_upper_8_and_not_white(kind):
    ramp = np.linspace(0, 65535, 40 * 8).astype(np.uint16).reshape(8, 40)

    found = decode(encoded(Image.fromarray(ramp), kind))

    assert np.abs(np.asarray(found)[..., 0].astype(float) - ramp / 257).max() <= 0.5


def test_deep_pictures_with_values_of_bytes_keep_them():
    assert corner(Image.fromarray(np.full((4, 4), 200, np.int32)), "TIFF") == (200, 200, 200)
    assert corner(Image.fromarray(np.full((4, 4), 0.5, np.float32)), "TIFF") == (128, 128, 128)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_pictures_are_turned_as_exif_says_unless_that_is_switched_off(kind, mode):
    marked = Image.new(mode, (40, 20))
    marked.paste(Image.new(mode, (20, 20), "white"))  # the left half
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rows are columns
    data = encoded(marked, kind, exif=exif)

    assert decode(data).size == (20, 40)
    assert decode(data).getpixel((10, 5)) > (200, 200, 200)  # left has become top
    assert decode(data, upright=False).size == (40, 20)


def test_damaged_exif_data_keep_nobody_from_seeing_a_picture():
    data = encoded(noise(0), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")

    assert decode(data).size == (48, 40)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_truncated_file_is_named(tmp_path, kind):
    path = tmp_path / "broken.picture"
    path.write_bytes(encoded(noise(0, (200, 200)), kind)[:2000])

    with pytest.raises(UserError, match=r"broken\.picture: cannot be decoded as a picture"):
        load_picture(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"a\.jpg: does not exist"):
        load_picture(tmp_path / "a.jpg")
