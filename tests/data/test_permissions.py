"""Files and folders that may not be read are named, and are read once their permissions are changed."""

import os
import re
import shutil
import struct
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_sparse import SparsityError
from lightning_sparse.data import ImageData
from lightning_sparse.data.decoded_folder import HIDDEN

NOBODY = 65534
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)


@contextmanager
def forbidden(path):
    """Take all permissions from a path, and those of the superuser, who may read everything, from this process."""
    mode, user = path.stat().st_mode, os.geteuid()
    path.chmod(0)
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if user == 0:
            os.seteuid(user)
        path.chmod(mode)


@pytest.fixture
def place():
    with tempfile.TemporaryDirectory() as made:  # tmp_path lies in a folder of one user's own
        Path(made).chmod(0o755)
        yield Path(made)


def pictures(root):
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            (root / split / name).mkdir(parents=True)
            for i in range(4):
                Image.fromarray(PIXELS[i]).save(root / split / name / f"{i}.png")
    return lambda: ImageData(
        "folder", root=root, shape=(1, 28, 28), classes=2, mean=[0.5], std=[0.5], validation=0.5
    ).setup()


def mnist(root):
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix in ("train", "t10k"):
        for name, array in (("images-idx3", PIXELS), ("labels-idx1", np.arange(40, dtype=np.uint8) % 4)):
            header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (raw / f"{prefix}-{name}-ubyte").write_bytes(header + array.tobytes())
    return lambda: ImageData("mnist", root=root, shape=(1, 28, 28), classes=4, mean=[0.5], std=[0.5]).setup()


@pytest.mark.parametrize(
    ("data", "closed", "named"),
    [
        (pictures, ".", "train"),
        (pictures, "test", "test"),
        (pictures, "train/bee", "train/bee"),
        (pictures, "train/bee/2.png", "train/bee/2.png"),
        (mnist, ".", "MNIST/raw/train-images-idx3-ubyte"),
        (mnist, "MNIST/raw", "MNIST/raw/train-images-idx3-ubyte"),
        (mnist, "MNIST/raw/t10k-labels-idx1-ubyte", "MNIST/raw/t10k-labels-idx1-ubyte"),
    ],
)
def test_what_may_not_be_read_is_named(data, closed, named, place):
    load = data(place / "d")
    load()
    shutil.rmtree(place / "d" / HIDDEN, ignore_errors=True)  # or decoded images would be taken from there
    says = re.escape(f"d/{named}' cannot be read (Permission denied): change its permissions")
    with forbidden(place / "d" / closed), pytest.raises(SparsityError, match=says):
        load()
    load()


def test_a_root_in_a_folder_that_may_not_be_entered_is_refused_at_once(place):
    load = pictures(place / "closed" / "d")
    says = r"root='.*closed/d' cannot be read \(Permission denied\): write data\.root="
    with forbidden(place / "closed"), pytest.raises(SparsityError, match=says):
        load()
    load()


def test_images_of_a_folder_that_may_not_be_written_to_are_decoded_at_every_launch(place):
    load = pictures(place / "d")
    mode, user = (place / "d").stat().st_mode, os.geteuid()
    (place / "d").chmod(0o555)
    if user == 0:
        os.seteuid(NOBODY)
    try:
        load()
        load()
        assert sorted(os.listdir(place / "d")) == ["test", "train"]
    finally:
        if user == 0:
            os.seteuid(user)
        (place / "d").chmod(mode)
    load()
    assert (place / "d" / HIDDEN).is_dir()
