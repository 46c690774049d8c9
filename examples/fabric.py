"""Lightning Fabric: a loop of your own, with its accelerators and precision, and one line that makes it sparse.

python examples/fabric.py
"""

from pathlib import Path

import torch
from lightning.fabric import Fabric
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset, random_split

from lightning_sparse import GradualPruning, attach

epochs = 20
sparsity = 0.9
out = Path("outputs/fabric.ckpt")

fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
fabric.seed_everything(1337, verbose=False)

digits = load_digits()
images, labels = torch.tensor(digits.images / 16).float().unsqueeze(1), torch.tensor(digits.target)
train, test = random_split(TensorDataset(images, labels), [1437, 360])
train_batches, test_batches = fabric.setup_dataloaders(
    DataLoader(train, batch_size=64, shuffle=True, drop_last=True), DataLoader(test, batch_size=360)
)

network = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1),
    nn.BatchNorm2d(16),
    nn.ReLU(),
    nn.Conv2d(16, 16, 3, stride=2, padding=1),
    nn.ReLU(),
    nn.Flatten(),
    nn.Linear(256, 10),
)
model, optimizer = fabric.setup(network, torch.optim.AdamW(network.parameters(), lr=3e-3))

# The one line. It takes the network itself, not Fabric's wrapper, so that masks have the names of its state_dict.
engine = attach(optimizer, network, GradualPruning(sparsity), total_steps=epochs * len(train_batches))

for epoch in range(epochs):
    for x, y in train_batches:
        loss = cross_entropy(model(x), y)
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()
    if epoch % 4 == 3:
        fabric.print(f"epoch {epoch + 1}: loss {loss.item():.3f}, sparsity {engine.sparsity:.3f}")

model.eval()
with torch.no_grad():
    x, y = next(iter(test_batches))
    accuracy = (model(x).argmax(1) == y).float().mean().item()
weights = [layer.weight for layer in network if isinstance(layer, nn.Conv2d | nn.Linear)]
zeros, total = sum(int((weight == 0).sum()) for weight in weights), sum(weight.numel() for weight in weights)

fabric.save(out, {"model": model, "optimizer": optimizer, "sparsity": engine.state_dict()})

fabric.print(f"test accuracy: {accuracy:.3f}")
fabric.print(f"sparsity: {zeros} of {total} weights are zero ({zeros / total:.4f})")
fabric.print(f"results: {out}")
