"""Which connections live: by masks, by zeros, and what is refused."""

import pytest
import torch
from torch import nn

from lightning_sparse.anatomy.living import living_of
from lightning_sparse.errors import SparsityError


def test_a_layer_without_a_mask_is_dense_and_one_that_cannot_be_sparse_is_of_the_rest():
    net = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 3))
    net[1].weight.data[0, 0] = 0
    masks = {"0.weight": torch.ones(2, 4, dtype=torch.bool)}
    assert {name: int(alive.sum()) for name, (_, alive) in living_of(net, masks).items()} == {
        "0.weight": 8,
        "1.weight": 6,
    }
    nn.utils.parametrizations.weight_norm(net[1])
    assert list(living_of(net, masks)) == ["0.weight"]


def test_masks_that_do_not_fit_are_refused():
    net = nn.Linear(4, 2)
    with pytest.raises(SparsityError, match="not zero at some dead"):
        living_of(net, {"weight": torch.zeros(2, 4, dtype=torch.bool)})
    with pytest.raises(SparsityError, match="no such parameter"):
        living_of(net, {"0.weight": torch.ones(2, 4, dtype=torch.bool)})
    with pytest.raises(SparsityError, match=r"shape \[4, 2\]"):
        living_of(net, {"weight": torch.ones(4, 2, dtype=torch.bool)})
    with pytest.raises(SparsityError, match="int64"):
        living_of(net, {"weight": torch.ones(2, 4, dtype=torch.long)})
    with pytest.raises(SparsityError, match="empty"):
        living_of(net, {})
