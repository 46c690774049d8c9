"""A trained transformer, pruned at once and not trained again: what each way to choose and to make up for costs.

    python benchmarks/one_shot_transformer.py

Digits of 8 x 8 pixels, each row a token, and an encoder of two layers. All of its weights are pruned (those of attention
among them), its embedding and its head are not. The tables are in docs/language.md.
"""

from __future__ import annotations

import copy

import torch
from by_seed import Found, by_seed, cell, table, write
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_sparse import OneShot, attach, sparsifiable
from lightning_sparse.anatomy.layer_inputs import as_matrix
from lightning_sparse.engine.scores.calibration import input_sums
from lightning_sparse.engine.scores.of_network import looking_at

torch.set_num_threads(1)

EPOCHS, BATCH, CALIBRATION = 15, 64, 8
ENCODER = ["encoder.*in_proj_weight", "encoder.*out_proj.weight", "encoder.*linear*.weight"]
WAYS = [
    {"criterion": "magnitude"},
    {"criterion": "magnitude", "allocation": "uniform"},
    {"criterion": "wanda"},
    {"criterion": "magnitude", "allocation": "uniform", "reconstruct": "obs"},
    {"reconstruct": "obs"},
]
DIFFERENCES = [("points", 4, 0), ("points", 4, 1), ("points", 4, 2), ("points", 0, 1)]
DIFFERENCES += [("error", 4, 1), ("error", 4, 2), ("error", 2, 1)]
CUTS = {
    "50 %": (0.5, "weights"),
    "60 %": (0.6, "weights"),
    "70 %": (0.7, "weights"),
    "2:4": (0.5, "2:4"),
}


def written(way: dict[str, str]) -> str:
    return ", ".join(f'{name}="{value}"' for name, value in way.items())


class Rows(nn.Module):
    """Reads the eight rows of a digit as eight tokens."""

    def __init__(self, width: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.embed, self.place = nn.Linear(8, width), nn.Parameter(0.1 * torch.randn(8, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.1, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Ten logits for each image."""
        return self.head(self.norm(self.encoder(self.embed(x) + self.place)).mean(1))  # type: ignore[no-any-return]


Batch = tuple[Tensor, Tensor]


def loss(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def split(seed: int) -> tuple[Batch, Batch]:
    digits = load_digits()
    images, labels = torch.tensor(digits.images / 16).float(), torch.tensor(digits.target)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    return tuple((images[part], labels[part]) for part in (order[:1300], order[1300:]))  # type: ignore[return-value]


def trained(train: Batch, model: nn.Module, epochs: int) -> nn.Module:
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.01)
    for _ in range(epochs):
        for part in torch.randperm(len(train[0])).split(BATCH):
            optimizer.zero_grad()
            loss(model.train(), (train[0][part], train[1][part])).backward()
            optimizer.step()
    return model.eval()


def pruned(model: nn.Module, train: Batch, sparsity: float, granularity: str, way: dict[str, str]) -> nn.Module:
    model = copy.deepcopy(model)
    batches = [(train[0][at : at + BATCH], train[1][at : at + BATCH]) for at in range(0, CALIBRATION * BATCH, BATCH)]
    method = OneShot(
        sparsity,
        at=0,
        granularity=granularity,
        score_batches=CALIBRATION,
        include=ENCODER,
        **way,  # type: ignore[arg-type]
    )
    attach(torch.optim.SGD(model.parameters(), 0.1), model, method, batches=batches, loss_fn=loss).detach()
    return model


def grams(model: nn.Module, test: Batch) -> dict[str, Tensor]:
    """X^T X of each weight's inputs in the dense network, on test images."""
    with looking_at(model, sparsifiable(model, ENCODER), [test], loss) as network:
        return {
            name: sums for (name, *_), sums in input_sums(network, lambda inputs: inputs.mT @ inputs, "this").items()
        }


def measured(dense: nn.Module, sparse: nn.Module, gram: dict[str, Tensor], test: Batch) -> tuple[float, float]:
    """Change of accuracy, in points, and the mean squared error of what a layer gives, in percent of its energy."""
    with torch.no_grad():
        right = [float((model(test[0]).argmax(1) == test[1]).float().mean()) for model in (dense, sparse)]
        shares = []
        for name, sums in gram.items():
            whole, left = (as_matrix(model.get_parameter(name)) for model in (dense, sparse))
            error, energy = (float(((weight @ sums) * weight).sum()) for weight in (whole - left, whole))
            shares.append(error / energy)
    return 100 * (right[1] - right[0]), 100 * sum(shares) / len(shares)


def measure(seed: int) -> Found:
    train, test = split(seed)
    torch.manual_seed(seed)
    dense = trained(train, Rows(), EPOCHS)
    gram, found = grams(dense, test), {}
    with torch.no_grad():
        found["dense"] = 100 * float((dense(test[0]).argmax(1) == test[1]).float().mean())
    for cut, (sparsity, granularity) in CUTS.items():
        for way in WAYS:
            sparse = pruned(dense, train, sparsity, granularity, way)
            key = f"{written(way)}, {cut}"
            found[f"points, {key}"], found[f"error, {key}"] = measured(dense, sparse, gram, test)
    return found


def main() -> None:
    found = by_seed("one_shot_transformer", measure)

    def shown(what: str) -> str:
        rows = [[f"`{written(way)}`", *(cell(found, f"{what}, {written(way)}, {cut}") for cut in CUTS)] for way in WAYS]
        return table(["`OneShot(..., at=0, ...)`", *CUTS], rows)

    def difference(what: str, one: int, other: int) -> list[str]:
        keys = [[f"{what}, {written(WAYS[way])}, {cut}" for way in (one, other)] for cut in CUTS]
        return [what, *(f"`{written(WAYS[way])}`" for way in (one, other)), *(cell(found, *key) for key in keys)]

    rows = [difference(*each) for each in DIFFERENCES]
    text = (
        f"Change of accuracy, in points (dense: {cell(found, 'dense')} %):\n\n{shown('points')}\n\n"
        f"Error of what a layer gives, in % of its energy:\n\n{shown('error')}\n\n"
        f"Differences within a seed:\n\n{table(['of', 'with', 'less', *CUTS], rows)}"
    )
    write("language.md", "one_shot_transformer", text)


if __name__ == "__main__":
    main()
