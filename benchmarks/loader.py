"""What giving images costs beside training on them: epochs of ResNet-20 on a folder of images, on a GPU if there is one."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from harness import Table, milliseconds, race, ratio
from lightning.pytorch import Trainer
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from lightning_sparse.data import ImageData
from lightning_sparse.models import resnet20

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
IMAGES = 128 * (90 if GPU else 9)  # to train on; a tenth as many more for validation


def now() -> float:
    """Wall time on a GPU, whose host waits; CPU time of one thread otherwise."""
    if not GPU:
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def folder(root: Path) -> None:
    """Images in ten classes, as JPEG files."""
    rng = np.random.default_rng(0)
    for split, count in (("train", IMAGES * 10 // 9), ("test", 100)):
        for number in range(count):
            path = root / split / str(number % 10) / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)


def main(root: Path) -> None:
    folder(root)
    data = ImageData("folder", root=root, shape=(3, 32, 32), classes=10, mean=[0.5], std=[0.25])
    data.setup()
    in_memory = data.train_dataloader()
    data.trainer = Trainer(accelerator="auto", devices=1, logger=False, enable_checkpointing=False)
    on_the_gpu = data.train_dataloader()
    to_float = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    usual = Subset(ImageFolder(str(root / "train"), to_float), range(IMAGES))
    net = resnet20(data.shape, 10).to(DEVICE)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-6, momentum=0.9)

    def epoch(batches: Iterable[Sequence[torch.Tensor]]):
        def run() -> None:
            for batch in batches:
                images, labels = (part.to(DEVICE, non_blocking=True) for part in batch)
                optimizer.zero_grad()
                F.cross_entropy(net(images), labels).backward()
                optimizer.step()

        return lambda: run

    there = [[part.to(DEVICE) for part in batch] for batch in in_memory]
    variants = {
        "network": epoch(there),
        "network again": epoch(there),
        "bytes": epoch(in_memory),
        "files": epoch(DataLoader(usual, batch_size=128, shuffle=True)),
    }
    if GPU:
        variants["on the GPU"] = epoch(on_the_gpu)
    times = race(variants, rounds=5, clock=now)
    table = Table(
        f"An epoch of ResNet-20 on {IMAGES} images of 3x32x32, {'a GPU' if GPU else 'one thread'}: ratio to batches that "
        f"are there already ({milliseconds(times, 'network') / (IMAGES // 128):.3g} ms a step)",
        ratio(times, "network again", "network"),
    )
    table.add("bytes in memory, decoded once", ratio(times, "bytes", "network"), None if GPU else 1.05)
    if GPU:
        table.add("bytes on the GPU", ratio(times, "on the GPU", "network"), 1.05)
    table.add("torchvision's ImageFolder, decoded for each batch", ratio(times, "files", "network"))
    table.show()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        main(Path(made))
