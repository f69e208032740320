import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType, SimpleNamespace
from typing import Any

import numpy as np
import PIL
import pytest
from PIL import Image, ImageFile, features

from detkit.data.datasets.image_files import describe_left_out, image_suffixes, images_by_stem, list_images
from detkit.data.datasets.images import ImageOptions, read_image, read_size, reads_heif, to_rgb
from tests.refusals import Refuses


def saved(path: Path, image: Image.Image, **options: Any) -> np.ndarray:
    image.save(path, **options)
    return np.asarray(read_image(path))


def test_exif_orientation_turns_the_image_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 2))
    image.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    upright = saved(tmp_path / "a.png", image, exif=exif)
    assert upright.shape == (4, 2, 3)
    assert upright[0, 1].tolist() == [255, 0, 0]


def test_grey_palette_and_one_bit(tmp_path: Path) -> None:
    grey = Image.fromarray(np.array([[0, 128, 255]], np.uint8))
    assert saved(tmp_path / "g.png", grey).tolist() == [[[0] * 3, [128] * 3, [255] * 3]]
    palette = Image.new("P", (1, 1))
    palette.putpalette([10, 20, 30])
    assert saved(tmp_path / "p.png", palette).tolist() == [[[10, 20, 30]]]
    assert saved(tmp_path / "b.png", Image.new("1", (1, 1), 1)).tolist() == [[[255] * 3]]


def test_sixteen_bits_keep_their_range(tmp_path: Path) -> None:
    values = np.array([[0, 257 * 100, 65535]], np.uint16)
    assert saved(tmp_path / "d.png", Image.fromarray(values)).tolist() == [[[0] * 3, [100] * 3, [255] * 3]]


def test_a_dark_sixteen_bit_image_stays_dark(tmp_path: Path) -> None:
    values = np.array([[0, 200, 255]], np.uint16)
    for suffix in ("png", "tif"):
        assert saved(tmp_path / f"d.{suffix}", Image.fromarray(values)).max() == 0
    # Mode I is what older Pillows make of a 16-bit PNG.
    wide = Image.fromarray(np.array([[0, 255, 65535]], np.int32))
    assert np.asarray(to_rgb(wide))[0, :, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0, 70000]], np.int32),
        np.array([[0.0, 1.0]], np.float32),
    ],
)
def test_values_of_no_known_range_are_refused(refuses: Refuses, tmp_path: Path, values: np.ndarray) -> None:
    Image.fromarray(values).save(tmp_path / "x.tif")
    with refuses(ValueError):
        read_image(tmp_path / "x.tif")


def test_a_transparent_colour_lies_over_black(tmp_path: Path) -> None:
    image = Image.new("RGB", (2, 1), (9, 8, 7))
    image.putpixel((1, 0), (1, 2, 3))
    assert saved(tmp_path / "k.png", image, transparency=(9, 8, 7)).tolist() == [[[0, 0, 0], [1, 2, 3]]]


def test_transparency_lies_over_black(tmp_path: Path) -> None:
    pixels = np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 51]]], np.uint8)
    assert saved(tmp_path / "t.png", Image.fromarray(pixels)).tolist() == [[[200, 100, 50], [0, 0, 0], [40, 20, 10]]]


def test_cmyk_is_converted(tmp_path: Path) -> None:
    for suffix in ("tif", "jpg"):
        out = saved(tmp_path / f"c.{suffix}", Image.new("CMYK", (8, 8), (0, 255, 255, 0)))
        assert out[0, 0, 0] > 200
        assert out[0, 0, 1:].max() < 60


def test_files_that_are_no_images_are_named(refuses: Refuses, tmp_path: Path) -> None:
    with refuses(FileNotFoundError):
        read_image(tmp_path / "gone.png")
    (tmp_path / "text.png").write_text("not an image")
    with refuses(ValueError):
        read_image(tmp_path / "text.png")
    Image.new("RGB", (100, 100), (1, 2, 3)).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:400])
    with refuses(ValueError):
        read_image(tmp_path / "cut.jpg")


# ---- damaged files, limits, suffixes


def picture(side: int = 64) -> Image.Image:
    """Blocks of colour, as large as those of JPEG with its colour at half the size."""
    blocks = np.random.default_rng(0).integers(0, 255, (side // 16, side // 16, 3))
    return Image.fromarray(np.kron(blocks, np.ones((16, 16, 1))).astype(np.uint8))


REPAIR = ImageOptions(bad_images="repair")


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "gif", "ppm", "tif"])
def test_repair_decodes_what_is_there_as_browsers_do(refuses: Refuses, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    picture(256).save(path)
    whole = np.asarray(read_image(path)).astype(int)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with refuses(ValueError):
        read_image(path)
    mended = np.asarray(read_image(path, REPAIR)).astype(int)
    assert mended.shape == whole.shape
    same = np.abs(mended - whole).max(axis=(1, 2)) < 12
    assert 0.1 < same.mean() < 0.9, "a part of the rows is there, in its place"
    assert np.abs(mended - whole).max() > 50, "the others are not"


def test_a_jpeg_without_its_last_20_bytes_loses_nothing_that_one_sees(refuses: Refuses, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    picture(256).save(path)
    whole = np.asarray(read_image(path)).astype(int)
    path.write_bytes(path.read_bytes()[:-20])
    with refuses(ValueError):
        read_image(path)
    mended = np.asarray(read_image(path, REPAIR)).astype(int)
    assert np.abs(mended[:224] - whole[:224]).max() == 0


def test_what_can_not_be_repaired_says_so(refuses: Refuses, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing")
    with refuses(ValueError):
        read_image(tmp_path / "x.jpg", REPAIR)
    with refuses(FileNotFoundError):
        read_image(tmp_path / "gone.jpg", REPAIR)


def test_repair_changes_pillow_for_nobody_else(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from PIL import ImageFile

    picture().save(tmp_path / "x.png")
    cut = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(cut[: len(cut) // 2])

    def read(options: Any) -> Any:
        try:
            return read_image(tmp_path / "x.png", options).size
        except ValueError:
            return None

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(read, [REPAIR, ImageOptions()] * 50))
    assert found == [(64, 64), None] * 50
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_the_limit_is_detkits_own_and_is_lifted_by_a_key(
    refuses: Refuses, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    path = tmp_path / "aerial.png"
    Image.new("1", (13500, 13500)).save(path)
    for read in (read_image, read_size):
        with refuses(ValueError) as told:
            read(path)
        assert "bomb" not in str(told.value).lower()
    assert read_size(path, ImageOptions(max_megapixels=183)) == (13500, 13500)
    picture().save(tmp_path / "small.png")
    with refuses(ValueError):
        read_image(tmp_path / "small.png", ImageOptions(max_megapixels=0.001, bad_images="repair"))
    assert not [w for w in recwarn if "ecompression" in str(w.message)]
    with refuses(ValueError):
        ImageOptions(max_megapixels=0)


def test_a_bomb_is_refused_by_its_header_alone(refuses: Refuses, tmp_path: Path) -> None:
    """A header of 60000x60000 pixels without any: decoding would end in another message."""
    import struct
    import zlib

    ihdr = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    (tmp_path / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + ihdr + struct.pack(">I", zlib.crc32(ihdr)) + b"\0\0\0\0IDAT"
    )
    with refuses(ValueError):
        read_image(tmp_path / "bomb.png")


def test_the_size_in_the_header_is_the_upright_one(refuses: Refuses, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGB", (40, 20)).save(tmp_path / "plain.png")
    assert read_size(tmp_path / "turned.jpg") == (40, 20) == read_image(tmp_path / "turned.jpg").size[::-1]
    assert read_size(tmp_path / "plain.png") == (20, 40)
    with refuses(FileNotFoundError):
        read_size(tmp_path / "gone.png")


def test_suffixes_are_pillows_own() -> None:
    suffixes = image_suffixes()
    assert suffixes[:3] == (".jpg", ".jpeg", ".png")
    assert {".jfif", ".jpe", ".webp", ".tiff", ".bmp", ".gif", ".jp2", ".tga", ".ico"} <= set(suffixes)
    assert not {".eps", ".ps", ".h5", ".mpg", ".txt", ".json", ".pdf"} & set(suffixes)
    assert (".avif" in suffixes) == features.check("avif")
    assert len(suffixes) == len(set(suffixes))


@pytest.fixture
def heif(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Makes pillow-heif what a test wants it to be; None: not installed."""
    yield lambda module: monkeypatch.setitem(sys.modules, "pillow_heif", module) or reads_heif.cache_clear()
    reads_heif.cache_clear()


def test_a_folder_gives_its_images_and_what_is_left_out(tmp_path: Path, heif: Callable[..., Any]) -> None:
    heif(None)
    for name in ("b.JFIF", "a.jpe", "c.webp", "notes.txt", "d.HEIC", ".hidden.png"):
        (tmp_path / name).touch()
    (tmp_path / "more.png").mkdir()
    images, left_out = list_images(tmp_path)
    assert [p.name for p in images] == ["a.jpe", "b.JFIF", "c.webp"]
    text = describe_left_out("photos", left_out)
    assert text is not None
    assert text.startswith("photos: left out 2 files that can't be read as images: d.HEIC, notes.txt; 1 folder in it")
    assert "pip install 'detkit[heif]'" in text
    assert describe_left_out("photos", []) is None


def test_a_heic_file_says_what_reads_it(refuses: Refuses, tmp_path: Path, heif: Callable[..., Any]) -> None:
    heif(None)
    (tmp_path / "x.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with refuses(ValueError):
        read_image(tmp_path / "x.heic")


def test_pillow_heif_is_used_where_it_is_installed(heif: Callable[..., Any]) -> None:
    asked = []
    heif(SimpleNamespace(register_heif_opener=lambda: asked.append(1)))
    image_suffixes()
    assert asked == [1]


def test_an_image_is_found_by_its_name_without_suffix(tmp_path: Path) -> None:
    for name in ("a.jfif", "b.png", "b.jpg", "c.txt"):
        (tmp_path / name).touch()
    found = images_by_stem(tmp_path)
    assert {stem: path.name for stem, path in found.items()} == {"a": "a.jfif", "b": "b.jpg"}
    assert images_by_stem(tmp_path / "gone") == {}


def test_the_size_of_a_png_needs_no_pixels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.png"
    Image.effect_noise((40, 20), 50).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-300])
    assert read_size(path) == (20, 40)
    # EXIF may stand behind the pixels, too.
    Image.effect_noise((40, 20), 50).save(path, exif=exif)
    turned = path.read_bytes()
    at = turned.index(b"eXIf") - 4
    chunk = turned[at : at + 12 + int.from_bytes(turned[at : at + 4], "big")]
    path.write_bytes(whole[:-12] + chunk + whole[-12:])
    assert read_size(path) == np.asarray(read_image(path)).shape[:2] == (40, 20)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<!DOCTYPE html><html>",
        b"version https://git-lfs.github.com/spec/v1\n",
        b"\xff\xd7\0\1",
    ],
)
@pytest.mark.parametrize("policy", ["error", "repair"])
def test_what_is_no_image_is_named(refuses: Refuses, tmp_path: Path, content: bytes, policy: Any) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with refuses(ValueError):
        read_image(tmp_path / "a.jpg", ImageOptions(bad_images=policy))


@pytest.mark.parametrize("policy", ["error", "repair"])
def test_a_device_is_not_read(refuses: Refuses, policy: Any) -> None:
    with refuses(ValueError):
        read_image("/dev/zero", ImageOptions(bad_images=policy))


def global_names(code: CodeType) -> set[str]:
    """Names that a function or one inside of it reads from its module."""
    inner = [part for part in code.co_consts if isinstance(part, CodeType)]
    return set(code.co_names).union(*map(global_names, inner))


@pytest.mark.parametrize(
    ("function", "name"),
    [(Image.open, "_decompression_bomb_check"), (ImageFile.ImageFile.load, "LOAD_TRUNCATED_IMAGES")],
)
def test_pillow_still_has_the_switches_that_images_sets_for_one_call(function: Any, name: str) -> None:
    place = f"{function.__module__}.{function.__qualname__}"
    text = f"Pillow {PIL.__version__}: {place} no longer reads the global {name}: adapt detkit/data/datasets/images.py"
    assert isinstance(function, FunctionType), text
    assert name in function.__globals__, text
    assert name in global_names(function.__code__), text
    assert not function.__kwdefaults__, f"Pillow {PIL.__version__}: _with_globals must copy the defaults of {place}"


def test_pillow_s_switches_stay_as_they_are_for_everyone_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.jpg", quality=95)
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-2000])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_image(tmp_path / "whole.jpg").size == (64, 64)
    assert read_image(tmp_path / "cut.jpg", ImageOptions(bad_images="repair")).size == (64, 64)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    with pytest.raises(Image.DecompressionBombError):
        Image.open(tmp_path / "whole.jpg")
