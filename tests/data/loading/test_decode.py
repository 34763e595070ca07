import struct
import warnings
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from support.image_folders import encoded, noise
from torchvision.transforms.functional import pil_to_tensor

from focal_lab.data.classification.dataset import ClassifiedImages
from focal_lab.data.detection.coco import CocoDataModule, CocoDataset
from focal_lab.data.detection.coco_annotations import CocoImage
from focal_lab.data.loading.decode import decode, load_image
from focal_lab.data.segmentation.mask_classes import MaskClasses
from focal_lab.data.segmentation.mask_files import MaskedImage
from focal_lab.data.segmentation.mask_folder import MaskedImages, SegmentationFolder
from focal_lab.data.sources.image_source import FileSource
from focal_lab.errors import UserError
from focal_lab.tools.trained.preprocessing import own_size


def corner(image, kind="PNG", **options):
    found = decode(encoded(image, kind, **options))
    assert found.mode == "RGB"
    return found.getpixel((0, 0))


def test_grey_images_become_rgb():
    assert corner(Image.new("L", (4, 4), 70)) == (70, 70, 70)
    assert corner(Image.new("1", (4, 4), 1)) == (255, 255, 255)


def test_cmyk_jpegs_become_rgb():
    assert corner(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG") == (255, 0, 0)


def test_palettes_are_looked_up_and_what_is_transparent_in_them_is_white():
    image = Image.new("P", (4, 4))
    image.putpalette([10, 20, 30] * 256)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert corner(image) == (10, 20, 30)
        assert corner(image, transparency=0) == (255, 255, 255)
        assert corner(image, transparency=b"\0" * 256) == (255, 255, 255)
        assert corner(image, "GIF", transparency=0) == (255, 255, 255)


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


def test_deep_images_are_scaled_by_their_kind_and_not_by_their_own_brightest_value():
    for most, kind, name in ((65535, np.int32, "TIFF"), (65535, np.uint16, "PPM"), (1, np.float32, "TIFF")):
        bright = np.full((4, 4), most).astype(kind)
        for share in (1, 0.5, 0.01, 0):
            image = Image.fromarray((bright * share).astype(kind))
            assert corner(image, name)[0] == pytest.approx(255 * share, abs=0.51)


def test_whole_numbers_of_32_bits_that_may_be_bytes_are_warned_of():
    with pytest.warns(UserWarning, match="almost black"):
        assert corner(Image.fromarray(np.full((4, 4), 200, np.int32)), "TIFF") == (1, 1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        corner(Image.fromarray(np.full((4, 4), 256, np.int32)), "TIFF")
        corner(Image.fromarray(np.zeros((4, 4), np.int32)), "TIFF")
        corner(Image.fromarray(np.full((4, 4), 200, np.uint16)), "PPM")


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5, 1.004, 200.0, -1, 65536])
def test_deep_images_whose_range_is_unknown_are_refused(value):
    kind = np.int32 if isinstance(value, int) else np.float32
    data = encoded(Image.fromarray(np.array([[0, 1], [1, value]]).astype(kind)), "TIFF")

    with pytest.raises(ValueError, match=r"has values from .* can be read from 0 to (1|65535) "):
        decode(data)


def png(colour: int, row: bytes, transparent: bytes) -> bytes:
    """A file of 16 bits a channel that Pillow reads but does not write: two pixels, one transparent."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, colour, 0, 0, 0))
    parts = header + chunk(b"tRNS", transparent) + chunk(b"IDAT", zlib.compress(b"\0" + row))
    return b"\x89PNG\r\n\x1a\n" + parts + chunk(b"IEND", b"")


def test_transparent_colours_of_16_bits_are_white():
    colours = struct.pack(">6H", 1000, 2000, 3000, 40000, 50000, 60000)

    for data in (png(2, colours, colours[:6]), png(0, colours[4:8], colours[4:6])):
        found = decode(data)
        assert found.getpixel((0, 0)) == (255, 255, 255)
        assert found.getpixel((1, 0))[0] == 156


FLAG = np.zeros((24, 32, 3), np.uint8)
FLAG[:, :16], FLAG[:12] = (200, 100, 50), (0, 128, 255)
DEEP = np.linspace(0, 65535, 24 * 32).reshape(24, 32)


def kinds() -> dict[str, tuple[str, Image.Image, dict[str, object]]]:
    """Images of all the modes that files have: suffix, image, and how it is saved."""
    flag, clear = Image.fromarray(FLAG), Image.new("RGBA", (32, 24), (9, 9, 9, 0))
    turned = Image.Exif()
    turned[0x0112] = 3
    animated = {"save_all": True, "append_images": [Image.new("RGB", (32, 24))]}
    return {
        "RGB": ("png", flag, {}),
        "RGBA": ("png", Image.blend(flag.convert("RGBA"), clear, 0.5), {}),
        "L": ("png", flag.convert("L"), {}),
        "LA": ("png", Image.merge("LA", [flag.getchannel(0), flag.getchannel(2)]), {}),
        "1": ("png", flag.convert("1"), {}),
        "P": ("png", flag.quantize(8), {}),
        "P with tRNS": ("png", flag.quantize(8), {"transparency": 0}),
        "P with many tRNS": ("png", flag.quantize(4), {"transparency": bytes([0, 90, 180, 255])}),
        "PA": ("tif", flag.convert("PA"), {}),
        "RGB with tRNS": ("png", flag, {"transparency": (0, 128, 255)}),
        "I;16 PNG": ("png", Image.fromarray(DEEP.astype(np.uint16)), {}),
        "I;16 TIFF": ("tif", Image.fromarray(DEEP.astype(np.uint16)), {}),
        "I;16B TIFF": ("tif", Image.fromarray(DEEP.astype(">u2")), {}),
        "I": ("tif", Image.fromarray(DEEP.astype(np.int32)), {}),
        "F of 0 to 1": ("tif", Image.fromarray((DEEP / 65535).astype(np.float32)), {}),
        "PGM of 16 bits": ("pgm", Image.fromarray(DEEP.astype(np.uint16)), {}),
        "CMYK": ("jpg", flag.convert("CMYK"), {}),
        "YCbCr": ("tif", flag.convert("YCbCr"), {}),
        "LAB": ("tif", Image.new("LAB", (32, 24), (120, 30, 90)), {}),
        "turned": ("jpg", flag, {"exif": turned}),
        "turned TIFF": ("tif", flag, {"exif": turned}),
        "two frames": ("webp", flag, animated | {"lossless": True}),
        "two pages": ("tif", flag, animated),
        "one pixel": ("png", Image.new("RGB", (1, 1), (1, 2, 3)), {}),
    }


@pytest.mark.parametrize("kind", kinds())
def test_every_data_set_and_prediction_read_the_same_pixels(tmp_path, kind):
    suffix, image, options = kinds()[kind]
    path = tmp_path / f"a.{suffix}"
    image.save(path, **options)
    expected = torch.from_numpy(np.array(decode(path))).permute(2, 0, 1)
    if DEEP.shape[::-1] == image.size and image.mode[0] in "IF":
        assert expected.float().mean() == pytest.approx(127.5, abs=0.6)  # Pillow by itself makes 251 of it
    width, height = image.size
    plain = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    normalised = CocoDataModule(str(tmp_path), **plain).transform(0.0)
    coco = CocoDataset([CocoImage(1, path.name, height, width, ())], tmp_path, normalised, 0)
    folder = SegmentationFolder(str(tmp_path), **plain)
    mask = tmp_path / "mask.png"
    Image.new("L", image.size).save(mask)
    normalised = folder.unlabelled([]).transform
    classified = ClassifiedImages(FileSource(tmp_path, [path.name], [0]), pil_to_tensor, (3, height, width))

    read = {
        "detection": coco[0][0],
        "segmentation": MaskedImages([MaskedImage(path, mask)], MaskClasses(("thing",), 255, 0), normalised)[
            0
        ][0],
        "segmentation to predict": folder.unlabelled([path])[0][0],
        "classification": classified[0][0] / 255,
        "predict, inspect": own_size(SimpleNamespace(**plain)).read(path),
    }

    for reader, pixels in read.items():
        assert torch.equal((pixels * 255).round().to(torch.uint8), expected), reader


def test_an_image_of_the_same_size_either_way_is_warned_of_where_it_has_annotations():
    exif = Image.Exif()
    exif[0x0112] = 3
    data = encoded(noise(0, (40, 20)), "PNG", exif=exif)

    with pytest.warns(UserWarning, match="whose size is the same either way"):
        decode(data, size=(40, 20))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_images_are_turned_as_exif_says_unless_that_is_switched_off(kind, mode):
    marked = Image.new(mode, (40, 20))
    marked.paste(Image.new(mode, (20, 20), "white"))  # the left half
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rows are columns
    data = encoded(marked, kind, exif=exif)

    assert decode(data).size == (20, 40)
    assert decode(data).getpixel((10, 5)) > (200, 200, 200)  # left has become top
    assert decode(data, upright=False).size == (40, 20)
    assert decode(data, size=(40, 20)).size == (40, 20)  # annotations were made for what is stored
    assert decode(data, size=(20, 40)).size == (20, 40)


@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0garbage!"])
def test_damaged_exif_data_keep_nobody_from_seeing_an_image(exif):
    assert decode(encoded(noise(0), exif=exif)).size == (48, 40)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_truncated_file_is_named(tmp_path, kind):
    path = tmp_path / "broken.image"
    path.write_bytes(encoded(noise(0, (200, 200)), kind)[:2000])

    with pytest.raises(UserError, match=r"broken\.image: cannot be decoded as an image"):
        load_image(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"a\.jpg: does not exist"):
        load_image(tmp_path / "a.jpg")
