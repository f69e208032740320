import numpy as np
import pytest
from PIL import Image

from detkit.data.datasets.images import read_image, to_rgb


def saved(path, image, **options):
    image.save(path, **options)
    return np.asarray(read_image(path))


def test_exif_orientation_turns_the_image_upright(tmp_path):
    image = Image.new("RGB", (4, 2))
    image.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    upright = saved(tmp_path / "a.png", image, exif=exif)
    assert upright.shape == (4, 2, 3)
    assert upright[0, 1].tolist() == [255, 0, 0]


def test_grey_palette_and_one_bit(tmp_path):
    grey = Image.fromarray(np.array([[0, 128, 255]], np.uint8))
    assert saved(tmp_path / "g.png", grey).tolist() == [[[0] * 3, [128] * 3, [255] * 3]]
    palette = Image.new("P", (1, 1))
    palette.putpalette([10, 20, 30])
    assert saved(tmp_path / "p.png", palette).tolist() == [[[10, 20, 30]]]
    assert saved(tmp_path / "b.png", Image.new("1", (1, 1), 1)).tolist() == [[[255] * 3]]


def test_sixteen_bits_keep_their_range(tmp_path):
    values = np.array([[0, 257 * 100, 65535]], np.uint16)
    assert saved(tmp_path / "d.png", Image.fromarray(values)).tolist() == [[[0] * 3, [100] * 3, [255] * 3]]


def test_a_dark_sixteen_bit_image_stays_dark(tmp_path):
    values = np.array([[0, 200, 255]], np.uint16)
    for suffix in ("png", "tif"):
        assert saved(tmp_path / f"d.{suffix}", Image.fromarray(values)).max() == 0
    # Mode I is what older Pillows make of a 16-bit PNG.
    wide = Image.fromarray(np.array([[0, 255, 65535]], np.int32))
    assert np.asarray(to_rgb(wide))[0, :, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (np.array([[0, 70000]], np.int32), "32-bit values of 0 to 70000"),
        (np.array([[0.0, 1.0]], np.float32), "floating-point"),
    ],
)
def test_values_of_no_known_range_are_refused(tmp_path, values, text):
    Image.fromarray(values).save(tmp_path / "x.tif")
    with pytest.raises(ValueError, match=rf"x.tif: .*{text}.*save it with 8 or 16 bits"):
        read_image(tmp_path / "x.tif")


def test_a_transparent_colour_lies_over_black(tmp_path):
    image = Image.new("RGB", (2, 1), (9, 8, 7))
    image.putpixel((1, 0), (1, 2, 3))
    assert saved(tmp_path / "k.png", image, transparency=(9, 8, 7)).tolist() == [[[0, 0, 0], [1, 2, 3]]]


def test_transparency_lies_over_black(tmp_path):
    pixels = np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 51]]], np.uint8)
    assert saved(tmp_path / "t.png", Image.fromarray(pixels)).tolist() == [[[200, 100, 50], [0, 0, 0], [40, 20, 10]]]


def test_cmyk_is_converted(tmp_path):
    for suffix in ("tif", "jpg"):
        out = saved(tmp_path / f"c.{suffix}", Image.new("CMYK", (8, 8), (0, 255, 255, 0)))
        assert out[0, 0, 0] > 200
        assert out[0, 0, 1:].max() < 60


def test_files_that_are_no_images_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no image file .*gone.png"):
        read_image(tmp_path / "gone.png")
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"text.png: not a readable image"):
        read_image(tmp_path / "text.png")
    Image.new("RGB", (100, 100), (1, 2, 3)).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:400])
    with pytest.raises(ValueError, match=r"cut.jpg: not a readable image"):
        read_image(tmp_path / "cut.jpg")
