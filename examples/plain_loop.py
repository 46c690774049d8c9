"""A plain torch loop, no Lightning: one line before the loop makes the network sparse while it trains.

python examples/plain_loop.py
"""

from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from lightning_sparse import Recipe, attach, cubic

steps = 600
batch_size = 64
learning_rate = 3e-3
sparsity = 0.9
out = Path("outputs/plain_loop.pt")

torch.manual_seed(1337)
digits = load_digits()
images, labels = torch.tensor(digits.images / 16).float().flatten(1), torch.tensor(digits.target)
order = torch.randperm(len(images))
train, test = order[:1437], order[1437:]

model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)

# The one line. GradualPruning(sparsity) or BrainDevelopment(sparsity) would work too, but they import Lightning.
# To resume from a checkpoint, load model and optimizer and add state=checkpoint["sparsity"].
engine = attach(optimizer, model, Recipe(cubic(sparsity, end=0.75)), total_steps=steps)

for step in range(steps):
    batch = train[torch.randint(len(train), (batch_size,))]
    loss = cross_entropy(model(images[batch]), labels[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 100 == 99:
        print(f"step {step + 1}: loss {loss.item():.3f}, sparsity {engine.sparsity:.3f}")

accuracy = (model(images[test]).argmax(1) == labels[test]).float().mean().item()
weights = [layer.weight for layer in model if isinstance(layer, nn.Linear)]
zeros, total = sum(int((weight == 0).sum()) for weight in weights), sum(weight.numel() for weight in weights)

out.parent.mkdir(parents=True, exist_ok=True)
state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "sparsity": engine.state_dict()}
torch.save(state, out)

print(f"test accuracy: {accuracy:.3f}")
print(f"sparsity: {zeros} of {total} weights are zero ({zeros / total:.4f})")
print(f"results: {out}")
