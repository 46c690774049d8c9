"""Broken files of MNIST and CIFAR are refused by name before anything trains on them."""

import hashlib
import pickle
import socket
import struct

import numpy as np
import pytest

from lightning_sparse import SparsityError
from lightning_sparse.data import ImageData

MNIST = {"shape": (1, 28, 28), "classes": 10, "mean": [0.13], "std": [0.31]}
CIFAR = {"shape": (3, 32, 32), "classes": 10, "mean": [0.5], "std": [0.25]}


def idx(path, array):
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for prefix, n in (("train", 200), ("t10k", 50)):
        idx(folder / f"{prefix}-images-idx3-ubyte", np.random.default_rng(n).integers(0, 256, (n, 28, 28)))
        idx(folder / f"{prefix}-labels-idx1-ubyte", np.arange(n) % 10)
    return folder


def refused(root, message, name="mnist", **changes):
    with pytest.raises(SparsityError, match=message):
        ImageData(name, root=root, **{**(MNIST if name == "mnist" else CIFAR), **changes}).setup()


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("how", ["html", "empty", "half", "longer", "magic"])
def test_a_broken_idx_file_is_named(name, how, raw):
    whole = (raw / name).read_bytes()
    broken = {
        "html": b"<!DOCTYPE html>",
        "empty": b"",
        "half": whole[:30],
        "longer": whole + b"x",
        "magic": b"\0\0\r" + whole[3:],
    }
    (raw / name).write_bytes(broken[how])
    what = "images" if "images" in name else "labels"
    refused(
        raw.parents[1],
        rf"{name}' is no whole IDX file of {what} \(\d+ bytes that start with .*\): remove it, and write",
    )
    (raw / name).write_bytes(whole)
    ImageData("mnist", root=raw.parents[1], **MNIST).setup()


def test_a_missing_file_a_folder_in_its_place_and_a_packed_one_are_named(raw):
    path = raw / "t10k-labels-idx1-ubyte"
    path.rename(raw / "t10k-labels-idx1-ubyte.gz")
    refused(raw.parents[1], r"t10k-labels-idx1-ubyte' does not exist: unpack t10k-labels-idx1-ubyte\.gz")
    path.mkdir()
    refused(raw.parents[1], "t10k-labels-idx1-ubyte' is a folder")


@pytest.mark.parametrize("n", [150, 250])
def test_as_many_labels_as_images_are_needed(n, raw):
    idx(raw / "train-labels-idx1-ubyte", np.arange(n) % 10)
    refused(raw.parents[1], f"train-labels-idx1-ubyte in .* hold 200 images and {n} labels")


def test_labels_have_no_gaps_and_are_the_same_in_both_splits(raw):
    labels = np.arange(200) % 10
    idx(raw / "t10k-labels-idx1-ubyte", np.arange(50) % 9)
    refused(raw.parents[1], "only one of them has 9; give both the same classes")
    idx(raw / "train-labels-idx1-ubyte", np.where(labels == 4, 255, labels))
    refused(raw.parents[1], "training labels of mnist in .* go from 0 to 255, but none is 4")
    idx(raw / "train-labels-idx1-ubyte", labels % 9)
    refused(raw.parents[1], "training images of 9 classes, not classes=10: write classes=9")
    ImageData("mnist", root=raw.parents[1], **{**MNIST, "classes": 9}).setup()


def test_images_of_one_value_are_refused(raw):
    idx(raw / "t10k-images-idx3-ubyte", np.zeros((50, 28, 28)))
    refused(raw.parents[1], "all 50 images of the test split of mnist in .* are of one colour, 0 in")


def test_images_of_another_size_say_the_shape_to_write(raw):
    for prefix, n in (("train", 200), ("t10k", 50)):
        idx(raw / f"{prefix}-images-idx3-ubyte", np.random.default_rng(n).integers(0, 256, (n, 32, 32)))
    refused(raw.parents[1], r"write shape=\[1,32,32\], or in a command data\.shape=\[1,32,32\]")
    ImageData("mnist", root=raw.parents[1], **{**MNIST, "shape": [1, 32, 32]}).setup()


def test_cifar_files_that_differ_from_the_published_ones_are_named(tmp_path, monkeypatch):
    from torchvision import datasets

    base = tmp_path / "cifar-10-batches-py"
    base.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (100, 3072), dtype=np.uint8)
    batch = {"data": pixels, "labels": (np.arange(100) % 10).tolist()}
    fewer = {"data": pixels, "labels": batch["labels"][:90]}

    def write(name, content):
        (base / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((base / name).read_bytes()).hexdigest()]

    monkeypatch.setattr(datasets.CIFAR10, "test_list", [write("test_batch", batch)])
    name, checksum = write("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(datasets.CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": checksum})
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [write("data_batch_1", fewer)])
    refused(tmp_path, "hold 100 images and 90 labels", "cifar10")
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [write("data_batch_1", batch)])
    ImageData("cifar10", root=tmp_path, **CIFAR).setup()
    (base / "test_batch").write_bytes(b"<!DOCTYPE html>")
    refused(tmp_path, r"test_batch' is not the published file, by its checksum \(15 bytes that start with", "cifar10")
    (base / "test_batch").unlink()
    refused(tmp_path, "test_batch' does not exist: write data.root=", "cifar10")


@pytest.mark.parametrize("name", ["mnist", "cifar10", "svhn"])
def test_a_download_without_a_network_says_so(name, tmp_path, monkeypatch):
    def offline(*_, **__):
        raise socket.gaierror("no network")

    monkeypatch.setattr(socket, "getaddrinfo", offline)  # the tests never reach for a network
    refused(
        tmp_path,
        "does not exist, and could not be fetched .*no network.*look at the network, or copy",
        name,
        download=True,
    )
    assert socket.getdefaulttimeout() is None
