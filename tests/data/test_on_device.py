"""Data held on a device give there, bit for bit, the batches that they give on a CPU."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from lightning_sparse.data import ImageData, TextData
from lightning_sparse.data.datasets import InMemory, OnDisk
from lightning_sparse.data.on_device import fits_on, on_device

DIGITS = {"shape": (1, 8, 8), "classes": 10, "mean": [0.3], "std": [0.4]}
DATA = {
    "images": lambda: ImageData("digits", **DIGITS),
    "permuted, with noise": lambda: ImageData("digits", **DIGITS, permute_pixels=True, label_noise=0.5),
    "texts": lambda: TextData(classes=10, texts=100),
}


@pytest.fixture(params=list(DATA))
def data(request):
    found = DATA[request.param]()
    found.setup()
    return found


def batches(data, epoch=0):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def test_every_tensor_that_a_batch_needs_goes_along(data):
    """On torch's device without memory nothing can be read, so whatever came from elsewhere would be an error or seen."""
    meta = torch.device("meta")
    for there in on_device(data.train_dataloader().dataset, meta)[[5, 0, 7]]:
        assert there.device == meta
        assert len(there) == 3


def test_a_copy_gives_the_same_batches(data):
    held = data.train_dataloader().dataset
    for one, other in zip(held[[5, 0, 7]], on_device(held, torch.device("cpu"))[[5, 0, 7]], strict=True):
        assert torch.equal(one, other)


def test_without_a_gpu_nothing_is_copied(data):
    held = data.train_dataloader().dataset
    data.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    assert data.train_dataloader().dataset is held
    assert not fits_on(held, torch.device("cpu"))


def test_bytes_become_the_floats_that_division_gives():
    every = InMemory(torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1), torch.zeros(256), 255.0)
    exact = np.arange(256, dtype=np.float32) / np.float32(255.0)
    assert np.array_equal(every[range(256)][0].flatten().numpy(), exact)


def test_images_in_files_stay_there():
    files = OnDisk(["a.png"], torch.tensor([0]), lambda path: torch.zeros(1, 8, 8))
    assert on_device(files, torch.device("meta")) is files


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_holds_them_and_gives_the_same_batches(data):
    here = batches(data, epoch=1)
    data.trainer = Trainer(accelerator="gpu", devices=1, logger=False, enable_checkpointing=False)
    there = batches(data, epoch=1)
    for one, other in zip(here, there, strict=True):
        for cpu, gpu in zip(one, other, strict=True):
            assert gpu.is_cuda
            assert torch.equal(cpu, gpu.cpu())
    data.teardown("fit")
    assert data.train_dataloader().dataset is data.train_dataloader().dataset
    assert data.split("train", 20)[0].device.type == "cpu"
