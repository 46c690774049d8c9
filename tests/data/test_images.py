"""The real loaders, on files in their own layouts: in [0, 1], split without overlap, the same every time."""

import hashlib
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_sparse import SparsityError
from lightning_sparse.data.images import ImageData

DIGITS = {"shape": (1, 8, 8), "classes": 10, "mean": [0.3], "std": [0.4]}
MNIST = {"shape": (1, 28, 28), "classes": 10, "mean": [0.1307], "std": [0.3081]}
CIFAR = {"shape": (3, 32, 32), "classes": 10, "mean": [0.5] * 3, "std": [0.25] * 3}


def rows(images):
    return {image.numpy().tobytes() for image in images}


def test_digits_splits_are_disjoint_complete_stratified_and_fixed_by_seed():
    from sklearn.datasets import load_digits

    data = ImageData("digits", **DIGITS)
    splits = {name: data.split(name) for name in ("train", "validation", "test")}
    sizes = {name: len(labels) for name, (_, labels) in splits.items()}
    assert sizes == {"train": 1293, "validation": 144, "test": 360}
    seen = [rows(images) for images, _ in splits.values()]
    assert len(seen[0] | seen[1] | seen[2]) == len(rows(torch.tensor(load_digits().images).float() / 16))
    assert sum(map(len, seen)) == len(seen[0] | seen[1] | seen[2])
    for images, labels in splits.values():
        assert images.shape[1:] == (1, 8, 8)
        assert images.dtype == torch.float32
        assert (float(images.min()), float(images.max())) == (0.0, 1.0)
        assert labels.bincount().float().div(len(labels)).sub(0.1).abs().max() < 0.01
    again = ImageData("digits", **DIGITS, shuffle_seed=9)
    assert torch.equal(again.split("test")[0], splits["test"][0])
    other = ImageData("digits", **DIGITS, split_seed=1)
    assert not torch.equal(other.split("test")[0], splits["test"][0])


def test_a_sample_of_a_split_is_stratified_and_the_same_for_everyone():
    images, labels = ImageData("digits", **DIGITS).split("test", most=50)
    assert labels.bincount().tolist() == [5] * 10
    assert torch.equal(images, ImageData("digits", **DIGITS, shuffle_seed=3).split("test", most=50)[0])


def test_the_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        data = ImageData("digits", **DIGITS, shuffle_seed=seed)
        data.setup()
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        return torch.cat([labels for _, labels in loader])

    assert torch.equal(order(0, 3), order(0, 3))
    assert not torch.equal(order(0, 3), order(0, 4))
    assert not torch.equal(order(0, 3), order(1, 3))


def idx(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_torchvisions_mnist_layout(name, folder, tmp_path):
    rng = np.random.default_rng(0)
    for prefix, n in (("train", 200), ("t10k", 50)):
        pixels, labels = rng.integers(0, 256, (n, 28, 28)), np.arange(n) % 10
        idx(tmp_path / folder / "raw" / f"{prefix}-images-idx3-ubyte", pixels)
        idx(tmp_path / folder / "raw" / f"{prefix}-labels-idx1-ubyte", labels)
    data = ImageData(name, **MNIST, root=tmp_path)
    images, classes = data.split("test")
    assert torch.equal(images[:, 0], torch.tensor(pixels).float() / 255)
    assert torch.equal(classes, torch.tensor(labels))
    assert len(data.split("train")[1]) == 180


def test_torchvisions_cifar_layout(tmp_path, monkeypatch):
    from torchvision import datasets

    rng = np.random.default_rng(0)
    base = tmp_path / "cifar-10-batches-py"
    base.mkdir()

    def write(name, content):
        (base / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((base / name).read_bytes()).hexdigest()]

    train = {"data": rng.integers(0, 256, (100, 3072), dtype=np.uint8), "labels": (np.arange(100) % 10).tolist()}
    # torchvision knows the published files by their checksums: here it is told those of these small ones.
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [write("data_batch_1", train)])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [write("test_batch", train)])
    name, checksum = write("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(datasets.CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": checksum})
    images, _ = ImageData("cifar10", **CIFAR, root=tmp_path).split("test")
    assert torch.equal(images, torch.tensor(train["data"]).view(100, 3, 32, 32).float() / 255)


def test_torchvisions_cifar100_layout_gives_fine_labels(tmp_path, monkeypatch):
    from torchvision import datasets

    base, rng, fine = tmp_path / "cifar-100-python", np.random.default_rng(0), np.arange(1000) % 100
    base.mkdir()

    def write(name, content):
        (base / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((base / name).read_bytes()).hexdigest()]

    pixels = rng.integers(0, 256, (1000, 3072), dtype=np.uint8)
    content = {"data": pixels, "fine_labels": fine.tolist(), "coarse_labels": (fine // 5).tolist()}
    monkeypatch.setattr(datasets.CIFAR100, "train_list", [write("train", content)])
    monkeypatch.setattr(datasets.CIFAR100, "test_list", [write("test", content)])
    name, checksum = write("meta", {"fine_label_names": [str(number) for number in range(100)]})
    monkeypatch.setattr(datasets.CIFAR100, "meta", {"filename": name, "key": "fine_label_names", "md5": checksum})
    data = ImageData("cifar100", **{**CIFAR, "classes": 100}, root=tmp_path)
    images, labels = data.split("test")
    assert torch.equal(images, torch.tensor(pixels).view(1000, 3, 32, 32).float() / 255)
    assert labels.tolist() == fine.tolist()
    assert len(data.split("train")[1]) == 900


def svhn(folder, monkeypatch, labels):
    """Two small files of SVHN's form: X (32, 32, 3, n) and y (n, 1), in which 10 is the digit 0."""
    from scipy.io import savemat
    from torchvision import datasets

    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, len(labels)), dtype=np.uint8)
    known = {}
    for split in ("train", "test"):
        path = folder / f"{split}_32x32.mat"
        savemat(path, {"X": pixels, "y": labels.astype(np.uint8).reshape(-1, 1)})
        known[split] = ["", path.name, hashlib.md5(path.read_bytes()).hexdigest()]
    monkeypatch.setattr(datasets.SVHN, "split_list", known)
    return pixels


def test_svhns_layout(tmp_path, monkeypatch):
    pixels = svhn(tmp_path, monkeypatch, np.arange(200) % 10 + 1)
    data = ImageData("svhn", **CIFAR, root=tmp_path)
    images, labels = data.split("test")
    assert images.is_contiguous()
    for number in (0, 9, 33):
        assert torch.equal(images[number], torch.tensor(pixels[..., number]).permute(2, 0, 1).float() / 255)
    assert labels.tolist() == [(number % 10 + 1) % 10 for number in range(200)]
    assert labels.dtype == torch.int64
    (tmp_path / "test_32x32.mat").write_bytes(b"<!DOCTYPE html>")
    with pytest.raises(SparsityError, match=r"test_32x32\.mat' is not the published file, by its checksum \(15 bytes"):
        ImageData("svhn", **CIFAR, root=tmp_path).setup()
    (tmp_path / "train_32x32.mat").unlink()
    with pytest.raises(SparsityError, match=r"train_32x32\.mat' does not exist: write data\.root="):
        ImageData("svhn", **CIFAR, root=tmp_path).setup()


def test_an_image_folder_is_resized_and_read_when_asked_for(tmp_path):
    rng = np.random.default_rng(0)
    for split, n in (("train", 20), ("test", 6)):
        for name in ("ant", "bee"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(n):
                picture = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(picture).save(tmp_path / split / name / f"{i}.png")
    for shape, mean in (((3, 32, 32), [0.5] * 3), ((1, 16, 16), [0.5])):
        data = ImageData(
            "folder", root=tmp_path, shape=shape, classes=2, mean=mean, std=mean, validation=0.2, batch_size=8
        )
        data.setup()
        images, _ = next(iter(data.train_dataloader()))
        assert images.shape == (8, *shape)
        assert 0.0 <= float(images.min()) < float(images.max()) <= 1.0
        assert {len(data.split(name)[1]) for name in ("train", "validation", "test")} == {32, 8, 12}
        assert data.split("test")[1].tolist() == [0] * 6 + [1] * 6


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("mnst", DIGITS, "did you mean 'mnist'"),
        ("mnist", {**MNIST, "root": "/no/such/folder"}, r"root='/no/such/folder' does not exist: write data\.root="),
        ("mnist", MNIST, "does not exist"),
        ("digits", {**DIGITS, "validation": 1.0}, "leaves an empty split"),
        ("digits", {**DIGITS, "validation": 7}, "write 0.07 for 7 percent"),
    ],
)
def test_bad_arguments_are_refused_at_once(name, arguments, message):
    with pytest.raises(SparsityError, match=message):
        ImageData(name, **arguments)


def test_a_folder_without_the_files_and_data_of_another_shape_are_refused(tmp_path):
    with pytest.raises(SparsityError, match="holds no mnist"):
        ImageData("mnist", **MNIST, root=tmp_path).setup()
    with pytest.raises(SparsityError, match=r"root/train/<class>/"):
        ImageData("folder", **CIFAR, root=tmp_path).setup()
    with pytest.raises(SparsityError, match=r"shape \(1, 8, 8\), not shape=\(1, 28, 28\): write shape=\[1,8,8\]"):
        ImageData("digits", **MNIST).setup()


def test_a_test_folder_with_other_classes_is_refused(tmp_path):
    for split, names in (("train", "abc"), ("test", "ac")):
        for name in names:
            (tmp_path / split / name).mkdir(parents=True)
            Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(tmp_path / split / name / "0.png")
    with pytest.raises(SparsityError, match="test' has no class folder b, as train has"):
        ImageData("folder", **{**CIFAR, "classes": 3}, root=tmp_path).setup()


@pytest.mark.mnist
def test_the_real_mnist():
    root = Path(os.environ.get("LIGHTNING_SPARSE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    data = ImageData("mnist", **MNIST, root=root)
    images, labels = data.split("test")
    assert images.shape == (10000, 1, 28, 28)
    assert labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    train, _ = data.split("train")
    assert len(train) == 54000
    assert float(train.mean()) == pytest.approx(0.1307, abs=1e-3)
    assert float(train.std()) == pytest.approx(0.3081, abs=1e-3)
