"""How few bytes a trained sparse network takes in a packed file, beside torch.save and what general compressors make of it.

LeNet-300-100 on MNIST where its files are (LIGHTNING_SPARSE_DATA, or ../shared/data), else on the digits that ship with
scikit-learn; ResNet-20 on those digits.
"""

from __future__ import annotations

import copy
import io
import lzma
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from harness import Table
from lightning.pytorch import Trainer, seed_everything
from robustness import load
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_sparse import GradualPruning, Masks
from lightning_sparse.compress.code_lengths import mask_bits
from lightning_sparse.export import load_packed, save_packed
from lightning_sparse.export.packed_file import read_packed
from lightning_sparse.measure import storage_formats
from lightning_sparse.models import Classifier, lenet_300_100, resnet20

Make = Callable[[Sequence[int], int], nn.Module]
BOUNDS = {(0.9, "bfloat16"): 0.11, (0.95, "bfloat16"): 0.06}  # of dense float32


def pruned(make: Make, x: torch.Tensor, y: torch.Tensor, sparsity: float, epochs: int) -> tuple[nn.Module, Masks]:
    """A network trained while it is pruned, and its masks."""
    seed_everything(0, verbose=False)
    model, pruning = Classifier(make(x.shape[1:], 10), mean=[0.2], std=[0.3]), GradualPruning(sparsity)
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[pruning],
    )
    trainer.fit(model, DataLoader(TensorDataset(x, y), batch_size=128, shuffle=True))
    return model.eval(), pruning.masks


def accuracy(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    with torch.no_grad():
        return (model(x).argmax(1) == y).float().mean().item()


def compare(
    title: str, model: nn.Module, masks: Masks, sparsity: float, test: tuple[torch.Tensor, torch.Tensor]
) -> None:
    table = Table(f"Packed file, {title}, sparsity {sparsity:g}: share of dense float32")
    saved = io.BytesIO()
    torch.save(model.state_dict(), saved)
    before = accuracy(model, *test)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.packed"
        for values in ("float32", "bfloat16", "int8", "int4"):
            save_packed(model, masks, path, values=values)
            packed, again = read_packed(path), copy.deepcopy(model)
            dense = packed.dense_bytes(4)
            start = time.process_time()
            load_packed(path, again)
            took, after = time.process_time() - start, accuracy(again, *test)
            what = f"{values}; accuracy {after:.4f}, before {before:.4f}; loaded in {1e3 * took:.0f} ms"
            table.add(what, packed.bytes / dense, BOUNDS.get((sparsity, values)), digits=4)
    coded = sum(len(part.mask) for part in packed.parts)
    table.add("`torch.save`", saved.tell() / dense, digits=4)
    table.add("`torch.save` through lzma", len(lzma.compress(saved.getvalue())) / dense, digits=4)
    entropy = next(row.value for row in storage_formats(model, masks).records if row.metric == "cost_bytes_entropy")
    table.add("lzma for masks and zlib for float32 (`cost_bytes_entropy`)", entropy / dense, digits=4)
    bits = sum(mask_bits(mask.numel(), int(mask.sum())) for mask in masks.values())
    table.add("masks alone: ratio to log2 C(N, k)", 8 * coded / bits)
    table.show()


if __name__ == "__main__":
    name, x, y, tx, ty, *_ = load()
    digits = load_digits()
    small = torch.tensor(digits.images / 16).float()[:, None], torch.tensor(digits.target)
    for sparsity in (0.8, 0.9, 0.95, 0.98):
        model, masks = pruned(lenet_300_100, x, y, sparsity, epochs=5 if name == "MNIST" else 60)
        compare(f"LeNet-300-100 on {name}", model, masks, sparsity, (tx[:5000], ty[:5000]))
    for sparsity in (0.9, 0.95):
        model, masks = pruned(resnet20, small[0][:1200], small[1][:1200], sparsity, epochs=6)
        compare("ResNet-20 on digits", model, masks, sparsity, (small[0][1200:], small[1][1200:]))
