"""What sparse linear layers gain on a CPU, beside dense ones in every other form: torch, bf16, ONNX Runtime, int8."""

from __future__ import annotations

import copy
import os
import tempfile
from pathlib import Path

import torch
from harness import Times, milliseconds, race, ratio
from torch import nn
from torch.nn import functional as F

from lightning_sparse import Curve, Recipe, attach
from lightning_sparse.data import ImageData
from lightning_sparse.export import sparsify, to_onnx
from lightning_sparse.export.onnx import run_of
from lightning_sparse.models import lenet_300_100

DATA = Path(os.environ.get("LIGHTNING_SPARSE_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))
LEVELS = (0.8, 0.9, 0.95, 0.98, 0.99)
STEPS = 150  # of training at each sparsity
# How many times as fast as dense ours has to be: batch 128, by sparsity.
PROMISED = {"784-1024-1024-10": {0.9: 1.6, 0.95: 2.7, 0.99: 5.0}}


def wide() -> nn.Sequential:
    """784-1024-1024-10: 1.86 M weights."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10)
    )


NETWORKS = {"LeNet-300-100": lambda: lenet_300_100((1, 28, 28), 10), "784-1024-1024-10": wide}


def mnist() -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """Images and labels to train and to test on."""
    data = ImageData("mnist", root=str(DATA), shape=(1, 28, 28), classes=10, mean=[0.1307], std=[0.3081])
    return data.split("train"), data.split("test")


def pruned(net: nn.Module, images: torch.Tensor, labels: torch.Tensor):
    """Train, and yield a copy at each sparsity: by magnitude, over all layers, trained on after each cut."""
    for sparsity in (0.0, *LEVELS):
        optimizer = torch.optim.Adam(net.parameters(), 1e-3)
        handle = attach(optimizer, net, Recipe(Curve(sparsity), birth="magnitude")) if sparsity else None
        for _ in range(STEPS if sparsity else 3 * STEPS):
            rows = torch.randint(len(images), (128,))
            optimizer.zero_grad()
            F.cross_entropy(net(images[rows]), labels[rows]).backward()
            optimizer.step()
        if handle is not None:
            handle.detach()
            yield sparsity, copy.deepcopy(net).eval()


class Chain(nn.Module):
    """What one would write by hand: torch's CSR matrices, activations in columns from the first layer to the last."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.layers = [
            (layer.weight.detach().to_sparse_csr(), layer.bias.detach().unsqueeze(1))
            for layer in net.modules()
            if isinstance(layer, nn.Linear)
        ]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images to logits."""
        x = x.flatten(1).t()
        for weight, bias in self.layers:
            x = torch.addmm(bias, weight, x if weight is self.layers[0][0] else x.relu_())
        return x.t()


def timed(net: nn.Module, images: torch.Tensor, batch: int, folder: Path) -> tuple[Times, str]:
    """Time every form of a network on a batch, and say what ours has chosen for each layer."""
    x = images[:batch]
    ours = sparsify(net, x)
    eighth = to_onnx(net, images[:256], folder / "int8.onnx", int8=images[:512])
    to_onnx(net, images[:256], folder / "plain.onnx")
    half = copy.deepcopy(net).bfloat16()
    forms = {
        "dense": net,
        "again": copy.deepcopy(net),
        "ours": ours.model,
        "CSR chain": Chain(net),
        "torch bf16": lambda x: half(x.bfloat16()).float(),
        "ORT": run_of(folder / "plain.onnx"),
        "ORT int8": run_of(eighth.path),
    }
    with torch.inference_mode():
        repeat = 4 if batch > 1 else 40
        times = race({name: lambda form=form: lambda: form(x) for name, form in forms.items()}, 31, repeat)
    return times, "".join(layer.form[0] for layer in ours.layers)


def capabilities() -> str:
    """What the CPU has for dense networks of few bits, which decides what sparse ones have to beat."""
    flags = set(Path("/proc/cpuinfo").read_text().split())
    has = [name for name in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8") if name in flags]
    return f"torch computes with {torch.backends.cpu.get_cpu_capability()}; the CPU has {', '.join(has)}"


COLUMNS = ("ours", "CSR chain", "torch bf16", "ORT", "ORT int8")


def main() -> None:
    (images, labels), (test_images, test_labels) = mnist()
    print(
        f"### Times as fast as dense torch in float32, one thread, trained and pruned on MNIST\n\n{capabilities()}.\n"
    )
    for name, make in NETWORKS.items():
        torch.manual_seed(0)
        head = ("sparsity", "accuracy", "batch", "dense ms", "again", *COLUMNS, "layers", "promise", "verdict")
        print(f"#### {name}\n\n| {' | '.join(head)} |\n{'|---' * len(head)}|")
        for sparsity, net in pruned(make(), images, labels):
            with torch.no_grad():
                right = (net(test_images).argmax(1) == test_labels).float().mean().item()
            for batch in (1, 128):
                with tempfile.TemporaryDirectory() as folder:
                    times, layers = timed(net, test_images, batch, Path(folder))
                fast = {form: 1 / ratio(times, form, "dense") for form in times}
                least = PROMISED.get(name, {}).get(sparsity, 0.97) if batch > 1 else 0.97
                verdict = "holds" if fast["ours"] >= least else "**missed**"
                if set(layers) == {"d"}:
                    verdict = "is dense"
                elif not 0.97 <= fast["again"] <= 1.03:
                    verdict = "does not count"
                cells = [f"{sparsity:g}", f"{right:.4f}", str(batch), f"{milliseconds(times, 'dense'):.3f}"]
                cells += [f"{fast[form]:.2f}" for form in ("again", *COLUMNS)] + [layers, f"≥ {least:g}", verdict]
                print(f"| {' | '.join(cells)} |", flush=True)
        print()
    print(
        "Layers: c is in compressed sparse rows, s shrunk, d dense. ORT is ONNX Runtime. Accuracy: one seed, a short "
        "training.\n"
    )


if __name__ == "__main__":
    if (DATA / "MNIST" / "raw").exists():
        main()
    else:
        print("### Sparse linear layers\n\nSkipped: the files of MNIST are not here.\n")
