"""One file of each kind: grey levels as they are, alpha on white, turned upright; what has no right reading is refused."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_sparse import SparsityError
from lightning_sparse.data.image_file import check_image, read_image

GREY = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def read(image, path, channels=1, **saving):
    image.save(path, **saving)
    check_image(str(path), (channels, 8, 8))
    return read_image(str(path), (channels, 8, 8))


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_of_a_picture_are_its_8_bits(name, channels, tmp_path):
    eight = read(Image.fromarray(GREY), tmp_path / "8.png", channels)
    sixteen = read(Image.fromarray(GREY.astype(np.uint16) * 257), tmp_path / name, channels)
    assert torch.equal(sixteen, eight)
    assert torch.equal(eight[0], torch.tensor(GREY) / 255)


def test_levels_between_those_of_8_bits_are_kept_and_floats_are_shares_of_white(tmp_path):
    dark = np.arange(64, dtype=np.uint16).reshape(8, 8)
    assert read(Image.fromarray(dark), tmp_path / "dark.png").unique().numel() == 64
    floats = (GREY / 255).astype(np.float32)
    assert torch.allclose(read(Image.fromarray(floats), tmp_path / "f.tif")[0], torch.tensor(floats))


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white_and_what_is_opaque_stays(kind, tmp_path):
    picture = Image.new("RGBA", (8, 8), (0, 0, 0, 255))
    picture.paste((10, 20, 30, 0), (0, 0, 4, 8))
    saving = {}
    if kind == "P":
        picture = Image.new("P", (8, 8), 1)
        picture.putpalette([255, 0, 0, 0, 0, 0])
        picture.paste(0, (0, 0, 4, 8))
        saving = {"transparency": 0}
    pixels = read(picture if kind == "P" else picture.convert(kind), tmp_path / "a.png", 3, **saving)
    assert (pixels[:, :, :4] == 1).all()
    assert (pixels[:, :, 4:] == 0).all()


def test_a_photo_is_turned_as_its_camera_says(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held upright
    pixels = read(Image.fromarray(COLOUR), tmp_path / "a.png", 3, exif=turned)
    assert torch.equal(pixels, read(Image.fromarray(np.rot90(COLOUR, -1).copy()), tmp_path / "b.png", 3))


def test_1_bit_palettes_and_print_colours_are_read(tmp_path):
    assert set(read(Image.fromarray(GREY).convert("1"), tmp_path / "1.png").unique().tolist()) == {0.0, 1.0}
    palette = Image.fromarray(COLOUR).convert("P")
    plain = read(palette.convert("RGB"), tmp_path / "rgb.png", 3)
    assert torch.equal(read(palette, tmp_path / "p.png", 3), plain)
    assert (read(Image.new("CMYK", (8, 8), (0, 0, 0, 255)), tmp_path / "c.jpg", 3) < 0.02).all()


@pytest.mark.parametrize(
    ("name", "made", "message"),
    [
        (
            "i.tif",
            Image.fromarray(GREY.astype(np.int32)),
            "numbers of 32 bits or with signs.*save it with 8 or 16 bits",
        ),
        (
            "f.tif",
            Image.fromarray(GREY.astype(np.float32)),
            r"numbers from \d+ to \d+, where black is 0 and white is 1",
        ),
        ("nan.tif", Image.fromarray(np.full((8, 8), np.nan, np.float32)), "numbers from nan to nan"),
    ],
)
def test_grey_levels_whose_white_is_unknown_are_refused(name, made, message, tmp_path):
    made.save(tmp_path / name)
    with pytest.raises(SparsityError, match=f"{name}' holds {message}"):
        check_image(str(tmp_path / name), (1, 8, 8))


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
def test_a_file_of_several_pictures_is_refused(name, tmp_path):
    first, second = Image.fromarray(COLOUR), Image.fromarray(COLOUR[::-1].copy())
    first.save(tmp_path / name, save_all=True, append_images=[second])
    with pytest.raises(SparsityError, match=f"{name}' holds 2 pictures: save each as a file of its own"):
        check_image(str(tmp_path / name), (3, 8, 8))


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp", "bmp"])
def test_a_file_that_was_cut_off_is_found_and_a_longer_one_is_not_refused(ending, tmp_path):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SparsityError, match=f"a.{ending}' is damaged or cut off.*replace the file, or remove it"):
        check_image(str(path), (3, 8, 8))
    path.write_bytes(whole + b"and more")
    check_image(str(path), (3, 8, 8))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"<!DOCTYPE html><p>404", "is no image, it starts with b'<!DOCTYPE ht'"), (b"", "is empty, 0 bytes")],
)
def test_what_is_no_image_is_shown(content, message, tmp_path):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(SparsityError, match=f"a.jpg' {message}: replace the file, or remove it"):
        check_image(str(tmp_path / "a.jpg"), (3, 8, 8))


def test_a_png_that_is_damaged_within_and_a_file_that_is_gone_are_refused(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    damaged = bytearray(path.read_bytes())
    damaged[1000:1060] = bytes(60)
    path.write_bytes(damaged)
    with pytest.raises(SparsityError, match=r"a\.png' is damaged"):
        check_image(str(path), (3, 8, 8))
    with pytest.raises(SparsityError, match=r"gone\.png' cannot be read"):
        read_image(str(tmp_path / "gone.png"), (3, 8, 8))


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_would_be_read_for_ever_is_refused(kind, tmp_path):
    path = tmp_path / "a.png"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(SparsityError, match=r"a\.png' is a pipe or a device.*: remove it"):
        check_image(str(path), (3, 8, 8))


def test_more_pixels_than_pillow_reads_are_refused(tmp_path, monkeypatch):
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(SparsityError, match="has more pixels than Pillow reads"):
        check_image(str(tmp_path / "a.png"), (3, 8, 8))
