"""Blocks, channels and N:M below few values and on factors: units stay whole, and the string says the network."""

import pytest
import torch
from torch import nn

from lightning_sparse import GradualPruning
from lightning_sparse.compress import Code, Factorise, Prune, Quantise, Share, compress, decompress

UNITS = {
    "2:4": (0.5, lambda alive: bool((alive.reshape(len(alive), -1, 4).sum(2) == 2).all())),
    "1x4": (0.75, lambda alive: set(alive.reshape(len(alive), -1, 4).sum(2).flatten().tolist()) <= {0, 4}),
    "channels": (0.5, lambda alive: bool((alive.all(1) | ~alive.any(1)).all())),
}
FEW = {
    "quantise": [Quantise(bits=2)],
    "rows": [Quantise(bits=3, per="row", symmetric=True)],
    "share": [Share(bits=2)],
}


@pytest.mark.parametrize("few", FEW)
@pytest.mark.parametrize("factors", [[], [Factorise(rank=8)]], ids=["layers", "factors"])
@pytest.mark.parametrize("units", UNITS)
def test_units_stay_whole(units, factors, few):
    torch.manual_seed(0)
    sparsity, whole = UNITS[units]
    net = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 24))
    data = torch.randn(64, 32), torch.randint(0, 24, (64,))
    prune = Prune(method=GradualPruning(sparsity, granularity=units))
    steps = [*factors, prune, *FEW[few], Code()]
    found = compress(net, steps, data=data, fine_tune=len(steps) - 1)
    again = decompress(found.content, net)
    for mine, other in zip(found.model.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, other)
    matrices = [parameter for parameter in again.parameters() if parameter.dim() > 1]
    assert len(matrices) == 2 * (1 + len(factors))
    masks = [matrix != 0 for matrix in matrices]
    assert few == "rows" or all(map(whole, masks))  # of symmetric rows a living weight may be at zero
    dead = sum(int((~mask).sum()) for mask in masks) / sum(mask.numel() for mask in masks)
    assert dead == pytest.approx(sparsity, abs=0.03) or (few == "rows" and dead > sparsity - 0.03)
