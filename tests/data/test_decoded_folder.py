"""Images of a folder are decoded once, until a file changes, and are what decoding them for each batch gives."""

import multiprocessing
import os

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_sparse.data import ImageData, decoded_folder
from lightning_sparse.data.datasets import InMemory, OnDisk
from lightning_sparse.data.decoded_folder import HIDDEN
from lightning_sparse.data.image_file import read_image

SHAPE = (3, 8, 8)


def picture(path, seed, side=8):
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def root(tmp_path):
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(4):
                picture(tmp_path / split / name / f"{number}.bmp", number + 10 * len(split) + len(name))
    return tmp_path


def load(root, **changes):
    given = {"shape": SHAPE, "classes": 2, "mean": [0.5], "std": [0.5], "validation": 0.5}
    data = ImageData("folder", root=root, **{**given, **changes})
    data.setup()
    return data


def images_of(root, **changes):
    return load(root, **changes).split("test")[0]


def in_place(path, write):
    """Change a file, and give it the time of change that it had."""
    seen = path.stat()
    write()
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    return seen


def test_a_later_launch_decodes_nothing(root):
    before = images_of(root)
    path = root / "test" / "ant" / "0.bmp"
    in_place(path, lambda: picture(path, 99))  # of the same size: nothing tells that it is another
    assert torch.equal(images_of(root), before)
    os.utime(path)
    now = images_of(root)
    assert [bool((one != other).any()) for one, other in zip(now, before, strict=True)] == [True] + 7 * [False]
    assert torch.equal(now[0], read_image(str(path), SHAPE))


@pytest.mark.parametrize("what", ["size", "name", "new", "gone", "shape"])
def test_whatever_changes_is_decoded_again(what, root):
    before, path, shape = images_of(root), root / "test" / "bee" / "3.bmp", SHAPE
    if what == "size":
        in_place(path, lambda: picture(path, 99, side=16))
    elif what == "name":
        path.rename(path.with_name("00.bmp"))
    elif what == "new":
        picture(path.with_name("4.bmp"), 99)
    elif what == "gone":
        path.unlink()
    else:
        shape = (1, 8, 8)
    now = images_of(root, shape=shape)
    paths = [str(path) for name in ("ant", "bee") for path in sorted((root / "test" / name).iterdir())]
    assert torch.equal(now, torch.stack([read_image(path, shape) for path in paths]))
    assert now.shape != before.shape or not torch.equal(now, before)


@pytest.mark.parametrize("how", ["empty", "half", "a byte", "text", "another dict", "another object"])
def test_a_damaged_file_of_ours_is_made_again(how, root):
    before, kept = images_of(root), root / HIDDEN / "test-3x8x8.pt"
    whole = kept.read_bytes()
    broken = {"empty": b"", "half": whole[: len(whole) // 2], "text": b"<!DOCTYPE html>"}
    if how == "a byte":
        # in the middle of the pixels, which no reader of torch's looks at
        place = whole.index((before[0] * 255).round().to(torch.uint8).numpy().tobytes()) + 5
        kept.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    elif how.startswith("another"):
        torch.save({"pixels": 3} if how == "another dict" else [1], kept)
    else:
        kept.write_bytes(broken[how])
    assert torch.equal(images_of(root), before)
    assert torch.load(kept)["pixels"].shape == (8, *SHAPE)
    assert sorted(os.listdir(root / HIDDEN)) == ["test-3x8x8.pt", "train-3x8x8.pt"]


def test_what_is_held_in_memory_is_what_each_batch_would_read(root, monkeypatch):
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 301
    for split, number in (("train", 1), ("test", 3)):
        Image.fromarray(deep).save(root / split / "bee" / f"{number}.png")
    held = load(root)
    assert isinstance(held._splits["train"], InMemory)
    assert held._splits["train"].pixels.dtype == torch.float32  # levels between those of bytes are kept
    again = load(root)
    monkeypatch.setattr(decoded_folder, "_SHARE", 0.0)
    read = load(root)
    assert isinstance(read._splits["train"], OnDisk)
    for name in ("train", "validation", "test"):
        assert torch.equal(held.split(name)[0], read.split(name)[0])
        assert torch.equal(again.split(name)[0], read.split(name)[0])
        assert torch.equal(held.split(name)[1], read.split(name)[1])


def images_of_of_eight_bits_are_bytes_and_a_folder_that_moves_keeps_them(root):
    before = load(root)
    assert before._splits["train"].pixels.dtype == torch.uint8
    moved = root.with_name("elsewhere")
    root.rename(moved)
    path = moved / "test" / "ant" / "0.bmp"
    in_place(path, lambda: picture(path, 99))
    assert torch.equal(images_of(moved), before.split("test")[0])


def test_where_ours_cannot_be_written_nothing_is_kept(root):
    (root / HIDDEN).write_text("in the way")
    assert torch.equal(images_of(root), images_of(root))
    assert (root / HIDDEN).read_text() == "in the way"


def _digest(root):
    return float(images_of(root).double().sum())


def test_several_processes_at_once_each_leave_a_whole_file(root):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        found = pool.map(_digest, [root] * 8, chunksize=1)
    assert len(set(found)) == 1
    assert found[0] == _digest(root)
    assert sorted(os.listdir(root / HIDDEN)) == ["test-3x8x8.pt", "train-3x8x8.pt"]


@pytest.mark.parametrize(("limit", "fits"), [("400\n", True), ("399\n", False), ("max\n", True), ("", True)])
def test_a_containers_limit_counts(limit, fits, tmp_path, monkeypatch):
    limits = [tmp_path / "memory.max", tmp_path / "no such file"]
    limits[0].write_text(limit)
    monkeypatch.setattr(decoded_folder, "_LIMITS", limits)
    assert decoded_folder.fits_in_memory(10, (1, 2, 5)) is fits  # 100 bytes, a quarter of 400
